"""Findings of many runs, added up by reason code: what every summary shows of losses, gaps and approximations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from shardmig.records import Finding, FindingKind, RunOutcome

_Key = tuple[FindingKind, str, str, str]
"""Kind, code, run, field."""

_ORDER: Final[tuple[FindingKind, ...]] = ("loss", "gap", "approximation", "note")


class Reason(msgspec.Struct, frozen=True):
    """One reason code over all runs. `example` names a field or says what happened, of the first run that has it."""

    kind: FindingKind
    code: str
    runs: int
    count: int
    example: str


def reasons(outcomes: Iterable[RunOutcome]) -> list[Reason]:
    """Findings and differences of these runs by kind and code: losses first, then gaps, approximations, notes.

    What several phases say of one field of one run is counted once.
    """
    counts: dict[_Key, int] = {}
    examples: dict[_Key, str] = {}
    for outcome in outcomes:
        here: Counter[_Key] = Counter()
        for finding in (*outcome.findings, *outcome.differences):
            key = (finding.kind, finding.code, outcome.run.label, finding.field)
            here[key] += finding.count
            examples.setdefault(key, _example(outcome, finding))
        for key, count in here.items():
            counts[key] = max(count, counts.get(key, 0))
    grouped: dict[tuple[FindingKind, str], list[_Key]] = {}
    for key in counts:
        grouped.setdefault(key[:2], []).append(key)
    found = [
        Reason(*reason, len({key[2] for key in keys}), sum(counts[key] for key in keys), examples[keys[0]])
        for reason, keys in grouped.items()
    ]
    return sorted(found, key=lambda reason: (_ORDER.index(reason.kind), -reason.count, reason.code))


def told(finding: Finding) -> str:
    """One finding in one line."""
    times = f" ({finding.count:,} times)" if finding.count > 1 else ""
    where = f" in {finding.field}" if finding.field else ""
    return f"{finding.code}{where}{times}" + (f": {finding.detail}" if finding.detail else "")


def why_failed(outcome: RunOutcome) -> str:
    """Why a run failed, in one line."""
    if outcome.failure is not None:
        field = f" (field {outcome.failure.field})" if outcome.failure.field else ""
        return f"{outcome.failure.message}{field}"
    if outcome.differences:
        more = f", and {len(outcome.differences) - 1} more" if len(outcome.differences) > 1 else ""
        return f"{outcome.verdict}: {told(outcome.differences[0])}{more}"
    return str(outcome.verdict or "failed")


def _example(outcome: RunOutcome, finding: Finding) -> str:
    where = f"{outcome.run.label} {finding.field}".rstrip()
    return f"{where}: {finding.detail}" if finding.detail else where

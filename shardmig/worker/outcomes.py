"""How errors and findings become the outcome of a run. One rule for every phase."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from shardmig import logs
from shardmig.errors import UNREACHED_BEFORE_END, AdapterError, Permanent, ShardmigError, Transient, settled
from shardmig.logs import Event
from shardmig.records import Failure, Finding, RunOutcome, RunRef


def failed(run: RunRef, error: ShardmigError) -> RunOutcome:
    """The outcome of a run that raised."""
    logs.get_logger().error(Event.RUN_FAILED, run=run.id, error=type(error).__name__, message=error.message)
    if isinstance(error, Transient):
        failure = Failure(type(error).__name__, "transient", error.message, run.label, error.field, error.hint)
    elif isinstance(error, Permanent):
        failure = Failure(type(error).__name__, "permanent", error.message, run.label, error.field, error.hint)
    else:
        failure = Failure(type(error).__name__, "unclassified", error.message, run.label, error.field, error.hint)
    return RunOutcome(run=run, state="failed", failure=failure)


def settle_each(
    runs: Iterable[RunRef], settle: Callable[[RunRef], RunOutcome], done: Callable[[RunOutcome], None]
) -> None:
    """Settle every run and tell its outcome. A run that fails does not stop the others; Fatal does.

    Two transient failures in a row are raised: the other side is down, and a worker that waited for each run in turn
    would wait for hours.
    """
    settle_groups(([run] for run in runs), lambda group: [settled(settle, group[0])], done)


def settle_groups(
    groups: Iterable[Sequence[RunRef]],
    settle: Callable[[Sequence[RunRef]], Sequence[RunOutcome | AdapterError]],
    done: Callable[[RunOutcome], None],
) -> None:
    """As `settle_each`, of runs that are settled together: an outcome or an error for each. All of a group are told."""
    unreached = 0
    for group in groups:
        results = settle(group)
        for run, result in zip(group, results, strict=True):
            done(result if isinstance(result, RunOutcome) else failed(run, result))
            unreached = unreached + 1 if isinstance(result, Transient) else 0
        if unreached >= UNREACHED_BEFORE_END and isinstance(results[-1], Transient):
            raise results[-1]


def lost_values(findings: Sequence[Finding]) -> Failure | None:
    """A run with losses has arrived, but not whole: that is a failure of the run, named by its first loss."""
    losses = [finding for finding in findings if finding.kind == "loss"]
    if not losses:
        return None
    first, count = losses[0], sum(finding.count for finding in losses)
    others = "" if count == 1 else f" (and {count - 1} more)"
    detail = f": {first.detail}" if first.detail else ""
    return Failure(
        "LostValues",
        "permanent",
        f"{first.code}{detail}{others}",
        field=first.field,
        hint="-v and --json name each loss; docs/reason-codes.md says what the codes mean",
    )


def merged(findings: Sequence[Finding]) -> list[Finding]:
    """Findings of the same kind, code and field as one, counts added, the first detail kept."""
    sums: dict[tuple[str, str, str], Finding] = {}
    for finding in findings:
        key = (finding.kind, finding.code, finding.field)
        before = sums.get(key)
        sums[key] = finding if before is None else msgspec.structs.replace(before, count=before.count + finding.count)
    return list(sums.values())

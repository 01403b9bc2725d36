"""Findings of one run, merged by kind, code and field."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from shardmig.records import Finding, FindingKind

_DETAILS_KEPT: Final = 5


class FindingLog:
    """Collects findings. The same kind, code and field are one finding with a count and its first details, so that
    a log with a million bad lines costs no more memory than one with five."""

    def __init__(self, findings: Iterable[Finding] = ()) -> None:
        self._found: dict[tuple[FindingKind, str, str], tuple[int, list[str]]] = {}
        for finding in findings:
            self._found[finding.kind, finding.code, finding.field] = (
                finding.count,
                finding.detail.split("; ") if finding.detail else [],
            )

    def add(self, kind: FindingKind, code: str, *, field: str = "", count: int = 1, detail: str = "") -> None:
        """Count a finding; its detail is kept if it is among the first few."""
        total, details = self._found.get((kind, code, field), (0, []))
        if detail and detail not in details and len(details) < _DETAILS_KEPT:
            details.append(detail)
        self._found[kind, code, field] = (total + count, details)

    def findings(self) -> list[Finding]:
        """In the order of first occurrence."""
        return [
            Finding(kind, code, field, count, "; ".join(details))
            for (kind, code, field), (count, details) in self._found.items()
        ]

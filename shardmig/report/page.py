"""The result of a migration as one HTML file: no script, no external resource, every name escaped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from typing import Final

import shardmig
from shardmig.records import FailedRun, PhaseProgress, Report, RunOutcome
from shardmig.report import words
from shardmig.report.findings import reasons, told, why_failed

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1a1a1a; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; } th { text-align: left; border-bottom: 2px solid #999; }
td, th { padding: .25rem .75rem .25rem 0; vertical-align: top; overflow-wrap: anywhere; }
td { border-bottom: 1px solid #ddd; } .number { text-align: right; white-space: nowrap; overflow-wrap: normal; }
code { font: 13px ui-monospace, monospace; overflow-wrap: anywhere; }
.good { color: #17692f; } .bad { color: #b3261e; } .changed { color: #8a5300; }
"""
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_GOOD: Final = {"done": "good", "skipped": "good", "equal": "good", "approximated": "changed"}

MOST_FINDINGS_SHOWN: Final = 100
"""Of one run; the rest is counted."""


def page(report: Report, *, title: str, meaning: str, ended_ms: int) -> str:
    """The whole page. `meaning` says what the exit code means."""
    verdict = "good" if report.exit_code == 0 else "bad"
    facts = [
        ("migration", report.migration),
        ("ended", words.moment(ended_ms)),
        ("took", words.duration(report.elapsed_s)),
        ("step multiplier", str(report.step_multiplier) if report.step_multiplier else ""),
        ("logs", report.logs),
        ("stopped", report.stopped),
    ]
    body = [
        f"<h1>{_text(title)}</h1>",
        f'<p class="{verdict}"><strong>{_text(meaning)}</strong> (exit code {report.exit_code})</p>',
        *_table((), [[f"<th>{_text(label)}</th>", _cell(fact)] for label, fact in facts if fact]),
        *_section("Phases", _totals(report.phases)),
        *_section("Failed runs", _failures(report.failed)),
        *_section("Losses, gaps and approximations", _reasons(report)),
    ]
    for phase, outcomes in report.outcomes.items():
        body += _section(f"Runs: {phase}", _runs(outcomes))
    return _document(title, body)


def _document(title: str, body: Iterable[str]) -> str:
    head = (
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>",
    )
    return "\n".join((*head, *body, f"<p>shardmig {_text(shardmig.__version__)}</p>", "</body></html>", ""))


def _totals(phases: list[PhaseProgress]) -> Iterator[str]:
    headers = (
        "phase",
        "runs",
        "done",
        "skipped",
        "failed",
        "fields",
        "points",
        "texts",
        "histograms",
        "files",
        "bytes",
    )
    rows = []
    for phase in phases:
        counters = phase.counters
        numbers = (phase.runs, phase.runs_done, phase.runs_skipped, phase.runs_failed, counters.fields)
        amounts = (counters.points, counters.texts, counters.histograms, counters.files)
        cells = [_number(words.count(number)) for number in (*numbers, *amounts)]
        rows.append([_cell(phase.phase), *cells, _number(words.size(counters.bytes))])
    return _table(headers, rows)


def _failures(failed: list[FailedRun]) -> Iterator[str]:
    rows = []
    for one in failed:
        hint = one.outcome.failure.hint if one.outcome.failure is not None else ""
        why = _text(why_failed(one.outcome)) + (f"<br>{_text(hint)}" if hint else "")
        retry = f"<code>{_text(one.retry_command)}</code><br>{_text(one.log)}"
        rows.append([_cell(one.outcome.run.label), _cell(one.phase), f"<td>{why}</td>", f"<td>{retry}</td>"])
    return _table(("run", "phase", "why", "retry with; log"), rows)


def _reasons(report: Report) -> Iterator[str]:
    counted = reasons(outcome for outcomes in report.outcomes.values() for outcome in outcomes)
    rows = [
        [
            _cell(reason.kind, "bad" if reason.kind == "loss" else "changed"),
            _cell(reason.code),
            _number(words.count(reason.runs)),
            _number(words.count(reason.count)),
            _cell(reason.example),
        ]
        for reason in counted
    ]
    return _table(("kind", "reason", "runs", "count", "for example"), rows)


def _runs(outcomes: list[RunOutcome]) -> Iterator[str]:
    headers = ("run", "result", "points", "files", "bytes", "in the target", "findings")
    rows = []
    for outcome in outcomes:
        result = outcome.verdict or outcome.state
        findings = [*outcome.differences, *outcome.findings]
        lines = [_text(told(finding)) for finding in findings[:MOST_FINDINGS_SHOWN]]
        if (more := len(findings) - MOST_FINDINGS_SHOWN) > 0:
            lines.append(f"and {words.count(more)} more")
        rows.append(
            [
                _cell(outcome.run.label),
                _cell(result, _GOOD.get(result, "bad")),
                _number(words.count(outcome.counters.points)),
                _number(words.count(outcome.counters.files)),
                _number(words.size(outcome.counters.bytes)),
                _cell(outcome.target_id or ""),
                f"<td>{'<br>'.join(lines)}</td>",
            ]
        )
    return _table(headers, rows)


def _section(title: str, content: Iterable[str]) -> list[str]:
    inner = list(content)
    return [f"<h2>{_text(title)}</h2>", *inner] if inner else []


def _table(headers: Iterable[str], rows: list[list[str]]) -> Iterator[str]:
    if not rows:
        return
    yield "<table>"
    if named := [f"<th>{_text(header)}</th>" for header in headers]:
        yield f"<tr>{''.join(named)}</tr>"
    for cells in rows:
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</table>"


def _cell(text: str, style: str = "") -> str:
    return f'<td class="{style}">{_text(text)}</td>' if style else f"<td>{_text(text)}</td>"


def _number(text: str) -> str:
    return f'<td class="number">{_text(text)}</td>'


def _text(text: str) -> str:
    return escape(words.printable(text))

"""How a migration ended, for people: totals by phase, what was changed or lost, what failed and how to retry it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from rich.console import RenderableType
from rich.text import Text

from shardmig.errors import StepConflict
from shardmig.records import FailedRun, PhaseProgress, Report, RunOutcome, RunRef, StepNeeds
from shardmig.report import refused, terminal, words
from shardmig.report.findings import reasons, told, why_failed
from shardmig.steps import merge_needs, proposed_multiplier

MOST_RUNS_SHOWN: Final = 20
MOST_DIFFERENCES_SHOWN: Final = 5


def ended(report: Report, *, verbose: bool = False) -> Iterator[RenderableType]:
    """Everything that is said at the end of export, load, migrate, verify and retry; every run and each of its findings
    with `verbose`."""
    yield _totals(report)
    outcomes = [outcome for phase in report.outcomes.values() for outcome in phase]
    if counted := reasons(outcomes):
        found = terminal.table("found", "reason", ">runs", ">count", "for example")
        for reason in counted:
            style = "red" if reason.kind == "loss" else ""
            terminal.row(
                found,
                terminal.name(reason.kind, style),
                reason.code,
                words.count(reason.runs),
                words.count(reason.count),
                reason.example,
            )
        yield Text()
        yield found
    if verbose:
        yield from _runs(report)
    if verified := report.outcomes.get("verify"):
        yield Text()
        yield from verdicts(verified)
    yield from _failures(report.failed)
    yield from _multiplier_for_all(report)
    yield from refused.shown(report.refused)
    yield from _gone(report.gone)
    if report.stopped:
        yield Text()
        yield terminal.name(f"stopped: {report.stopped}", style="red")


def verdicts(outcomes: list[RunOutcome]) -> Iterator[RenderableType]:
    """How many runs have which verdict, and the first differences of those that do not have an equal."""
    counted = Counter(outcome.verdict or "not compared" for outcome in outcomes)
    yield Text("verdicts: " + ", ".join(f"{words.count(number)} {verdict}" for verdict, number in counted.items()))
    differing = [outcome for outcome in outcomes if outcome.verdict in ("differs", "missing")]
    for outcome in differing[:MOST_RUNS_SHOWN]:
        yield terminal.name(f"{outcome.run.label}: {outcome.verdict}", style="red")
        for difference in outcome.differences[:MOST_DIFFERENCES_SHOWN]:
            yield terminal.name(f"  {told(difference)}")
        if (more := len(outcome.differences) - MOST_DIFFERENCES_SHOWN) > 0:
            yield Text(f"  and {words.count(more)} more")
    if (more := len(differing) - MOST_RUNS_SHOWN) > 0:
        yield Text(f"and {words.plural(more, 'more run')}: see --json or --report")


def _runs(report: Report) -> Iterator[RenderableType]:
    """Every run in every phase: how it ended, what it is in the target, and its findings."""
    yield Text()
    for phase, outcomes in report.outcomes.items():
        for outcome in outcomes:
            became = f" as {outcome.target_id}" if outcome.target_id else ""
            yield terminal.name(f"{phase} {outcome.run.label}: {outcome.verdict or outcome.state}{became}")
            for finding in (*outcome.findings, *outcome.differences):
                yield terminal.name(f"  {finding.kind}: {told(finding)}", style="dim")


def _totals(report: Report) -> RenderableType:
    totals = terminal.table(
        "phase",
        ">runs",
        ">done",
        ">skipped",
        ">failed",
        ">open",
        ">fields",
        ">points",
        ">texts",
        ">histograms",
        ">files",
        ">bytes",
    )
    for phase in report.phases:
        counters = phase.counters
        terminal.row(
            totals,
            phase.phase,
            words.count(phase.runs),
            words.count(phase.runs_done),
            words.count(phase.runs_skipped),
            Text(words.count(phase.runs_failed), style="red" if phase.runs_failed else ""),
            words.count(_open(phase)),
            words.count(counters.fields),
            words.count(counters.points),
            words.count(counters.texts),
            words.count(counters.histograms),
            words.count(counters.files),
            words.size(counters.bytes),
        )
    return totals


def _open(phase: PhaseProgress) -> int:
    return phase.runs - phase.runs_done - phase.runs_skipped - phase.runs_failed


def _failures(failed: list[FailedRun]) -> Iterator[RenderableType]:
    shown = [one for one in failed if one.outcome.failure is not None]
    if not shown:
        return
    yield Text()
    for one in shown[:MOST_RUNS_SHOWN]:
        yield terminal.name(f"failed in {one.phase}: {one.outcome.run.label}: {why_failed(one.outcome)}", style="red")
        if one.outcome.failure is not None and one.outcome.failure.hint:
            yield terminal.name(f"  {one.outcome.failure.hint}")
        yield terminal.name(f"  retry: {one.retry_command}")
        yield terminal.name(f"  log: {one.log}", style="dim")
    if (more := len(shown) - MOST_RUNS_SHOWN) > 0:
        yield Text(f"and {words.plural(more, 'more run')}: see --json or --report")


def _gone(runs: list[RunRef]) -> Iterator[RenderableType]:
    """Runs that no execution brought and none will: whoever wants them has to bring them back in the source."""
    if not runs:
        return
    yield Text(f"gap (run-gone): {words.plural(len(runs), 'run')} failed before, and the source no longer has:")
    yield from (terminal.name(f"  {run.label}") for run in runs[:MOST_RUNS_SHOWN])
    if (more := len(runs) - MOST_RUNS_SHOWN) > 0:
        yield Text(f"and {words.plural(more, 'more run')}: see --json")


def _multiplier_for_all(report: Report) -> Iterator[RenderableType]:
    """A run that failed for its steps names the multiplier that it needs itself; all runs share one."""
    if not any(
        one.outcome.failure is not None and one.outcome.failure.error == "StepConflict" for one in report.failed
    ):
        return
    needs = StepNeeds()
    for outcome in next(iter(report.outcomes.values())):
        needs = merge_needs(needs, outcome.steps)
    with suppress(StepConflict):
        yield Text(f"for all runs together: --step-multiplier {proposed_multiplier(needs)} keeps every step")

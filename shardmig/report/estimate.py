"""The answer of `plan`: what would be moved, what the target would change, and which step multiplier keeps all steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
from rich.console import RenderableType
from rich.text import Text

from shardmig.adapters.base import Capabilities
from shardmig.errors import StepConflict
from shardmig.records import Counters, Failure, Finding, ProjectId, Report, RunOutcome, StepNeeds
from shardmig.report import budget, refused, terminal, words
from shardmig.report.findings import Reason, reasons, why_failed
from shardmig.steps import merge_needs, proposed_multiplier


class RunEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """What one run holds and what would become of it."""

    run: str
    created_ms: int | None
    parent: str | None
    state: Literal["done", "skipped", "failed"]
    counters: Counters
    steps: StepNeeds
    findings: list[Finding]
    name_changes: int
    failure: str = ""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a command would do. `step_multiplier`: the smallest that keeps every step, None: there is none
    (`step_conflict` says why). `predicted`: what the target would change, over all runs. `target`: what it can do."""

    migration: str
    exit_code: int
    phases: list[str]
    shards: int
    counters: Counters
    steps: StepNeeds
    step_multiplier: int | None
    step_conflict: str
    stopped: str
    name_changes: int
    predicted: list[Reason]
    runs: list[RunEstimate]
    refused: dict[ProjectId, Failure] = {}
    target: Capabilities | None = None


def estimate_of(report: Report, phases: list[str], target: Capabilities | None = None) -> Estimate:
    """The estimate from a survey. `phases` are those of the command that is planned."""
    outcomes = report.outcomes.get("survey", [])
    needs, counters = StepNeeds(), Counters()
    for outcome in outcomes:
        needs = merge_needs(needs, outcome.steps)
        counters += outcome.counters
    multiplier, conflict = _multiplier(needs)
    return Estimate(
        migration=report.migration,
        exit_code=report.exit_code,
        phases=phases,
        shards=sum(phase.shards for phase in report.phases),
        counters=msgspec.structs.replace(counters, runs=len(outcomes)),
        steps=needs,
        step_multiplier=multiplier,
        step_conflict=conflict,
        stopped=report.stopped,
        name_changes=sum(outcome.name_changes for outcome in outcomes),
        predicted=reasons(outcomes),
        runs=[_run_estimate(outcome) for outcome in outcomes],
        refused=report.refused,
        target=target,
    )


def shown(estimate: Estimate, report: Report, *, verbose: bool) -> Iterator[RenderableType]:
    """The estimate for people; every run with `verbose`."""
    counters = estimate.counters
    yield Text(
        f"{' and '.join(estimate.phases)} would move, in {words.plural(estimate.shards, 'shard')}:", style="bold"
    )
    amounts = terminal.table(">runs", ">fields", ">points", ">texts", ">histograms", ">files", ">bytes")
    numbers = (counters.runs, counters.fields, counters.points, counters.texts, counters.histograms, counters.files)
    terminal.row(amounts, *map(words.count, numbers), words.size(counters.bytes))
    yield amounts
    yield Text(_steps(estimate))
    if estimate.target is not None and (most := budget.allowed(estimate.target)):
        yield Text(f"budget: {most} into {estimate.target.name}, of all workers together")
    yield Text(f"names that the target cannot take as they are: {words.count(estimate.name_changes)}")
    if estimate.predicted:
        yield Text()
        predicted = terminal.table("expected", "reason", ">runs", ">count", "for example")
        for reason in estimate.predicted:
            numbers_of = (words.count(reason.runs), words.count(reason.count))
            terminal.row(predicted, reason.kind, reason.code, *numbers_of, reason.example)
        yield predicted
    if verbose:
        yield Text()
        yield _run_table(estimate.runs)
    if report.stopped:
        yield terminal.name(f"stopped: {report.stopped}", style="red")
    yield from refused.shown(estimate.refused)
    for one in report.failed:
        yield terminal.name(f"cannot be read: {one.outcome.run.label}: {why_failed(one.outcome)}", style="red")


def _run_table(runs: list[RunEstimate]) -> RenderableType:
    listed = terminal.table("run", "created", ">fields", ">points", ">files", ">bytes", ">findings")
    for run in runs:
        terminal.row(
            listed,
            run.run,
            words.moment(run.created_ms),
            words.count(run.counters.fields),
            words.count(run.counters.points),
            words.count(run.counters.files),
            words.size(run.counters.bytes),
            words.count(sum(finding.count for finding in run.findings)),
        )
    return listed


def _steps(estimate: Estimate) -> str:
    if not estimate.steps.lowest:
        return "steps: none"
    bounds = f"steps: {estimate.steps.lowest} to {estimate.steps.highest}"
    if estimate.target is not None and estimate.target.step_type == "decimal":
        return f"{bounds}; the target keeps fractions"
    if estimate.step_multiplier is None:
        return f"{bounds}; {estimate.step_conflict}"
    return f"{bounds}; --step-multiplier {estimate.step_multiplier} keeps every one (what auto chooses)"


def _multiplier(needs: StepNeeds) -> tuple[int | None, str]:
    try:
        return proposed_multiplier(needs), ""
    except StepConflict as error:
        return None, f"{error.message} ({error.hint})"


def _run_estimate(outcome: RunOutcome) -> RunEstimate:
    return RunEstimate(
        run=outcome.run.label,
        created_ms=outcome.run.created_ms,
        parent=outcome.run.parent,
        state=outcome.state,
        counters=outcome.counters,
        steps=outcome.steps,
        findings=outcome.findings,
        name_changes=outcome.name_changes,
        failure=why_failed(outcome) if outcome.state == "failed" else "",
    )

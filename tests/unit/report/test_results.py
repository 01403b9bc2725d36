"""What is said at the end of a migration."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from shardmig import codec
from shardmig.adapters.registry import capabilities_of
from shardmig.records import AdapterSpec, Failure, Finding, LoadOptions, Report, RunOutcome, StepNeeds
from shardmig.report import failures, results, terminal
from shardmig.report.estimate import estimate_of, shown
from shardmig.report.findings import reasons
from tests.unit.report.reports import HOSTILE, run


def _text(report: Report) -> str:
    return "".join(terminal.text_of(part) for part in results.ended(report))


def test_totals_failures_hints_and_retry_commands_are_told(report: Report) -> None:
    text = _text(report)
    for expected in (
        "1,234,567",
        "5.0 MB",
        "bring it back",
        "retry: shardmig retry --shard 00001",
        "/logs/load-00001-1.jsonl",
    ):
        assert expected in text


def test_no_name_reaches_the_terminal_with_its_control_characters(report: Report) -> None:
    assert "\x1b" not in _text(report)
    assert "\u202e" not in _text(report)
    assert "\\x1b[31m</td>" in _text(report)


def test_runs_that_were_not_reached_are_counted_as_open(report: Report) -> None:
    header, totals = _text(report).splitlines()[:2]
    assert dict(zip(header.split(), totals.split(), strict=False))["open"] == "1"


def test_findings_are_counted_by_reason_over_all_runs_losses_first(report: Report) -> None:
    counted = reasons(report.outcomes["load"])
    assert [(one.kind, one.code, one.runs, one.count) for one in counted] == [
        ("loss", "file-missing", 1, 2),
        ("approximation", "infinity", 1, 4),
    ]


def test_what_two_phases_say_of_one_field_is_counted_once(report: Report) -> None:
    once = reasons(report.outcomes["load"])
    assert reasons(report.outcomes["load"] * 2) == once


def test_only_the_first_failed_runs_are_listed_and_the_others_counted(report: Report) -> None:
    many = msgspec.structs.replace(report, failed=report.failed * 25)
    assert _text(many).count("failed in load") == results.MOST_RUNS_SHOWN
    assert "and 5 more runs" in _text(many)


def test_verdicts_are_counted_and_differences_shown() -> None:
    differences = [Finding("loss", "value-differs", f"metrics/{number}") for number in range(8)]
    outcomes = [
        RunOutcome(run=run("A"), state="done", verdict="equal"),
        RunOutcome(run=run("B"), state="failed", verdict="differs", differences=differences),
        RunOutcome(run=run("C"), state="failed", verdict="missing"),
    ]
    text = "".join(terminal.text_of(part) for part in results.verdicts(outcomes))
    assert "verdicts: 1 equal, 1 differs, 1 missing" in text
    assert "ws/proj/B: differs" in text
    assert "value-differs in metrics/4" in text
    assert "and 3 more" in text


def test_the_estimate_proposes_the_multiplier_that_keeps_every_step(report: Report) -> None:
    survey = msgspec.structs.replace(report, outcomes={"survey": report.outcomes["load"][:1]})
    estimate = estimate_of(survey, ["load"])
    assert (estimate.step_multiplier, estimate.counters.points, estimate.name_changes) == (2, 1_234_567, 1)
    text = "".join(terminal.text_of(part) for part in shown(estimate, survey, verbose=True))
    assert "--step-multiplier 2 keeps every one" in text
    assert "infinity" in text
    assert "ws/proj/RUN-1" in text
    assert json.loads(codec.encode_json(estimate))["predicted"][0]["code"] == "infinity"


def test_the_estimate_knows_the_target(report: Report) -> None:
    survey = msgspec.structs.replace(report, outcomes={"survey": report.outcomes["load"][:1]})
    target = capabilities_of(AdapterSpec("wandb", {"offline-dir": "runs"}), LoadOptions())
    text = "".join(
        terminal.text_of(part) for part in shown(estimate_of(survey, ["load"], target), survey, verbose=False)
    )
    assert "budget: 20 requests/s and 100,000 points/min into wandb" in text
    decimal = msgspec.structs.replace(target, step_type="decimal", requests_per_s=None, points_per_min=None)
    text = "".join(
        terminal.text_of(part) for part in shown(estimate_of(survey, ["load"], decimal), survey, verbose=False)
    )
    assert "the target keeps fractions" in text
    assert "budget" not in text


def test_the_error_report_has_the_keys_of_neptune_exporter_and_one_line_per_loss(
    report: Report, tmp_path: Path
) -> None:
    file = tmp_path / "errors.jsonl"
    failures.append(report, file)
    failures.append(report, file)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == 2
    assert lines[0] == {
        "project_id": "ws/proj",
        "run_id": HOSTILE,
        "attribute_path": HOSTILE,
        "attribute_type": None,
        "exception": "file-missing",
        "phase": "load",
        "message": "it is gone",
    }


def test_runs_that_failed_for_their_steps_learn_the_multiplier_for_all(report: Report) -> None:
    outcomes = [
        RunOutcome(run=run("RUN-1"), state="done", steps=StepNeeds(2, "0", "0.5")),
        RunOutcome(run=run("RUN-2"), state="done", steps=StepNeeds(4, "0", "0.25")),
    ]
    conflict = Failure("StepConflict", "permanent", "step 0.5 x 1 is no integer")
    [lost] = report.failed
    failed = msgspec.structs.replace(lost, outcome=msgspec.structs.replace(outcomes[0], failure=conflict))
    told = msgspec.structs.replace(report, outcomes={"survey": outcomes, "load": []}, failed=[failed])
    assert "for all runs together: --step-multiplier 4 keeps every step" in _text(told)
    assert "for all runs" not in _text(report)


def test_every_run_is_told_with_its_findings_if_asked(report: Report) -> None:
    told = "".join(terminal.text_of(part) for part in results.ended(report, verbose=True))
    assert "load ws/proj/RUN-1: done as a1b2\n  approximation: infinity in metrics/a (3 times)\n" in told
    assert "done as a1b2" not in _text(report)

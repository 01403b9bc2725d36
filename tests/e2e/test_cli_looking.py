"""summary, ls, show and status as a user types them, on an archive of neptune-exporter and on one of ours."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardmig.archive.spool import RunSpool
from shardmig.archive.writer import compact
from shardmig.cli.app import execute
from shardmig.records import (
    ArchivePaths,
    Chunk,
    End,
    Field,
    Fields,
    FloatPoints,
    Header,
    Piece,
    ProjectId,
    RunId,
    RunRef,
    Selection,
)
from shardmig.steps import from_decimals

SAMPLES = Path(__file__).parents[1] / "samples"
HOSTILE = "RUN\x1b[31m\n\u202e'\"; rm -rf ~"
FIELD = "params/\x1b]0;owned\x07\r\n<b>"

Type = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Type:
    """Type a command: exit code, stdout, stderr."""

    def type_command(line: str) -> tuple[int, str, str]:
        code = execute(shlex.split(line))
        said = capsys.readouterr()
        return code, said.out, said.err

    return type_command


@pytest.fixture
def exporters() -> str:
    """Flags of an archive that neptune-exporter wrote."""
    return f"-d {SAMPLES / 'exporter-3x' / 'data'} -f {SAMPLES / 'exporter-3x' / 'files'}"


@pytest.fixture
def hostile(tmp_path: Path) -> str:
    """Flags of an archive of ours, with names that are out to do harm."""
    run = RunRef(project=ProjectId("ws/\x1b[2J"), id=RunId(HOSTILE))
    steps = from_decimals([Decimal(step) / 2 for step in range(1000)])
    values = np.arange(1000, dtype=np.float64)
    points = FloatPoints(["m/loss"], np.array([1000]), steps, np.full(1000, 5, dtype=np.int64), values)
    chunks: list[Chunk] = [Header(run), Fields([Field(FIELD, "string", "\x1b[7mvalue")]), points, End()]
    spool = RunSpool(tmp_path / "spool")
    for chunk in chunks:
        spool.append(Piece(run, chunk))
    spool.close()
    archive = ArchivePaths(str(tmp_path / "data"), str(tmp_path / "files"))
    compact(spool.path, archive, asked=Selection(), source="test", source_version="1", started_ms=0)
    return f"-d {archive.data} -f {archive.files}"


def _document(told: tuple[int, str, str]) -> Any:
    code, out, err = told
    assert (code, err) == (0, "")
    return json.loads(out)


def test_summary_counts_fields_and_rows_by_type_and_says_that_completeness_is_unknown(
    typed: Type, exporters: str
) -> None:
    [project] = _document(typed(f"summary {exporters} --json"))["projects"]
    assert (project["project"], project["runs"], project["with_receipt"]) == ("ws/three", 3, 0)
    assert (project["rows"]["float_series"], project["rows"]["file_series"]) == (2526, 18)
    assert (project["lowest_step"], project["highest_step"]) == ("0", "1500")
    code, out, _ = typed(f"summary {exporters}")
    assert code == 0
    assert "3 runs without receipt" in out


def test_summary_of_our_archive_needs_only_receipts(typed: Type, hostile: str) -> None:
    [project] = _document(typed(f"summary {hostile} --json"))["projects"]
    assert (project["with_receipt"], project["rows"]) == (1, {"float_series": 1000, "string": 1})
    assert (project["lowest_step"], project["highest_step"]) == ("0", "499.5")


def test_a_damaged_run_is_named_and_the_summary_goes_on(typed: Type, hostile: str, tmp_path: Path) -> None:
    [part] = (tmp_path / "data").rglob("*_part_0.parquet")
    part.with_name("torn-0000000000000000_part_0.parquet").write_bytes(part.read_bytes()[:-9])
    code, out, _ = typed(f"summary {hostile}")
    assert code == 3
    assert "cannot be read" in out
    assert "torn-0000000000000000_part_0.parquet" in out


def test_ls_goes_from_projects_to_runs_to_fields(typed: Type, exporters: str) -> None:
    assert _document(typed(f"ls {exporters} --json")) == [{"project": "ws/three", "runs": 3, "others": {}}]
    runs = _document(typed(f"ls {exporters} ws/three --json"))
    assert [(run["run"], run["parent"], run["state"]) for run in runs] == [
        ("run-0", None, "unknown"),
        ("run-1", None, "unknown"),
        ("run-2", "run-0", "unknown"),
    ]
    fields = _document(typed(f"ls {exporters} ws/three run-1 --namespace m --json"))["fields"]
    assert [(field["path"], field["rows"]) for field in fields] == [("m/loss", 7), ("m/nan", 2), ("m/prev", 2)]
    _, tree, _ = typed(f"ls {exporters} ws/three run-1")
    assert "├── m/\n│   ├── loss  float_series  7 points, steps 0 to 3\n" in tree


def test_show_gives_values_and_the_ends_of_series(typed: Type, exporters: str) -> None:
    assert typed(f"show {exporters} run-1 p/bigint") == (0, "4611686018427387904\n", "")
    answer = _document(typed(f"show {exporters} run-1 m/loss --head 1 --tail 1 --json"))
    assert (answer["points"], answer["head"][0]["step"], answer["tail"][0]["step"]) == (7, "0.0", "3.0")
    assert [point["value"] for point in _document(typed(f"show {exporters} run-1 m/nan --json"))["head"]] == [
        "nan",
        "inf",
    ]
    assert "bigint  int  4611686018427387904" in typed(f"show {exporters} ws/three/run-1")[1]


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("ls ws/nope", 2, "the archive has no project 'ws/nope'"),
        ("ls ws/three run-9", 2, "there is no run 'run-9' in project ws/three"),
        ("show run-9", 2, "there is no run 'run-9' in the archive"),
        ("show run-1 p/nope", 2, "there is no field 'p/nope' (run ws/three/run-1)"),
        ("status", 2, "there is no migration"),
    ],
)
def test_what_does_not_exist_is_said_with_what_does(
    typed: Type, exporters: str, line: str, code: int, message: str
) -> None:
    command, _, rest = line.partition(" ")
    ended, out, err = typed(f"{command} {exporters} {rest}")
    assert (ended, out) == (code, "")
    assert message in err
    assert len(err.splitlines()) == 2


@pytest.mark.parametrize("command", ["summary", "ls", "ls PROJECT", "ls PROJECT RUN", "show RUN", "show RUN FIELD"])
def test_no_name_controls_the_terminal(capsys: pytest.CaptureFixture[str], hostile: str, command: str) -> None:
    names = {"PROJECT": "ws/\x1b[2J", "RUN": HOSTILE, "FIELD": FIELD}
    arguments = [names.get(word, word) for word in command.split()]
    assert execute([*arguments, *hostile.split()]) == 0
    said = capsys.readouterr().out
    assert said
    assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", said) == []


def test_a_reader_that_stops_reading_is_no_error(exporters: str) -> None:
    line = f"{shlex.quote(sys.executable)} -m shardmig show {exporters} run-1 | head -n 1"
    ended = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert ended.stderr == ""
    assert ended.stdout == "ws/three/run-1\n"


def test_names_outside_the_encoding_of_the_terminal_are_escaped(exporters: str) -> None:
    command = [sys.executable, "-m", "shardmig", "show", *exporters.split(), "run-1", "p/str"]
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(command, capture_output=True, env=environment, check=True)
    assert ended.stdout.startswith(b"h\\xe9llo \\u4e16")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("show run-1 m/los", "similar: 'm/loss'"),
        ("show run-11", "similar: 'run-1'"),
        ("ls ws/three run-1 --namespace sys/forkin", "similar: 'sys/forking'"),
    ],
)
def test_a_name_that_is_almost_right_is_answered_with_the_right_one(
    typed: Type, exporters: str, line: str, message: str
) -> None:
    code, out, err = typed(f"{line} {exporters}")
    assert (code, out) == (2, "")
    assert message in err


def test_the_listing_that_a_wrong_field_is_answered_with_can_be_pasted(typed: Type, exporters: str) -> None:
    _, _, err = typed(f"show run-1 nothing {exporters}")
    [_, listing, _] = err.split("`")
    code, out, _ = typed(listing.removeprefix("shardmig "))
    assert code == 0
    assert "loss" in out


def test_an_archive_without_runs_or_migrations_says_so(typed: Type, tmp_path: Path) -> None:
    for command in ("ls", "summary"):
        assert "the archive holds no runs" in typed(f"{command} -d {tmp_path}")[1]
    assert "nothing was planned or executed" in typed(f"status --all -d {tmp_path}")[1]


def test_several_archives_are_summed_up_apart(typed: Type) -> None:
    two = f"-d {SAMPLES / 'exporter-2x' / 'data'} --model-data-path {SAMPLES / 'exporter-2x-models' / 'data'}"
    _, out, _ = typed(f"summary {two}")
    assert "\n\narchive " in out
    assert len(_document(typed(f"summary {two} --json"))) == 2

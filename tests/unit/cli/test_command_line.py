"""The command line as a program: start-up, what it imports, how it refuses."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import shardmig
from shardmig.cli.app import execute
from shardmig.cli.exits import MEANINGS, ExitCode
from shardmig.cli.flags import SpeechFlags
from shardmig.cli.speech import Speech, spoken

COMMANDS = (
    "plan",
    "export",
    "export-models",
    "load",
    "migrate",
    "verify",
    "audit",
    "status",
    "retry",
    "execute-shard",
    "collect",
    "summary",
    "ls",
    "show",
    "copy",
)
HEAVY = (
    "numpy",
    "pyarrow",
    "pandas",
    "mlflow",
    "neptune",
    "neptune_scale",
    "neptune_query",
    "sqlalchemy",
    "msgspec",
    "rich",
)


@pytest.mark.parametrize("arguments", [["--help"], ["load", "--help"], ["--version"]])
def test_help_imports_no_vendor_and_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from shardmig.cli.app import execute; execute(sys.argv[1:]);"
        f"print('IMPORTED', *(name for name in {HEAVY!r} if name in sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "IMPORTED"


def test_help_names_every_command_and_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["--help"]) == 0
    told = capsys.readouterr().out
    assert re.findall(r"^  ([a-z][a-z-]*)  ", told, flags=re.MULTILINE) == list(COMMANDS)
    for code, meaning in MEANINGS.items():
        assert f"{int(code)}: {meaning}" in told


def test_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["--version"]) == 0
    assert capsys.readouterr().out == f"shardmig {shardmig.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["load", "--nonsense"],
        ["load"],
        ["export"],
        ["plan"],
        ["load", "--loader", "wandb"],
        ["ls", "-d", "no"],
    ],
)
def test_a_wrong_command_line_ends_with_2_and_says_what_to_do(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(arguments) == ExitCode.USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("shardmig: ")
    assert len(said.err.splitlines()) == 2
    assert "Traceback" not in said.err


@pytest.mark.parametrize("arguments", [["nonsense"], ["load", "--nonsense"], ["load"], ["ls", "-d", "no"]])
def test_with_json_a_refusal_is_one_document_too(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert execute([*arguments, "--json"]) == ExitCode.USAGE
    told = json.loads(capsys.readouterr().out)
    assert told["exit_code"] == 2
    assert told["error"]
    assert told["hint"]


LOAD_LINES = (
    "load --loader mlflow --mlflow-tracking-uri http://localhost:5000 --data-path ./exports/data --files-path ./exports/files",
    "load --loader wandb --wandb-entity my-org --wandb-api-key KEY --data-path ./exports/data --files-path ./exports/files",
    "load --loader mlflow --step-multiplier 1000 --name-prefix old -p ws/a -r RUN-1 -r RUN-2 --no-progress -v --log-file x.log",
)
SUMMARY_LINES = (
    "summary --data-path ./exports/data",
    "summary -d ./exports/data --model-data-path ./exports/model_data -v --log-file summary.log",
)
EXPORT_LINES = (
    "export -p my-org/my-project --exporter neptune3 --data-path ./exports/data --files-path ./exports/files",
    "export -p ws/proj --exporter neptune3 -r RUN-.* -c parameters -c metrics",
    "export -p ws/proj --exporter neptune3 -a metrics/accuracy -a metrics/loss -a config/.*",
    "export -p ws/proj --exporter neptune2 --include-archived-runs --api-token TOKEN --error-report-file x.jsonl --exclude files",
)


@pytest.mark.parametrize("line", LOAD_LINES + SUMMARY_LINES + EXPORT_LINES)
def test_command_lines_of_neptune_exporter_are_understood(
    line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    execute(line.split())
    said = capsys.readouterr().err
    assert "No such option" not in said
    assert "there is no" in said or "exclude each other" in said or "API token" in said


def test_an_internal_error_names_the_file_with_its_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "data" / ".shardmig" / "export-1" / "plan.msgpack").mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert execute(["status", "-d", str(tmp_path / "data")]) == ExitCode.INTERNAL
    said = capsys.readouterr().err
    assert said.startswith("shardmig: internal error: IsADirectoryError")
    assert "Traceback" not in said
    [written] = tmp_path.glob("shardmig-error-*.txt")
    assert str(written) in said
    assert "Traceback" in written.read_text()


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        (errno.ENOSPC, ExitCode.STOPPED, "the disk is full: /exports"),
        (errno.EROFS, ExitCode.USAGE, "may not use /exports"),
        (errno.EIO, ExitCode.INTERNAL, "internal error: OSError"),
    ],
)
def test_what_the_computer_refuses_is_no_internal_error(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    number: int,
    code: ExitCode,
    message: str,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def command(speech: Speech) -> int:
        raise OSError(number, os.strerror(number), "/exports")

    assert spoken(command)(speech=SpeechFlags()) == code
    assert message in capsys.readouterr().err

"""What the real Neptune clients write offline, read back value by value."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.unit.neptune_local.local_data import RunRead, read_all, read_one, tree_state

LEGACY_START = """
    import os, sys, time, json, datetime, signal
    import neptune
    from neptune.types import File
    run = neptune.init_run(
        mode="offline", project="ws/p", capture_stdout=False, capture_stderr=False, capture_hardware_metrics=False,
        capture_traceback=False, git_ref=False, source_files=[], name="the name", description="what it is",
        tags=["one", "two"],
    )
"""
SCALE_START = """
    import os, sys, time, json, datetime, signal
    from neptune_scale import Run
    from neptune_scale.types import File, Histogram
    def start(run_id, **more):
        return Run(project="ws/p", run_id=run_id, mode="offline", enable_console_log_capture=False,
                   source_tracking_config=None, **more)
"""


def execute(start: str, body: str, folder: Path, *, expect: int = 0) -> str:
    """What a script prints that runs in `folder` with a real client."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", dedent(start) + "\nif __name__ == '__main__':\n" + _indented(body)],
        cwd=folder,
        env={**os.environ, "NEPTUNE_API_TOKEN": "", "GIT_PYTHON_REFRESH": "quiet"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == expect, done.stderr
    return done.stdout


def _indented(body: str) -> str:
    return "".join(f"    {line}\n" for line in dedent(body).splitlines())


def rows(run: RunRead, path: str) -> list[tuple[str, Any]]:
    return [(step, value) for step, _, value in run.series[path]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def test_a_run_of_neptune_1_14_comes_back_value_by_value(folder: Path, tmp_path: Path) -> None:
    for name in ("a.txt", "sub/b.txt"):
        (folder / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "data" / name).write_text(name)
    execute(
        LEGACY_START,
        """
        from PIL import Image
        run["p/int"] = 2**31 - 1
        run["p/float"] = 0.1 + 0.2
        run["p/bool"] = True
        run["p/empty"] = ""
        run["p/text"] = "żółw\\n\\x01 😀"
        run["p/when"] = datetime.datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.timezone.utc)
        run["p/nested"] = {"a": {"b": 1}, "c": "x"}
        run["p/gone"] = 1
        del run["p/gone"]
        run["p/retyped"] = 1
        del run["p/retyped"]
        run["p/retyped"] = "text"
        run["p/copy"] = run["p/int"]
        run["sys/tags"].add("three")
        run["sys/tags"].remove("one")
        run["sys/group_tags"].add(["g"])
        for number in range(1000):
            run["m/auto"].append(number / 7)
        run["m/steps"].extend([1.5, 2.5, 3.5], steps=[0.29, 1, 1e6], timestamps=[1700000000.1239, 1700000001, 1700000002])
        run["m/falls"].extend([1, 2, 3], steps=[5, 4, 6])
        run["m/cleared"].append(1)
        run["m/cleared"].clear()
        run["m/cleared"].append(9)
        run["m/assigned"] = neptune.types.FloatSeries([1.0, 2.0], min=0, max=10, unit="kg")
        run["log"].append("héllo\\n")
        run["log"].append("")
        run["img"].append(Image.new("L", (2, 2)), step=3, name="black", description="all black")
        run["img"].append(Image.new("L", (2, 2)), step=10)
        run["f/bytes"].upload(File.from_content(b"\\x00\\x01", extension="dat"))
        run["f/text"].upload(File.from_content("text"))
        run["f/path"].upload("data/a.txt")
        run["f/set"].upload_files(["data/**/*.txt"])
        run["art"].track_files(os.path.abspath("data"))
        run.stop()
        """,
        folder,
    )
    before = tree_state(folder)
    run = read_one(folder, tmp_path / "archive")
    assert tree_state(folder) == before
    _check_legacy_scalars(run)
    _check_legacy_series(run)
    _check_legacy_files(run)
    assert [(one.kind, one.code, one.field) for one in run.findings] == [("note", "step-not-increasing", "m/falls")]


def _check_legacy_scalars(run: RunRead) -> None:
    logged = {path: value for path, value in run.scalars.items() if path.startswith("p/")}
    assert logged == {
        "p/int": 2**31 - 1,
        "p/float": 0.1 + 0.2,
        "p/bool": True,
        "p/empty": "",
        "p/text": "żółw\n\x01 😀",
        "p/when": 1_704_164_645_678,
        "p/nested/a/b": 1,
        "p/nested/c": "x",
        "p/retyped": "text",
        "p/copy": 2**31 - 1,
    }
    assert run.scalars["sys/name"] == "the name"
    assert run.scalars["sys/description"] == "what it is"
    assert run.scalars["sys/tags"] == ["three", "two"]
    assert run.scalars["sys/group_tags"] == ["g"]
    assert run.scalars["shardmig/client_version"].startswith("1.14")
    assert abs(run.scalars["sys/creation_time"] / 1000 - time.time()) < 300


def _check_legacy_series(run: RunRead) -> None:
    assert rows(run, "m/auto") == [(str(number), number / 7) for number in range(1000)]
    assert run.series["m/steps"] == [
        ("0.29", 1_700_000_000_123, 1.5),
        ("1", 1_700_000_001_000, 2.5),
        ("1000000", 1_700_000_002_000, 3.5),
    ]
    assert rows(run, "m/falls") == [("5", 1.0), ("4", 2.0), ("6", 3.0)]
    assert rows(run, "m/cleared") == [("0", 9.0)]
    assert rows(run, "m/assigned") == [("0", 1.0), ("1", 2.0)]
    assert run.scalars["shardmig/series_config/m/assigned/unit"] == "kg"
    assert rows(run, "log") == [("0", "héllo\n"), ("1", "")]
    assert rows(run, "shardmig/image_descriptions/img") == [("3", "all black")]


def _check_legacy_files(run: RunRead) -> None:
    assert [(str(one.step), one.name) for one in run.files["img"]] == [("3", "black.png"), ("10", "img.png")]
    assert {name: content for name, content in run.stored.items() if name.startswith("f/")} == {
        "f/bytes: bytes.dat": b"\x00\x01",
        "f/text: text.txt": b"text",
        "f/path: a.txt": b"a.txt",
        "f/set: a.txt": b"a.txt",
        "f/set: sub/b.txt": b"sub/b.txt",
    }
    listed = json.loads(run.stored["art: files_list.json"])
    assert [(line["filePath"], line["size"]) for line in listed] == [("a.txt", 5), ("sub/b.txt", 9)]


def test_a_killed_run_of_neptune_1_14_tells_how_many_records_it_lost(folder: Path, tmp_path: Path) -> None:
    execute(
        LEGACY_START,
        """
        for number in range(2000):
            run["m"].append(number)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        folder,
        expect=-signal.SIGKILL,
    )
    run = read_one(folder, tmp_path / "archive")
    got = rows(run, "m")
    assert got == [(str(number), float(number)) for number in range(len(got))]
    (gap,) = run.findings
    assert (gap.kind, gap.code, gap.count) == ("gap", "lost-records", 2000 - len(got))


def test_a_forked_process_of_neptune_1_14_logs_into_the_same_run(folder: Path, tmp_path: Path) -> None:
    execute(
        LEGACY_START,
        """
        run["p/parent"] = 1
        run["m"].append(0.5, step=0)
        child = os.fork()
        if child == 0:
            run["p/child"] = 2
            run["m"].append(1.5, step=1)
            run.stop()
            os._exit(0)
        os.waitpid(child, 0)
        time.sleep(0.05)
        run["m"].append(2.5, step=2)
        run.stop()
        """,
        folder,
    )
    run = read_one(folder, tmp_path / "archive")
    assert run.scalars["p/parent"] == 1
    assert run.scalars["p/child"] == 2
    assert rows(run, "m") == [("0", 0.5), ("1", 1.5), ("2", 2.5)]
    # The client's forked process flushes a copy of what its parent had not yet flushed.
    assert [(one.kind, one.code) for one in run.findings] == [("note", "repeated-records")]


def test_a_run_of_neptune_scale_comes_back_value_by_value(folder: Path, tmp_path: Path) -> None:
    (folder / "notes.txt").write_text("notes")
    execute(
        SCALE_START,
        """
        run = start("run 1 ü", experiment_name="exp",
                    creation_time=datetime.datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.timezone.utc))
        when = datetime.datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=datetime.timezone.utc)
        run.log_configs({"p/int": 2**62 + 1, "p/float": float("nan"), "p/bool": False, "p/empty": "",
                         "p/text": "żółw\\n😀", "p/when": when, "p/set": {"b", "a"}})
        run.add_tags(["x", "y"])
        run.remove_tags(["x"])
        run.add_tags(["g"], group_tags=True)
        for step in range(500):
            run.log_metrics({"m/a": step / 7, "m/b": -step}, step=step + 0.25, timestamp=when)
        for step, value in enumerate([float("nan"), float("inf"), float("-inf"), -0.0, 5e-324]):
            run.log_metrics({"m/odd": value}, step=step, timestamp=when)
        run.log_metrics({"m/preview": 1.0}, step=1, timestamp=when, preview=True, preview_completion=0.5)
        run.log_metrics({"m/preview": 2.0}, step=1, timestamp=when)
        run.log_string_series({"log": "héllo"}, step=1.5, timestamp=when)
        run.log_histograms({"h": Histogram(bin_edges=[0, 1, 2], counts=[3, 4])}, step=2, timestamp=when)
        run.log_histograms({"h": Histogram(bin_edges=[0, 1], densities=[0.5])}, step=3, timestamp=when)
        run.assign_files({"f/path": "notes.txt", "f/bytes": b"\\x00\\x01\\x02",
                          "f/html": File(b"<p>", mime_type="text/html")})
        run.log_files({"fs": b"first"}, step=1.25, timestamp=when)
        run.log_files({"fs": "notes.txt"}, step=2.25, timestamp=when)
        run.close()
        """,
        folder,
    )
    before = tree_state(folder)
    run = read_one(folder, tmp_path / "archive")
    assert tree_state(folder) == before
    _check_scale_scalars(run)
    _check_scale_series(run)
    assert run.stored["f/path: notes.txt"] == b"notes"
    assert [content for name, content in run.stored.items() if name.startswith("f/bytes")] == [b"\x00\x01\x02"]
    assert run.stored["f/html: html.html"] == b"<p>"
    assert [(str(one.step), one.time_ms) for one in run.files["fs"]] == [
        ("1.25", 1_714_979_289_123),
        ("2.25", 1_714_979_289_123),
    ]
    assert run.findings == []


def _check_scale_scalars(run: RunRead) -> None:
    assert run.ref.project == "ws/p"
    assert run.ref.id == "run 1 ü"
    assert math.isnan(run.scalars.pop("p/float"))
    logged = {path: value for path, value in run.scalars.items() if path.startswith("p/")}
    assert logged == {
        "p/int": 2**62 + 1,
        "p/bool": False,
        "p/empty": "",
        "p/text": "żółw\n😀",
        "p/when": 1_714_979_289_123,
        "p/set": ["a", "b"],
    }
    assert run.scalars["sys/tags"] == ["y"]
    assert run.scalars["sys/group_tags"] == ["g"]
    assert run.scalars["sys/name"] == run.scalars["sys/experiment/name"] == "exp"
    assert run.scalars["sys/creation_time"] == run.ref.created_ms == 1_704_164_645_678
    assert run.scalars["sys/custom_run_id"] == "run 1 ü"


def _check_scale_series(run: RunRead) -> None:
    assert run.series["m/a"] == [(f"{step}.25", 1_714_979_289_123, step / 7) for step in range(500)]
    assert rows(run, "m/b")[499] == ("499.25", -499.0)
    assert repr([value for _, value in rows(run, "m/odd")]) == "[nan, inf, -inf, -0.0, 5e-324]"
    assert rows(run, "m/preview") == [("1", 2.0)]
    assert rows(run, "log") == [("1.5", "héllo")]
    assert rows(run, "h") == [("2", ("COUNTING", [0, 1, 2], [3, 4])), ("3", ("DENSITY", [0, 1], [0.5]))]


def test_forks_of_neptune_scale_know_their_parent_and_inherit_its_configs(folder: Path, tmp_path: Path) -> None:
    execute(
        SCALE_START,
        """
        mother = start("mother")
        mother.log_configs({"lr": 0.5, "depth": 3})
        for step in range(4):
            mother.log_metrics({"m": step}, step=step)
        mother.close()
        child = start("child", fork_run_id="mother", fork_step=1.5, inherit_configs=True)
        child.log_configs({"lr": 0.25})
        for step in (1, 2, 3):
            child.log_metrics({"m": 10 + step}, step=step)
        child.close()
        again = start("mother")
        again.log_metrics({"m": 4}, step=4)
        again.close()
        """,
        folder,
    )
    runs = read_all(folder, tmp_path / "archive")
    child = runs["child"]
    assert child.ref.parent == child.scalars["sys/forking/parent"] == "mother"
    assert child.scalars["sys/forking/step"] == 1.5
    assert (child.scalars["lr"], child.scalars["depth"]) == (0.25, 3)
    assert rows(child, "m") == [("2", 12.0), ("3", 13.0)]
    assert [(one.kind, one.code, one.count) for one in child.findings] == [("gap", "before-fork-step", 1)]
    assert rows(runs["mother"], "m") == [(str(step), float(step)) for step in range(5)]
    assert runs["mother"].ref.parent is None


def test_a_killed_run_of_neptune_scale_is_read_out_of_its_write_ahead_log(folder: Path, tmp_path: Path) -> None:
    execute(
        SCALE_START,
        """
        run = start("killed", experiment_name="exp")
        for step in range(300):
            run.log_metrics({"m": step / 3}, step=step)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        folder,
        expect=-signal.SIGKILL,
    )
    (log,) = folder.rglob("*-wal")
    assert log.stat().st_size > 4096
    before = tree_state(folder)
    run = read_one(folder, tmp_path / "archive")
    assert tree_state(folder) == before
    got = rows(run, "m")
    assert got == [(str(step), step / 3) for step in range(300)]
    assert run.scalars["sys/name"] == "exp"
    assert run.findings == []


def test_the_console_that_neptune_scale_captures_is_a_string_series(folder: Path, tmp_path: Path) -> None:
    execute(
        SCALE_START,
        """
        run = Run(project="ws/p", run_id="talks", mode="offline")
        print("hello from the run")
        run.close()
        """,
        folder,
    )
    run = read_one(folder, tmp_path / "archive")
    assert "hello from the run" in "".join(value for _, value in rows(run, "runtime/stdout"))

"""Archives that are out to do harm, or only look like it: nothing outside is read or written, all else arrives."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardmig.archive.layout import sanitize
from tests.e2e.moved import CREATED, Moved, Row, field, file, moved, point
from tests.servers.tracking_databases import sqlite_file, sqlite_template

__all__ = ["moved", "sqlite_file", "sqlite_template"]

LONG = "x" * 250
NAMES = (
    *(
        "..",
        ".",
        "",
        "/",
        "../x",
        "../../../etc/passwd",
        "/etc/passwd",
        "a/../../b",
        "a/./b",
        "a//b",
        "a/",
        "~/x",
        "-x",
    ),
    *(
        "C:\\x",
        "..\\x",
        "\\\\server\\x",
        "nul",
        "con.txt",
        "x.",
        " x",
        "x ",
        "%2e%2e/x",
        "%s%n{0}",
        "$(x)",
        "`x`",
        "*",
        "?",
    ),
    *(
        "it's",
        'say "so"',
        "'; DROP TABLE runs; --",
        "two\nlines",
        "tab\tbed",
        "bell\x07",
        "esc\x1b[2J",
        "nul\0",
        "\0",
        "\ufeff",
    ),
    *("\u202egnp.exe", "שלום/x", "\u200b", "\u2028", "日本語", "🚀" * 60, "\U0010ffff"),
    *("\u00e9", "e\u0301", "\u212b", "\u00c5", "ﬁ", "fi", "LR", "lr", "Straße", "STRASSE", "ı", "I", "i"),
    *("a:b", "a_b", "a.b", "a b", "a-b", "a--b", "a~b", "a+b"),
    *(f"{LONG}{end}" for end in ("", "1", "2", "/1")),
    *("y" * 10_000, "y" * 10_001, "d/" * 5_000 + "e", "ü" * 5_000),
    *("shardmig/manifest.json", "shardmig/exact.parquet", "shardmig", "mlflow.user", "mlflow.parentRunId", "tags/x"),
    *("n--0123456789abcdef", "n~0123456789abcdef", "series.txt", "log/series.txt", "log", "log/series.parquet"),
)
HOSTILE_PATHS = ("../../secret", "RUN-1/../../../secret", "RUN-1\\..\\..\\..\\secret", "RUN-1/nul\0", "", ".", "..")


def outside(folder: Path) -> dict[str, tuple[int, int]]:
    """What lies beside the folders that may be written, with size and time of change."""
    own = ("mlruns", "mlflow.db", "data", "files", "new")
    found = {path: path.lstat() for path in folder.rglob("*") if path.relative_to(folder).parts[0] not in own}
    return {str(path): (status.st_size, status.st_mtime_ns) for path, status in found.items()}


def every_type(name: str, number: int) -> Iterator[Row]:
    """One field of each class under a name; scalars and floats share it."""
    yield field(name, "int", number)
    yield point(name, 0, float(number))
    yield point(name, 1, float("inf") if number % 7 == 0 else 0.5)
    yield point(f"{name}\u00b7text", 0, f"text {number}", kind="string")
    yield point(f"{name}\u00b7bins", 0, ("COUNTING", [0.0, 1.0], [float(number)]), kind="histogram")
    yield file(f"{name}\u00b7file", f"RUN-1/{number}.bin")


def test_fields_of_any_name_arrive_apart_and_come_back_equal(moved: Moved) -> None:
    (moved.folder / "secret").write_text("secret")
    before = outside(moved.folder)
    for number in range(len(NAMES)):
        moved.stored(f"RUN-1/{number}.bin", b"%d" % number)
    moved.part([row for number, name in enumerate(NAMES) for row in every_type(name, number)])
    counters = moved.load()["RUN-1"]["counters"]
    assert [counters[kind] for kind in ("fields", "points", "texts", "histograms", "files")] == [
        len(NAMES) * each for each in (5, 2, 1, 1, 1)
    ]
    [verified] = moved.command(f"verify {moved.into}")["outcomes"]["verify"]
    assert verified["verdict"] == "approximated"
    counts = {one["code"]: one["count"] for one in verified["findings"] if one["code"] == "exact-values-in-sidecar"}
    assert counts == {"exact-values-in-sidecar": len(range(0, len(NAMES), 7))}
    run = moved.run()
    assert (len(run.data.params), len(run.data.metrics)) == (len(NAMES), len(NAMES))
    assert sorted(run.data.params.values(), key=int) == [str(number) for number in range(len(NAMES))]
    assert outside(moved.folder) == before


def test_what_was_repacked_is_the_same_and_stays_inside_too(moved: Moved) -> None:
    before = outside(moved.folder)
    for number in range(len(NAMES)):
        moved.stored(f"RUN-1/{number}.bin", b"%d" % number)
    moved.part([row for number, name in enumerate(NAMES) for row in every_type(name, number)])
    moved.load()
    moved.command("export --source archive data files -d new/data -f new/files")
    [verdict] = [
        outcome["verdict"]
        for outcome in moved.command(f"verify {moved.into} -d new/data -f new/files")["outcomes"]["verify"]
    ]
    assert verdict == "approximated"
    assert outside(moved.folder) == before


def test_runs_and_experiments_of_any_name_stay_apart(moved: Moved) -> None:
    before = outside(moved.folder)
    names = [name for name in NAMES if name and len(name) < 1000][::2]
    for number, name in enumerate(names):
        moved.part([field("number", "int", number), field("sys/name", "string", name)], run=name)
    assert set(moved.moved().values()) <= {"equal", "approximated"}
    experiments = [experiment.experiment_id for experiment in moved.client.search_experiments()]
    runs = list(moved.client.search_runs(experiments, max_results=1000))
    assert sorted(int(run.data.params["number"]) for run in runs) == list(range(len(names)))
    assert len({run.info.experiment_id for run in runs}) == len(names)
    assert outside(moved.folder) == before


def test_projects_of_any_name_stay_apart(moved: Moved) -> None:
    before = outside(moved.folder)
    names = [
        "../x",
        "/etc",
        "nul\0",
        "it's",
        "\u202ex",
        "e\u0301",
        "\u00e9",
        "LR",
        "lr",
        "a:b",
        "a_b",
        "x" * 300,
        "x" * 301,
    ]
    for number, name in enumerate(names):
        moved.part([field("number", "int", number)], project=name)
    assert set(moved.moved().values()) == {"equal"}
    experiments = [experiment.experiment_id for experiment in moved.client.search_experiments()]
    runs = list(moved.client.search_runs(experiments))
    assert sorted(int(run.data.params["number"]) for run in runs) == list(range(len(names)))
    assert len({run.info.experiment_id for run in runs}) == len(names)
    assert outside(moved.folder) == before


def test_tags_and_texts_of_any_kind_arrive(moved: Moved) -> None:
    texts = [name for name in NAMES if "\0" not in name]
    moved.part(
        [
            field("sys/tags", "string_set", sorted(texts)),
            field("sys/description", "string", "\n".join(texts)[:5000]),
            field("sys/owner", "string", "'; DROP TABLE runs; --\n\u202e"),
            *(field(f"p/{number}", "string", text) for number, text in enumerate(texts)),
            *(point("log", number, text, kind="string") for number, text in enumerate(texts)),
        ]
    )
    assert moved.moved() == {"RUN-1": "approximated"}
    tags = moved.run().data.tags
    assert set(tags.values()) >= {text[:8000] for text in texts if text}
    params = moved.run().data.params
    assert [params[f"p/{number}"] for number in range(len(texts))] == [text[:6000] for text in texts]


def test_files_that_lead_outside_are_refused_by_name_and_the_rest_arrives(moved: Moved) -> None:
    secret = moved.folder / "secret"
    secret.write_text("secret")
    inside = moved.stored("RUN-1/good.txt", b"good").parent
    (inside / "link").symlink_to(secret)
    (inside / "folder").symlink_to(moved.folder)
    (inside / "loop").symlink_to(inside / "loop")
    os.mkfifo(inside / "pipe")
    stored = [*HOSTILE_PATHS, str(secret), "RUN-1/link", "RUN-1/folder/secret", "RUN-1/loop", "RUN-1/pipe"]
    moved.part(
        [file(f"f/{number}", path) for number, path in enumerate(stored)]
        + [file("f/good", "RUN-1/good.txt"), field("lr", "float", 0.1), point("loss", 0, 1.0)]
    )
    before = outside(moved.folder)
    findings = moved.load(code=3)["RUN-1"]["findings"]
    assert sorted(one["field"] for one in findings if one["kind"] == "loss") == sorted(
        f"f/{number}" for number in range(len(stored))
    )
    assert {one["code"] for one in findings if one["kind"] == "loss"} <= {
        "hostile-path",
        "missing-file",
        "file-refused",
    }
    run = moved.run()
    assert (run.data.params, list(run.data.metrics)) == ({"lr": "0.1"}, ["loss"])
    assert [path for path in moved.artifacts() if path != "shardmig"] == ["f", "f/good.txt", "shardmig/manifest.json"]
    assert outside(moved.folder) == before
    assert moved.verify(code=5) == {"RUN-1": "differs"}


def test_a_folder_of_files_that_is_a_link_to_elsewhere_is_not_followed(
    moved: Moved, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "RUN-1").mkdir()
    (elsewhere / "RUN-1" / "one.txt").write_text("secret")
    (moved.folder / "files").mkdir()
    (moved.folder / "files" / sanitize("ws/proj")).symlink_to(elsewhere)
    moved.part([file("f", "RUN-1/one.txt"), point("loss", 0, 1.0)])
    [loss] = [one for one in moved.load(code=3)["RUN-1"]["findings"] if one["kind"] == "loss"]
    assert (loss["code"], loss["field"]) == ("hostile-path", "f")


def test_a_manifest_that_leads_outside_is_not_followed(moved: Moved) -> None:
    (moved.folder / "secret").write_text("secret")
    moved.stored("RUN-1/one.txt", b"one")
    moved.part([file("f", "RUN-1/one.txt"), point("loss", 0, 1.0)])
    moved.load()
    [manifest] = moved.folder.glob("mlruns/*/*/artifacts/shardmig/manifest.json")
    manifest.write_text(manifest.read_text().replace('"artifact":"f.txt"', '"artifact":"../../../../secret"'))
    assert moved.verify(code=5) == {"RUN-1": "differs"}
    assert "leads out of its run" in moved.said


def test_times_and_steps_at_the_end_of_their_range_arrive(moved: Moved) -> None:
    moved.part(
        [
            field("first", "datetime", -62_135_596_800_000),
            field("last", "datetime", 253_402_300_799_999),
            point("early", 0, 1.0, -1),
            point("late", 0, 1.0, 253_402_300_799_999),
            point("log", 0, "late", 253_402_300_799_999, kind="string"),
            point("steps", -999_999_999_999, 1.0),
            point("steps", 999_999_999_999, 1.0, CREATED + 1),
        ]
    )
    assert moved.moved() == {"RUN-1": "approximated"}
    assert [step for step, _, _ in moved.history("steps")] == [-999_999_999_999, 999_999_999_999]

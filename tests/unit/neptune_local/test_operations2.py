"""The rules by which the log of a 1.x client is replayed."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from shardmig.adapters.base import Want
from shardmig.records import FloatPoints, Selection
from tests.unit.neptune_local.local_data import (
    UUID,
    RunRead,
    points,
    read_one,
    record,
    write_folder,
    write_operations,
)

PNG = b"\x89PNG\r\n\x1a\nnot quite"
Operation = tuple[str, str, dict[str, Any]]


def replayed(tmp_path: Path, *operations: Operation) -> RunRead:
    write_operations(tmp_path, *operations)
    return read_one(tmp_path, tmp_path / "archive")


def base64_text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def test_every_scalar_type_is_kept_exactly(tmp_path: Path) -> None:
    run = replayed(
        tmp_path,
        ("AssignFloat", "p/float", {"value": 0.1}),
        ("AssignFloat", "p/whole", {"value": 3}),
        ("AssignInt", "p/int", {"value": 9_007_199_254_740_993}),
        ("AssignInt", "p/lowest", {"value": -(2**63)}),
        ("AssignBool", "p/bool", {"value": False}),
        ("AssignString", "p/empty", {"value": ""}),
        ("AssignString", "p/text", {"value": "żółw\x00\x01\n😀"}),
        ("AssignDatetime", "p/when", {"value": 1_704_164_645_678}),
        ("AddStrings", "sys/tags", {"values": ["b", "a", "b"]}),
    )
    assert run.logged() == {
        "p/float": 0.1,
        "p/whole": 3.0,
        "p/int": 9_007_199_254_740_993,
        "p/lowest": -(2**63),
        "p/bool": False,
        "p/empty": "",
        "p/text": "żółw\x00\x01\n😀",
        "p/when": 1_704_164_645_678,
        "sys/tags": ["a", "b"],
    }
    assert run.types["p/whole"] == ["float"]
    assert run.types["p/when"] == ["datetime"]
    assert run.findings == []


def test_an_empty_text_may_be_the_first_field(tmp_path: Path) -> None:
    run = replayed(tmp_path, ("AssignString", "a", {"value": ""}), ("AssignInt", "b", {"value": 1}))
    assert run.logged() == {"a": "", "b": 1}


def test_an_integer_beyond_64_bits_is_a_loss_unless_it_was_replaced(tmp_path: Path) -> None:
    run = replayed(
        tmp_path,
        ("AssignInt", "p/kept", {"value": 2**63}),
        ("AssignInt", "p/replaced", {"value": 2**90}),
        ("AssignInt", "p/replaced", {"value": 1}),
    )
    (loss,) = run.findings
    assert (loss.kind, loss.code, loss.field, loss.detail) == ("loss", "int-out-of-range", "p/kept", str(2**63))
    assert run.logged() == {"p/replaced": 1}


def test_the_last_assignment_wins_and_a_change_of_type_is_noted(tmp_path: Path) -> None:
    run = replayed(
        tmp_path,
        ("AssignInt", "p/a", {"value": 1}),
        ("AssignInt", "p/a", {"value": 2}),
        ("AssignString", "p/b", {"value": "one"}),
        ("AssignFloat", "p/b", {"value": 1.5}),
    )
    assert run.logged() == {"p/a": 2, "p/b": 1.5}
    (note,) = run.findings
    assert (note.kind, note.code, note.field) == ("note", "type-changed", "p/b")


def test_a_scalar_and_a_series_on_one_path_are_both_kept_and_noted(tmp_path: Path) -> None:
    run = replayed(
        tmp_path,
        ("AssignFloat", "lr", {"value": 0.5}),
        ("LogFloats", "lr", {"values": points((0.25, 0, 1.0))}),
    )
    assert run.types["lr"] == ["float", "float_series"]
    assert [finding.code for finding in run.findings] == ["type-changed"]


def test_string_sets_add_remove_and_clear_in_order(tmp_path: Path) -> None:
    run = replayed(
        tmp_path,
        ("AddStrings", "sys/tags", {"values": ["gone"]}),
        ("ClearStringSet", "sys/tags", {}),
        ("AddStrings", "sys/tags", {"values": ["b", "a", "c"]}),
        ("RemoveStrings", "sys/tags", {"values": ["c", "never there"]}),
        ("AddStrings", "sys/group_tags", {"values": ["x"]}),
        ("RemoveStrings", "sys/group_tags", {"values": ["x"]}),
    )
    assert run.scalars["sys/tags"] == ["a", "b"]
    assert run.scalars["sys/group_tags"] == []


def test_a_point_without_step_follows_the_highest_step_before_it(tmp_path: Path) -> None:
    run = replayed(
        tmp_path,
        ("LogFloats", "auto", {"values": points((1, None, 1.0), (2, None, 2.0))}),
        ("LogFloats", "auto", {"values": points((3, None, 3.0))}),
        ("LogFloats", "mixed", {"values": points((1, 5, 1.0), (2, None, 2.0), (3, 3, 3.0), (4, None, 4.0))}),
        ("LogFloats", "part", {"values": points((1, 0.5, 1.0), (2, None, 2.0))}),
        ("LogStrings", "text", {"values": points(("a", None, 1.0), ("b", None, 2.0))}),
    )
    assert [step for step, _, _ in run.series["auto"]] == ["0", "1", "2"]
    assert [step for step, _, _ in run.series["mixed"]] == ["5", "6", "3", "7"]
    assert [step for step, _, _ in run.series["part"]] == ["0.5", "1.5"]
    assert [step for step, _, _ in run.series["text"]] == ["0", "1"]


def test_points_whose_step_does_not_rise_are_kept_and_counted(tmp_path: Path) -> None:
    run = replayed(
        tmp_path,
        ("LogFloats", "m", {"values": points((1, 3, 1.0), (2, 3, 2.0), (3, 1, 3.0), (4, 4, 4.0))}),
        ("LogFloats", "fine", {"values": points((1, 1.5, 1.0), (2, 2.5, 2.0))}),
    )
    assert run.series["m"] == [("3", 1000, 1.0), ("3", 2000, 2.0), ("1", 3000, 3.0), ("4", 4000, 4.0)]
    (note,) = run.findings
    assert (note.kind, note.code, note.field, note.count) == ("note", "step-not-increasing", "m", 2)


def test_steps_are_the_decimals_that_were_written(tmp_path: Path) -> None:
    steps = ["0.29", "0.57", "1.000001", "1700000000123", "9007199254740993", "9223372036854775807", "0.1234567891"]
    lines = [
        record(number, "LogFloats", "m", values=points((1.0, "STEP", 1.0))).replace('"STEP"', step)
        for number, step in enumerate(steps, 1)
    ]
    write_folder(tmp_path, lines)
    run = read_one(tmp_path, tmp_path / "archive")
    assert [step for step, _, _ in run.series["m"]] == steps
    assert run.found("step-not-increasing")[0].count == 1
    assert len(run.findings) == 1


def test_a_step_that_64_bits_cannot_hold_is_rounded_or_lost_and_reported(tmp_path: Path) -> None:
    lines = [
        record(1, "LogFloats", "m", values=points((1.0, 1e-25, 1.0))),
        record(2, "LogFloats", "m", values=points((2.0, 1e300, 2.0))),
        record(3, "LogFloats", "m", values=points((3.0, float("inf"), 3.0))),
        record(4, "LogFloats", "m", values=points((4.0, 10**400, 4.0))),
        record(5, "LogFloats", "m", values=points((5.0, 7, 5.0))),
    ]
    write_folder(tmp_path, lines)
    run = read_one(tmp_path, tmp_path / "archive")
    assert [(step, value) for step, _, value in run.series["m"]] == [("0", 1.0), ("7", 5.0)]
    assert [(one.kind, one.code, one.count) for one in run.findings] == [
        ("approximation", "step-rounded", 1),
        ("loss", "bad-step", 3),
    ]


def test_times_are_cut_to_ms_as_the_client_does_for_its_server(tmp_path: Path) -> None:
    seconds = [1_700_000_000.1239, 1_795_264_533.586341, 0.0, -1.5]
    values = points(*((1.0, step, ts) for step, ts in enumerate(seconds)))
    run = replayed(tmp_path, ("LogFloats", "m", {"values": values}))
    assert [time for _, time, _ in run.series["m"]] == [int(ts * 1000) for ts in seconds]


def test_a_time_beyond_reason_is_lost_and_reported_and_none_is_none(tmp_path: Path) -> None:
    lines = [
        record(1, "LogFloats", "m", values=[{"value": 1.0, "step": 0}]),
        record(2, "LogFloats", "m", values=points((2.0, 1, 1e300))),
    ]
    write_folder(tmp_path, lines)
    run = read_one(tmp_path, tmp_path / "archive")
    assert run.series["m"] == [("0", None, 1.0), ("1", None, 2.0)]
    assert [(one.kind, one.code, one.count) for one in run.findings] == [("loss", "bad-time", 1)]


def test_values_that_json_does_not_know_are_read_as_the_client_wrote_them(tmp_path: Path) -> None:
    values = points((float("nan"), 0, 1.0), (float("inf"), 1, 2.0), (float("-inf"), 2, 3.0), (-0.0, 3, 4.0))
    run = replayed(tmp_path, ("LogFloats", "m", {"values": values}), ("AssignFloat", "p", {"value": float("nan")}))
    assert repr([value for _, _, value in run.series["m"]]) == "[nan, inf, -inf, -0.0]"
    assert repr(run.scalars["p"]) == "nan"
    assert run.findings == []


def test_a_clear_empties_a_series_and_its_steps_begin_anew(tmp_path: Path) -> None:
    run = replayed(
        tmp_path,
        ("LogFloats", "m", {"values": points((1, 10, 1.0), (2, 20, 2.0))}),
        ("LogStrings", "s", {"values": points(("old", 1, 1.0))}),
        ("LogImages", "i", {"values": points((base64_text(b"old"), 1, 1.0))}),
        ("LogFloats", "cleared", {"values": points((1, 1, 1.0))}),
        ("ClearFloatLog", "m", {}),
        ("ClearFloatLog", "m", {}),
        ("ClearStringLog", "s", {}),
        ("ClearImageLog", "i", {}),
        ("ClearFloatLog", "cleared", {}),
        ("LogFloats", "m", {"values": points((3, None, 3.0))}),
        ("LogStrings", "s", {"values": points(("new", None, 3.0))}),
        ("LogImages", "i", {"values": points((base64_text(PNG), None, 3.0))}),
    )
    assert run.series == {"m": [("0", 3000, 3.0)], "s": [("0", 3000, "new")]}
    assert [(str(one.step), one.time_ms) for one in run.files["i"]] == [("0", 3000)]
    assert run.findings == []


def test_a_delete_removes_whatever_a_path_holds(tmp_path: Path) -> None:
    run = replayed(
        tmp_path,
        ("AssignInt", "a", {"value": 1}),
        ("DeleteAttribute", "a", {}),
        ("LogFloats", "m", {"values": points((1, 5, 1.0))}),
        ("ConfigFloatSeries", "m", {"min": 0, "max": 1, "unit": "%"}),
        ("DeleteAttribute", "m", {}),
        ("AssignString", "m", {"value": "now a text"}),
        ("UploadFileContent", "f", {"ext": "txt", "file_content": base64_text(b"x")}),
        ("DeleteAttribute", "f", {}),
        ("DeleteAttribute", "never/there", {}),
    )
    assert run.logged() == {"m": "now a text"}
    assert run.series == {}
    assert run.files == {}
    assert run.findings == []


def test_a_copy_within_the_run_takes_the_value_of_its_time(tmp_path: Path) -> None:
    copy = {"container_id": UUID, "container_type": "run", "source_path": ["p", "a"], "source_attr_name": "Integer"}
    run = replayed(
        tmp_path,
        ("AssignInt", "p/a", {"value": 1}),
        ("CopyAttribute", "p/copy", copy),
        ("AssignInt", "p/a", {"value": 2}),
        ("CopyAttribute", "p/foreign", {**copy, "container_id": "another"}),
        ("CopyAttribute", "p/nothing", {**copy, "source_path": ["not", "there"]}),
    )
    assert run.logged() == {"p/a": 2, "p/copy": 1}
    assert [(one.kind, one.code, one.field) for one in run.findings] == [
        ("loss", "copied-from-other-run", "p/foreign"),
        ("loss", "copied-from-nothing", "p/nothing"),
    ]


def test_the_settings_of_a_chart_become_fields(tmp_path: Path) -> None:
    run = replayed(
        tmp_path,
        ("ConfigFloatSeries", "acc", {"min": 0, "max": None, "unit": "%"}),
        ("LogFloats", "acc", {"values": points((0.5, 0, 1.0))}),
        ("ConfigFloatSeries", "loss", {"min": None, "max": None, "unit": None}),
    )
    assert run.scalars["shardmig/series_config/acc/min"] == 0.0
    assert run.scalars["shardmig/series_config/acc/unit"] == "%"
    assert not [path for path in run.scalars if path.endswith(("acc/max", "loss/min"))]


def test_images_keep_step_time_name_and_description(tmp_path: Path) -> None:
    image = {"data": base64_text(PNG), "name": "cat", "description": "a cat\nasleep"}
    run = replayed(
        tmp_path,
        ("LogImages", "img/a", {"values": points((image, 0, 1.0), (base64_text(b"GIF89a"), 10, 2.0))}),
        ("LogImages", "img/a", {"values": points(({**image, "description": None}, None, 3.5))}),
    )
    assert [(str(one.step), one.time_ms, one.name) for one in run.files["img/a"]] == [
        ("0", 1000, "cat.png"),
        ("10", 2000, "a.gif"),
        ("11", 3500, "cat.png"),
    ]
    assert run.series == {"shardmig/image_descriptions/img/a": [("0", 1000, "a cat\nasleep")]}
    assert run.types["img/a"] == ["file_series"] * 3


def test_two_images_at_one_step_are_two_files(tmp_path: Path) -> None:
    values = points((base64_text(PNG + b"1"), 1, 1.0), (base64_text(PNG + b"2"), 1, 1.0))
    run = replayed(tmp_path, ("LogImages", "img", {"values": values}))
    assert sorted(run.stored.values()) == [PNG + b"1", PNG + b"2"]
    assert [one.code for one in run.findings] == ["step-not-increasing"]


def test_an_image_that_the_client_emptied_for_its_size_is_a_gap(tmp_path: Path) -> None:
    run = replayed(tmp_path, ("LogImages", "img", {"values": points(({"data": ""}, 4, 1.0))}))
    assert run.stored == {"img: img": b""}
    assert [(one.kind, one.code, one.field) for one in run.findings] == [("gap", "image-without-content", "img")]


def test_old_spellings_are_understood(tmp_path: Path) -> None:
    run = replayed(
        tmp_path,
        ("LogFloats", "m", {"values": [{"value": 1, "ts": 1.0}, {"value": 2, "ts": 2.0}]}),
        ("LogImages", "img", {"values": [{"value": base64_text(PNG), "ts": 1.0}]}),
        ("UploadFileContent", "f/text", {"ext": "md", "file_content": base64_text(b"# hello")}),
    )
    assert [step for step, _, _ in run.series["m"]] == ["0", "1"]
    assert run.stored == {"img: img.png": PNG, "f/text: text.md": b"# hello"}


def test_an_unknown_operation_is_a_loss_by_name(tmp_path: Path) -> None:
    run = replayed(
        tmp_path,
        ("AssignTensor", "t", {"value": [1]}),
        ("AssignTensor", "t", {"value": [2]}),
        ("shardmig.problem", "t", {"kind": "note", "code": "x", "detail": "y"}),
        ("AssignInt", "a", {"value": 1}),
    )
    (loss,) = run.findings
    assert (loss.kind, loss.code, loss.count) == ("loss", "unknown-operation", 3)
    assert loss.detail == "AssignTensor; shardmig.problem"
    assert run.logged() == {"a": 1}


def test_what_the_adapter_adds_is_left_alone_where_the_data_has_it(tmp_path: Path) -> None:
    run = replayed(
        tmp_path,
        ("AssignDatetime", "sys/creation_time", {"value": 5}),
        ("AssignString", "sys/custom_run_id", {"value": "mine"}),
        ("AssignString", "sys/id", {"value": "RUN-7"}),
    )
    assert run.scalars["sys/creation_time"] == 5
    assert run.scalars["sys/custom_run_id"] == "mine"
    assert run.scalars["sys/id"] == "RUN-7"
    assert run.scalars["shardmig/container_id"] == UUID


def test_a_run_of_9000_series_and_9000_scalars_is_read_in_full(tmp_path: Path) -> None:
    lines = [record(1 + n, "AssignInt", f"p/{n}", value=n) for n in range(9000)]
    lines += [
        record(9001 + n, "LogFloats", f"m/{n % 9000}", values=points((n, n // 9000, 1.0 + n))) for n in range(18_000)
    ]
    write_folder(tmp_path, lines)
    run = read_one(tmp_path, tmp_path / "archive")
    assert sum(1 for path in run.scalars if path.startswith("p/")) == 9000
    assert len(run.series) == 9000
    assert run.series["m/8999"] == [("0", 9_000_000, 8999.0), ("1", 18_000_000, 17_999.0)]
    assert run.findings == []


@pytest.mark.parametrize("most", [1, 7, 50])
def test_chunks_hold_no_more_points_than_wanted(most: int, tmp_path: Path) -> None:
    write_operations(
        tmp_path,
        *(("LogFloats", f"m{n % 3}", {"values": points((n, n, 1.0), (n, n + 0.123456789, 1.0))}) for n in range(100)),
    )
    run = read_one(tmp_path, tmp_path / "archive", want=Want(chunk_points=most))
    sizes = [len(piece.chunk.values) for piece in run.pieces if isinstance(piece.chunk, FloatPoints)]
    assert max(sizes) <= most
    assert sum(sizes) == 200


def test_only_selected_fields_are_read_and_missing_files_of_others_are_no_loss(tmp_path: Path) -> None:
    write_operations(
        tmp_path,
        ("AssignInt", "p/a", {"value": 1}),
        ("LogFloats", "m", {"values": points((1, 0, 1.0))}),
        ("UploadFile", "f", {"ext": "txt", "file_path": "/nowhere/x.txt"}),
        ("UploadFileSet", "g", {"file_globs": ["/nowhere/*"], "reset": "True"}),
    )
    want = Want(selection=Selection(classes=("parameters",), exclude_attributes="^(sys|shardmig)/"))
    run = read_one(tmp_path, tmp_path / "archive", want=want)
    assert run.scalars == {"p/a": 1}
    assert run.series == {}
    assert run.findings == []

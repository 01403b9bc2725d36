"""What offline archives of the vendor's clients, young and old, are read as."""

from __future__ import annotations

import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest

from shardmig.adapters.base import Want
from shardmig.adapters.comet.source import open_source
from shardmig.archive.files import DigestSink
from shardmig.errors import BadInput, UsageError
from shardmig.records import (
    Chunk,
    End,
    Field,
    Fields,
    FileRef,
    Files,
    Finding,
    FloatPoints,
    RunRef,
    Selection,
    StringPoints,
)
from tests.contract.comet.archives import OLD_KEY, SAMPLES, VENDOR_KEY, metric, old_messages, write_archive

KEY = "c" * 32


class Reading:
    """One run, by field."""

    def __init__(self, chunks: list[Chunk]) -> None:
        self.fields: dict[str, Field] = {}
        self.files: dict[str, list[FileRef]] = {}
        self.points: dict[str, list[tuple[str, int, float]]] = {}
        self.texts: dict[str, list[str]] = {}
        self.findings: list[Finding] = []
        for chunk in chunks:
            self._add(chunk)

    def _add(self, chunk: Chunk) -> None:
        match chunk:
            case Fields(fields):
                self.fields |= {field.path: field for field in fields}
            case Files(files):
                for ref in files:
                    self.files.setdefault(ref.path, []).append(ref)
            case FloatPoints():
                for path, one in chunk.series():
                    steps = [format(step.normalize(), "f") for step in one.steps.to_decimals()]
                    rows = zip(steps, one.times_ms.tolist(), one.values.tolist(), strict=True)
                    self.points.setdefault(path, []).extend(rows)
            case StringPoints():
                for path, texts in chunk.series():
                    self.texts.setdefault(path, []).extend(texts.values.to_list())
            case End(findings=findings):
                self.findings = findings

    def value(self, path: str) -> Any:
        return self.fields[path].value


def runs_in(path: Path, **options: str) -> list[RunRef]:
    source = open_source({"path": str(path), **options})
    return [run for project in source.list_projects(Selection()) for run in source.list_runs(project, Selection())]


def read(path: Path, key: str, **options: str) -> Reading:
    source = open_source({"path": str(path), **options})
    run = next(run for run in runs_in(path) if run.id == key)
    return Reading([piece.chunk for piece in source.read_runs([run], Want(), DigestSink())])


def one(folder: Path, *messages: dict[str, Any], **experiment: Any) -> Reading:
    """The only run of an archive with these messages."""
    write_archive(folder / f"{KEY}.zip", KEY, list(messages), **experiment)
    return read(folder, KEY)


def test_an_experiment_and_its_continuation_are_one_run() -> None:
    run = read(SAMPLES, VENDOR_KEY)
    assert [value for _, _, value in run.points["metrics/loss"]] == [1.0, 0.5, 1 / 3, 0.25, 0.2, 0.125]
    assert run.value("others/note") == "another fact"
    assert run.value("sys/tags") == ["tag one", "two"]
    assert run.value("sys/name") == "first run"
    [ref] = runs_in(SAMPLES)
    assert (ref.project, ref.id) == ("ws/vision", VENDOR_KEY)
    assert run.value("sys/creation_time") == ref.created_ms
    assert run.value("sys/running_time") > 1.0


def test_parameters_are_typed_as_they_were_logged() -> None:
    run = read(SAMPLES, VENDOR_KEY)
    kinds = {path.removeprefix("params/"): field.type for path, field in run.fields.items() if "params/" in path}
    assert kinds["lr"] == "float"
    assert kinds["n"] == "int"
    assert kinds["flag"] == "bool"
    assert run.value("params/big") == 2**53 + 1
    assert run.value("params/list") == '[1,"a"]'
    assert run.value("params/nested|b|c") == "None"
    assert Finding("approximation", "null-as-text", "params/nested|b|c") in run.findings


def test_odd_values_are_exact() -> None:
    values = np.array([value for _, _, value in read(SAMPLES, VENDOR_KEY).points["metrics/odd"]])
    expected = np.array([np.nan, np.inf, -0.0, 1e300, 5e-324])
    assert np.array_equal(values.view(np.int64), expected.view(np.int64))


def test_contexts_epochs_and_steps_are_kept() -> None:
    run = read(SAMPLES, VENDOR_KEY)
    assert [(step, value) for step, _, value in run.points["metrics/train_acc"]] == [("1", 0.5)]
    assert [(step, value) for step, _, value in run.points["epochs/train_acc"]] == [("1", 2.0)]
    [notes] = run.files["assets/docs/notes.txt"]
    assert (notes.type, notes.step, notes.name, notes.size_bytes) == ("file_series", Decimal(4), "notes.txt", 5)
    assert run.files["images/picture"][0].name == "picture.png"
    assert run.value("remote_assets/elsewhere") == "s3://bucket/key"


def test_old_clients_are_understood(tmp_path: Path) -> None:
    run = one(tmp_path, *old_messages())
    assert [step for step, _, _ in run.points["metrics/loss"]][:4] == ["0", "0.25", "0.5", "0.75"]
    assert run.texts["metrics/verdict"] == ["good"]
    assert [(step, value) for step, _, value in run.points["metrics/free"]] == [("0", 1.5), ("1", 2.5)]
    assert Finding("note", "step-missing", "metrics/free", 2, run.findings[-1].detail) in run.findings
    assert run.texts["logs/stdout"] == ["12\n"]
    assert run.texts["logs/stderr"] == ["a warning\n"]
    assert [run.value(f"html/{number}") for number in range(2)] == ["<i>one</i>", "<i>two</i>"]
    assert run.value("sys/owner") == "somebody"
    assert run.value("source_code/commit/commit_id") == "c0ffee"
    assert run.value("source_code/remote/origin") == "git@x:y.git"
    assert run.value("source_code/entrypoint") == "train.py"
    assert run.value("system/installed_packages") == "a==1\nb==2"
    assert run.value("system/info/k") == "v"
    assert run.value("dependencies/numpy") == "1.0"
    assert run.value("sys/name") == "old run"


def test_system_metrics_can_be_left_out(tmp_path: Path) -> None:
    write_archive(tmp_path / "a.zip", OLD_KEY, old_messages())
    assert "system_metrics/sys.cpu.percent.avg" in read(tmp_path, OLD_KEY).points
    run = read(tmp_path, OLD_KEY, **{"system-metrics": "no"})
    assert not [path for path in run.points if "sys." in path]


def test_every_message_of_an_unknown_type_is_kept(tmp_path: Path) -> None:
    message = {"type": "cloud_details", "payload": {"provider": "aws", "metadata": {"a": 1}}}
    run = one(tmp_path, message, message)
    assert run.value("messages/cloud_details/1") == '{"provider":"aws","metadata":{"a":1}}'


def test_damaged_lines_are_a_gap_and_cost_nothing_else(tmp_path: Path) -> None:
    write_archive(tmp_path / "a.zip", KEY, [metric("loss", 1.0, 0), "torn", metric("loss", 2.0, 1)])  # type: ignore[list-item]
    run = read(tmp_path, KEY)
    assert [value for _, _, value in run.points["metrics/loss"]] == [1.0, 2.0]
    assert [(finding.kind, finding.code, finding.count) for finding in run.findings] == [("gap", "message-damaged", 1)]


def test_half_a_character_is_replaced_and_told(tmp_path: Path) -> None:
    param = {"paramName": "half\ud800", "paramValue": "\udc00!", "step": None}
    run = one(tmp_path, {"type": "parameter_msg", "payload": {"param": param, "local_timestamp": 1}})
    assert run.value("params/half\ufffd") == "\ufffd!"
    assert [(finding.kind, finding.code, finding.count) for finding in run.findings] == [
        ("approximation", "lone-surrogate", 1)
    ]


def test_steps_and_values_that_are_none_are_losses(tmp_path: Path) -> None:
    run = one(tmp_path, metric("m", 1.0, 1e-20), metric("m", None, 1), metric("m", 3.0, 2**70), metric("m", 4.0, 0.125))
    assert [(step, value) for step, _, value in run.points["metrics/m"]] == [("0.125", 4.0)]
    assert [(finding.kind, finding.code, finding.count) for finding in run.findings] == [
        ("loss", "step-unreadable", 2),
        ("loss", "value-missing", 1),
    ]


def test_steps_of_very_different_scale_in_one_block_stay_exact(tmp_path: Path) -> None:
    run = one(tmp_path, metric("m", 1.0, 0.123456789012345), metric("m", 2.0, 2**62), metric("m", 3.0, 0.5))
    assert [step for step, _, _ in run.points["metrics/m"]] == ["0.123456789012345", str(2**62), "0.5"]


def test_a_missing_asset_is_a_loss_of_that_asset(tmp_path: Path) -> None:
    upload = {"file_path": "gone", "upload_type": "asset", "additional_params": {"fileName": "x.bin", "step": None}}
    run = one(tmp_path, metric("m", 1.0, 0), {"type": "file_upload", "payload": upload})
    assert [(finding.kind, finding.code, finding.field) for finding in run.findings] == [
        ("loss", "asset-unreadable", "assets/x.bin")
    ]


def test_two_assets_of_one_name_stay_two(tmp_path: Path) -> None:
    messages = [
        {
            "type": "file_upload",
            "payload": {
                "file_path": "tmpasset",
                "upload_type": "text-sample",
                "additional_params": {"fileName": "auto", "step": 1, "assetId": name},
            },
        }
        for name in ("a1", "b2")
    ]
    run = one(tmp_path, *messages)
    assert sorted(run.files) == ["text-sample/auto", "text-sample/auto~b2"]


def test_a_member_name_leads_nowhere_outside(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    upload = {"file_path": str(secret), "upload_type": "asset", "additional_params": {"fileName": "../../x"}}
    run = one(tmp_path, {"type": "file_upload", "payload": upload})
    assert run.files == {}
    assert run.findings[0].code == "asset-unreadable"


def test_copies_of_an_archive_count_once(tmp_path: Path) -> None:
    shutil.copytree(SAMPLES, tmp_path / "one")
    shutil.copytree(SAMPLES, tmp_path / "two")
    assert len(read(tmp_path, VENDOR_KEY).points["metrics/loss"]) == 6


def test_an_archive_that_cannot_be_opened_is_a_run_that_fails(tmp_path: Path) -> None:
    write_archive(tmp_path / "good.zip", KEY, [metric("m", 1.0, 0)])
    torn = tmp_path / f"{OLD_KEY}.zip"
    write_archive(torn, OLD_KEY, old_messages())
    torn.write_bytes(torn.read_bytes()[:-30])
    (tmp_path / "other.zip").write_bytes((SAMPLES / f"{VENDOR_KEY}.zip").read_bytes()[:40])
    runs = {run.id: run for run in runs_in(tmp_path)}
    assert set(runs) == {KEY, OLD_KEY, "other"}
    source = open_source({"path": str(tmp_path)})
    with pytest.raises(BadInput):
        list(source.read_runs([runs[OLD_KEY]], Want(), DigestSink()))  # type: ignore[index]


def test_damaged_archives_of_one_name_and_of_any_damage_stop_no_listing(tmp_path: Path) -> None:
    """Also one whose table of contents is no UTF-8."""
    write_archive(tmp_path / "good.zip", KEY, [metric("m", 1.0, 0)])
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "torn.zip").write_bytes(b"PK torn " + name.encode())
    with ZipFile(tmp_path / "names.zip", "w") as archive:
        archive.writestr("experimentü.json", b"{}")
    (tmp_path / "names.zip").write_bytes((tmp_path / "names.zip").read_bytes().replace("ü".encode(), b"\xff\xfe"))
    runs = runs_in(tmp_path)
    assert len({run.label for run in runs}) == 4
    source = open_source({"path": str(tmp_path)})
    for run in runs:
        if run.id != KEY:
            with pytest.raises(BadInput, match="no offline archive"):
                list(source.read_runs([run], Want(), DigestSink()))


def test_integers_that_no_double_holds_are_told(tmp_path: Path) -> None:
    """As numbers, and as the texts that a server makes of them."""
    exact, between = 2**60, 2**53 + 1
    odd = [exact, -exact, 1e300, "Infinity", "NaN", "1e300", str(exact)]
    messages = [metric("exact", value, step) for step, value in enumerate(odd)]
    messages += [metric("rounded", value, step) for step, value in enumerate([between, -between, str(between), 1])]
    run = one(tmp_path, *messages)
    assert [value for _, _, value in run.points["metrics/rounded"]] == [2.0**53, -(2.0**53), 2.0**53, 1.0]
    assert run.findings == [Finding("approximation", "int-to-float", "metrics/rounded", 3)]


def test_texts_that_only_python_takes_for_numbers_stay_texts(tmp_path: Path) -> None:
    run = one(tmp_path, metric("m", "1_000", 0), metric("m", 10**400, 1), metric("m", "2.5", 2))
    assert run.texts["metrics/m"] == ["1_000", str(10**400)]
    assert [value for _, _, value in run.points["metrics/m"]] == [2.5]


def test_a_path_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="there is no"):
        open_source({"path": "/no/such/folder"})

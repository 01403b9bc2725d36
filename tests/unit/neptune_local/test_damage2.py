"""What is left of the log of a killed client, a full disk or a bad copy."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.neptune_local.local_data import (
    RunRead,
    points,
    read_one,
    record,
    write_folder,
)

LINES = [
    record(1, "AssignString", "p/żółw", value="first 😀"),
    *(record(n, "LogFloats", f"m/{n % 2}", values=points((n / 7, n, 1.0 * n)), at=100.0 + n) for n in range(2, 12)),
    record(12, "AddStrings", "sys/tags", values=["a"]),
]
WHOLE = "".join(f"{line}\n" for line in LINES).encode()


def read_log(content: bytes, *, last_put: int | None) -> RunRead:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        log = write_folder(root, LINES, last_put=last_put) / "data-1.log"
        log.write_bytes(content)
        if last_put is None:
            (log.parent / "last_put_version").write_text("")
        return read_one(root, root / "archive")


def values(run: RunRead) -> list[float]:
    return sorted(value for series in run.series.values() for _, _, value in series)


@given(st.integers(0, len(WHOLE)))
@settings(max_examples=120)
def test_a_log_cut_anywhere_gives_a_prefix_and_the_exact_number_of_lost_records(cut: int) -> None:
    whole = WHOLE[:cut].count(b"\n") + (WHOLE[cut : cut + 1] == b"\n")
    run = read_log(WHOLE[:cut], last_put=12)
    expected = read_log("".join(f"{line}\n" for line in LINES[:whole]).encode(), last_put=whole)
    assert run.series == expected.series
    assert run.logged() == expected.logged()
    assert expected.findings == []
    lost = [(one.kind, one.code, one.count) for one in run.findings]
    assert lost == ([("gap", "lost-records", 12 - whole)] if whole < 12 else [])


@given(st.integers(1, len(WHOLE) - 2))
@settings(max_examples=40)
def test_without_the_clients_counter_a_cut_line_is_one_gap(cut: int) -> None:
    rest = WHOLE[:cut].rpartition(b"\n")[2]
    is_whole = WHOLE[cut : cut + 1] == b"\n"
    run = read_log(WHOLE[:cut], last_put=None)
    assert [(one.kind, one.code) for one in run.findings] == ([("gap", "cut-record")] if rest and not is_whole else [])


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
@settings(max_examples=150)
def test_one_altered_byte_never_ends_the_reading(place: int, byte: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[place] = byte
    run = read_log(bytes(damaged), last_put=12)
    lost = sum(one.count for one in run.findings if one.kind in ("loss", "gap") and one.code != "bad-time")
    assert len(values(run)) >= 9 - (byte == 0x0A) - lost
    assert len(values(run)) <= 10


def test_a_bad_line_in_the_middle_is_a_loss_with_file_and_line(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, [*LINES[:3], '{"obj": {"type": "LogFl', *LINES[4:]])
    run = read_one(tmp_path, tmp_path / "archive")
    (loss,) = run.findings
    assert (loss.kind, loss.code, loss.count) == ("loss", "bad-record", 1)
    assert loss.detail == f"{folder.resolve() / 'data-1.log'}:4"
    assert len(values(run)) == 9


def test_whole_records_on_the_line_of_a_cut_one_are_kept(tmp_path: Path) -> None:
    write_folder(tmp_path, [LINES[0], LINES[1][:40] + LINES[2] + LINES[3], *LINES[4:]], last_put=12)
    run = read_one(tmp_path, tmp_path / "archive")
    assert [(one.kind, one.code, one.count) for one in run.findings] == [("loss", "bad-record", 1)]
    assert len(values(run)) == 9


def test_a_tail_of_zero_bytes_holds_nothing(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, LINES)
    with open(folder / "data-1.log", "ab") as log:
        log.write(bytes(4096))
    run = read_one(tmp_path, tmp_path / "archive")
    assert run.findings == []
    assert len(values(run)) == 10


def test_a_million_bad_lines_are_one_finding(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, [])
    (folder / "data-1.log").write_bytes(b"{]\n" * 100_000)
    run = read_one(tmp_path, tmp_path / "archive")
    (loss,) = run.findings
    assert (loss.code, loss.count) == ("bad-record", 100_000)
    assert len(loss.detail) < 2000


def test_records_missing_from_the_middle_are_counted(tmp_path: Path) -> None:
    write_folder(tmp_path, [*LINES[:3], *LINES[7:]], last_put=12)
    run = read_one(tmp_path, tmp_path / "archive")
    assert [(one.kind, one.code, one.count) for one in run.findings] == [("gap", "lost-records", 4)]


def test_a_log_that_does_not_begin_with_record_1_is_partial(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, LINES[4:], last_put=12, last_ack=4)
    (folder / "data-1.log").rename(folder / "data-5.log")
    run = read_one(tmp_path, tmp_path / "archive")
    (gap,) = run.findings
    assert (gap.kind, gap.code, gap.count) == ("gap", "partial-start", 4)
    assert run.series["m/1"][0] == ("5", 5000, 5 / 7)


def test_data_files_are_read_in_the_order_of_their_versions(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, LINES[:3])
    for name, part in {"data-4.log": LINES[3:9], "data-10.log": LINES[9:]}.items():
        (folder / name).write_text("".join(f"{line}\n" for line in part))
    (folder / "last_put_version").write_text("12")
    run = read_one(tmp_path, tmp_path / "archive")
    assert run.findings == []
    assert [step for step, _, _ in run.series["m/0"]] == ["2", "4", "6", "8", "10"]


def test_a_client_killed_before_its_first_flush_leaves_a_run_that_says_so(tmp_path: Path) -> None:
    write_folder(tmp_path, [], last_put=60)
    run = read_one(tmp_path, tmp_path / "archive")
    assert [(one.kind, one.code, one.count) for one in run.findings] == [("gap", "lost-records", 60)]


@pytest.mark.parametrize("counter", ["", "garbage", "\x00\x00"])
def test_a_counter_that_is_no_number_counts_for_nothing(counter: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, LINES)
    (folder / "last_put_version").write_text(counter)
    assert read_one(tmp_path, tmp_path / "archive").findings == []


def test_a_lone_surrogate_is_replaced_and_reported(tmp_path: Path) -> None:
    write_folder(tmp_path, [record(1, "AssignString", "p", value="a\ud800b")])
    run = read_one(tmp_path, tmp_path / "archive")
    assert run.scalars["p"] == "a\ufffdb"
    assert [(one.kind, one.code) for one in run.findings] == [("approximation", "lone-surrogate")]


def test_control_characters_that_strict_json_refuses_are_read(tmp_path: Path) -> None:
    line = record(1, "AssignString", "p", value="a-b").replace("a-b", "a\tb\x01c")
    write_folder(tmp_path, [line])
    run = read_one(tmp_path, tmp_path / "archive")
    assert run.scalars["p"] == "a\tb\x01c"
    assert run.findings == []


def test_a_file_that_is_no_json_at_all_is_one_loss_after_the_other_and_no_crash(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, [])
    (folder / "data-1.log").write_bytes(b"[" * 200_000 + b"\n" + bytes(range(256)) * 50)
    run = read_one(tmp_path, tmp_path / "archive")
    assert {one.code for one in run.findings} <= {"bad-record", "bad-bytes", "cut-record"}
    assert run.findings


@given(st.integers(0, len(WHOLE) - 1), st.data())
@settings(max_examples=80)
def test_what_a_forked_process_flushes_again_is_not_counted_twice(flushed: int, data: st.DataObject) -> None:
    """The parent's file was flushed up to any byte when it forked; the child flushes its copy of the rest of what
    stood in the buffer, then the parent flushes the same and goes on."""
    ends = [place + 1 for place in range(flushed, len(WHOLE)) if WHOLE[place : place + 1] == b"\n"]
    buffered = WHOLE[flushed : data.draw(st.sampled_from(ends))]
    run = read_log(WHOLE[:flushed] + buffered * 2 + WHOLE[flushed + len(buffered) :], last_put=12)
    whole = read_log(WHOLE, last_put=12)
    assert run.series == whole.series
    assert run.logged() == whole.logged()
    assert {one.code for one in run.findings} <= {"repeated-records"}


def test_what_was_flushed_again_much_later_is_recognised(tmp_path: Path) -> None:
    lines = [record(n, "LogFloats", "m", values=points((n, n, 1.0 * n)), at=1.0 * n) for n in range(1, 5001)]
    late = [*lines[:3000], lines[90][30:], *lines[91:140], *lines[3000:], *lines[2000:2100]]
    write_folder(tmp_path, late, last_put=5000)
    run = read_one(tmp_path, tmp_path / "archive")
    assert [step for step, _, _ in run.series["m"]] == [str(n) for n in range(1, 5001)]
    assert [(one.kind, one.code, one.count) for one in run.findings] == [("note", "repeated-records", 149)]


def test_another_record_of_the_same_version_is_kept(tmp_path: Path) -> None:
    lines = [record(n, "LogFloats", "m", values=points((n, n, 1.0)), at=1.0 * n) for n in range(1, 4)]
    others = [record(n, "LogFloats", "m", values=points((n, 10 + n, 1.0)), at=10.0 + n) for n in range(2, 5)]
    write_folder(tmp_path, [*lines, *others], last_put=4)
    run = read_one(tmp_path, tmp_path / "archive")
    assert [step for step, _, _ in run.series["m"]] == ["1", "2", "3", "12", "13", "14"]
    assert run.findings == []


def test_a_log_whose_records_all_share_a_version_is_read_in_fair_time(tmp_path: Path) -> None:
    lines = [record(1, "LogFloats", "m", values=points((n, n, 1.0)), at=1.0 * n) for n in range(40_000)]
    write_folder(tmp_path, lines, last_put=1)
    run = read_one(tmp_path, tmp_path / "archive")
    assert len(run.series["m"]) == 40_000
    assert [one.code for one in run.findings] == ["repeats-not-searched"]

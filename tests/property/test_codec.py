"""Records survive encoding bit for bit, and framed files survive being cut at any byte."""

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from shardmig import codec
from shardmig.errors import JournalCorrupt
from shardmig.records import Field, Fields, FileRef, Files, FloatPoints, Piece, ProjectId, RunId, RunRef, Steps, Texts

RUN = RunRef(project=ProjectId("ws/p"), id=RunId("R-1"))


@given(arrays.arrays(np.float64, st.integers(0, 50), elements=st.floats(width=64)), st.integers(0, 18))
def test_float_points_keep_their_bits(values: np.ndarray, scale: int) -> None:
    count = len(values)
    whole = np.arange(count, dtype=np.int64)
    chunk = FloatPoints(["m"], np.array([count]), Steps(whole, scale), whole, values)
    back: Piece = codec.decode(codec.encode(Piece(RUN, chunk, b"here")), Piece)
    assert isinstance(back.chunk, FloatPoints)
    assert back.chunk.values.tobytes() == values.tobytes()
    assert (back.chunk.steps.scale, back.cursor, back.run) == (scale, b"here", RUN)


@given(st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text() | st.booleans() | st.lists(st.text()))
def test_scalars_keep_value_and_type(value: object) -> None:
    field = Field("p", "string", value)  # type: ignore[arg-type]
    back: Fields = codec.decode(codec.encode(Fields([field])), Fields)
    assert back.fields[0].value == value
    assert type(back.fields[0].value) is type(value)


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_steps_of_files_are_exact(step: Decimal) -> None:
    ref = FileRef(path="f", type="file_series", stored="f/1.png", step=step)
    back: Files = codec.decode(codec.encode(Files([ref])), Files)
    assert back.files[0].step == step


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]))))
def test_texts_go_through_arrow_and_slices(texts: list[str]) -> None:
    column = Texts.from_list(texts)
    assert column.to_list() == texts
    assert Texts.from_arrow(column.to_arrow()).to_list() == texts
    assert column[1:3].to_list() == texts[1:3]


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6))
def test_every_prefix_of_a_framed_file_holds_whole_frames_only(payloads: list[bytes]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames"
        writer = codec.FrameWriter(path)
        ends = [writer.append(payload) for payload in payloads]
        writer.close()
        whole = path.read_bytes()
        for cut in range(len(whole) + 1):
            path.write_bytes(whole[:cut])
            expected = [payload for payload, end in zip(payloads, ends, strict=True) if end <= cut]
            assert [frame.payload for frame in codec.read_frames(path)] == expected


def test_a_damaged_frame_ends_the_file(tmp_path: Path) -> None:
    writer = codec.FrameWriter(tmp_path / "f")
    first = writer.append(b"one")
    writer.append(b"two")
    writer.close()
    damaged = bytearray((tmp_path / "f").read_bytes())
    damaged[first + 9] ^= 1
    (tmp_path / "f").write_bytes(damaged)
    assert [frame.payload for frame in codec.read_frames(tmp_path / "f")] == [b"one"]


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"PAR1 something else altogether")
    with pytest.raises(JournalCorrupt, match="not a shardmig file"):
        list(codec.read_frames(tmp_path / "f"))

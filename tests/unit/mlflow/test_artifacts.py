"""Files of a run on their way up: several at a time, none lost, an error told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from shardmig.adapters.sidecar.uploads import Uploads
from shardmig.errors import BadInput


class Place:
    """An artifact store that does what a test says with each path."""

    def __init__(self, arrive: Callable[[str], object]) -> None:
        self._arrive = arrive
        self.paths: set[str] = set()

    def put(self, file: Path, path: str) -> None:
        assert file.read_bytes() == path.encode()
        self._arrive(path)
        self.paths.add(path)

    def get(self, path: str, file: Path) -> None:
        raise NotImplementedError


def files(folder: Path, count: int) -> list[Path]:
    made = [folder / str(number) for number in range(count)]
    for path in made:
        path.write_text(path.name)
    return made


def test_as_many_files_as_there_are_workers_are_on_their_way_at_once(tmp_path: Path) -> None:
    meeting = threading.Barrier(4, timeout=20)
    place = Place(lambda _: meeting.wait())
    uploads = Uploads(place, workers=4)
    for path in files(tmp_path, 40):
        uploads.add(path, path.name, then_delete=True)
    uploads.wait()
    uploads.close()
    assert place.paths == {str(number) for number in range(40)}
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_refused_is_told(tmp_path: Path) -> None:
    def refuse(path: str) -> None:
        if path == "3":
            raise BadInput("not this one")

    uploads = Uploads(Place(refuse), workers=2)
    for path in files(tmp_path, 5):
        uploads.add(path, path.name)
    with pytest.raises(BadInput, match="not this one"):
        uploads.wait()
    uploads.close()
    assert len(list(tmp_path.iterdir())) == 5

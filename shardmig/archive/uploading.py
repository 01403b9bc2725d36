"""Publishing a run into an object store, which cannot rename: upload, part_0 with the receipt last."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from shardmig.archive.layout import part_name, parts_from, sanitize, staged
from shardmig.archive.places import file_sha256
from shardmig.archive.store import ObjectPath
from shardmig.errors import TargetConflict
from shardmig.records import RunRef

_MOST_AT_ONCE_BYTES: Final = 96 << 20
"""A larger part_0 is sent in pieces, for which stores know no condition."""


def upload_parts(staging: Path, folder: ObjectPath, run: RunRef, count: int) -> None:
    """Turn `count` parts staged on disk into the run, replacing an earlier one; as `publish_parts` in all that counts.

    What an upload that was cut off left behind is overwritten or removed here. Raises TargetConflict if another process
    published the run meanwhile.
    """
    prefix = sanitize(run.id)
    first = folder / part_name(prefix, 0)
    before = first.looked()
    for old in reversed(parts_from(folder, prefix, 1)):
        old.unlink()
    for number in range(1, count):
        name = part_name(prefix, number)
        (folder / name).upload(staged(staging / name))
    part = staged(staging / first.name)
    if part.stat().st_size > _MOST_AT_ONCE_BYTES:
        first.upload(part)
    elif not first.create(part.read_bytes(), over=before) and file_sha256(first) != file_sha256(
        part
    ):  # the same: an answer was lost
        raise TargetConflict(
            f"another process published this run as {first} at the same time",
            run=run.label,
            hint="let one coordinator write an archive, then give the same command again",
        )

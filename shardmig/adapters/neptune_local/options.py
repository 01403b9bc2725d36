"""The options of source `neptune-local`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from shardmig.errors import UsageError
from shardmig.records import ProjectId


class LocalOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `--path`, `--project`, … say, checked.

    paths: absolute; each a folder (searched recursively) or one sqlite file.
    project: of 1.x folders, which hold none. Databases of neptune-scale carry their own.
    include_acked: also read records that a server has acknowledged (it may be gone by now).
    path_map: (old, new) prefixes of files that were logged by absolute path; the longest matching prefix wins.
    run_id_prefix: 1.x run id = prefix + first 8 digits of the container's uuid.
    """

    paths: tuple[Path, ...]
    project: ProjectId | None = None
    include_acked: bool = True
    path_map: tuple[tuple[str, str], ...] = ()
    run_id_prefix: str = "offline-"


_KNOWN: Final = ("path", "project", "include-acked", "path-map", "run-id-prefix")
_SEPARATOR: Final = re.compile(rf"(?<!\A[A-Za-z])(?<!{os.pathsep}[A-Za-z]){os.pathsep}")
"""The colon of a drive (C:\\data=/new) separates nothing: logs of Windows are read on other systems too."""

_YES_NO: Final = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def parse_options(options: Mapping[str, str]) -> LocalOptions:
    """Options as given on the command line. Raises UsageError."""
    for name in options:
        if name not in _KNOWN:
            raise UsageError(f"neptune-local has no option {name!r}", hint=f"known: {', '.join(_KNOWN)}")
    paths = tuple(Path(part).absolute() for part in options.get("path", "").split(os.pathsep) if part)
    if not paths:
        raise UsageError("neptune-local needs a path", hint="give a .neptune folder, or one that holds it")
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist")
    acked = options.get("include-acked", "yes").lower()
    if acked not in _YES_NO:
        raise UsageError(f"include-acked is {acked!r}; it must be yes or no")
    project = options.get("project", "")
    return LocalOptions(
        paths=paths,
        project=ProjectId(project) if project else None,
        include_acked=_YES_NO[acked],
        path_map=_parse_map(options.get("path-map", "")),
        run_id_prefix=options.get("run-id-prefix", "offline-"),
    )


def _parse_map(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for part in filter(None, _SEPARATOR.split(text)):
        old, separator, new = part.partition("=")
        if not separator or not old or not new:
            raise UsageError(f"path-map: {part!r} is not OLD=NEW")
        pairs.append((old.rstrip("/\\") or old, new))
    return tuple(sorted(pairs, key=lambda pair: len(pair[0]), reverse=True))

"""Which experiments lie in some zip files and folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from shardmig import logs
from shardmig.adapters.comet.experiment import KEY_PREFIX
from shardmig.adapters.comet.messages import ExperimentFile
from shardmig.adapters.comet.offline import STAGING
from shardmig.adapters.comet.reader import messages_mark, read_experiment
from shardmig.adapters.names import digest_of
from shardmig.adapters.sidecar.reading import beside_original
from shardmig.errors import BadInput, NotFound
from shardmig.records import ProjectId, RunId, RunRef

UNREADABLE: Final = ProjectId("comet/unreadable")
"""The project of archives that cannot be opened: each is a run that fails."""
_NO_WORKSPACE: Final = "default"
_NO_PROJECT: Final = "uncategorized"
_LINE_BYTES: Final = 150


def experiments_in(paths: Iterable[Path]) -> list[RunRef]:
    """Each experiment once, sorted by project, time and key. Zip files of a folder that are no offline archives are
    passed over with a log line; one that is named itself is an experiment that cannot be read."""
    readable: dict[str, dict[object, tuple[Path, ExperimentFile]]] = {}  # copies of one archive count once
    unreadable: list[Path] = []
    for path, is_named in _zip_files(paths):
        try:
            file, mark = read_experiment(path), messages_mark(path)
        except NotFound as error:
            if is_named:
                unreadable.append(path)
            else:
                logs.get_logger().info(logs.Event.PROJECT_SKIPPED, project=str(path), reason=error.message)
        except BadInput:
            unreadable.append(path)
        else:
            copies = readable.setdefault(file.offline_id or path.stem, {})
            copies.setdefault((file.start_time, mark), (path, file))
    stems = Counter(path.stem for path in unreadable)
    found = [_unreadable(path, is_only=stems[path.stem] == 1) for path in unreadable]
    listed = {key: _found(key, list(archives.values())) for key, archives in readable.items()}
    own = {run.entity for key, run in listed.items() if not key.startswith(KEY_PREFIX)}
    found += [beside_original(run, key, own) if key.startswith(KEY_PREFIX) else run for key, run in listed.items()]
    return sorted(found, key=lambda run: (run.project, run.created_ms or 0, run.id))


def at(locator: str) -> tuple[list[Path], ExperimentFile]:
    """The archives that a RunRef names, and their experiment.json together. Raises NotFound and BadInput."""
    paths = [Path(path) for path in msgspec.json.decode(locator, type=list[str])]
    return paths, _together([read_experiment(path) for path in paths])


def _together(files: list[ExperimentFile]) -> ExperimentFile:
    """What the archives of one experiment say of it: the first begins it, later ones go on with it."""
    together = files[-1]
    together.workspace, together.project_name = files[0].workspace, files[0].project_name
    together.start_time = min(file.start_time for file in files)
    together.stop_time = max(file.stop_time for file in files)
    together.tags = sorted({tag for file in files for tag in file.tags})
    failed = [file for file in files if file.customer_error_reported]
    together.customer_error_reported = bool(failed)
    together.customer_error_message = failed[-1].customer_error_message if failed else None
    together.shardmig = next((file.shardmig for file in files if file.shardmig), msgspec.UNSET)
    return together


def _found(key: str, archives: list[tuple[Path, ExperimentFile]]) -> RunRef:
    archives.sort(key=lambda one: (one[1].start_time, one[1].stop_time, one[0].name))
    paths = [path for path, _ in archives]
    file = _together([file for _, file in archives])
    run = file.shardmig.run if file.shardmig else _own_run(key, file)
    return msgspec.structs.replace(
        run,
        locator=msgspec.json.encode([str(path) for path in paths]).decode(),
        fingerprint=";".join(map(_fingerprint, paths)),
        weight=sum(messages_mark(path)[0] for path in paths) // _LINE_BYTES,
    )


def _own_run(key: str, file: ExperimentFile) -> RunRef:
    project = f"{file.workspace or _NO_WORKSPACE}/{file.project_name or _NO_PROJECT}"
    return RunRef(project=ProjectId(project), id=RunId(key), created_ms=file.start_time)


def _unreadable(path: Path, *, is_only: bool) -> RunRef:
    """Named by its file; also by its path where several are called so."""
    locator = msgspec.json.encode([str(path)]).decode()
    name = path.stem if is_only else f"{path.stem}~{digest_of(str(path))}"
    return RunRef(project=UNREADABLE, id=RunId(name), locator=locator, fingerprint=_fingerprint(path))


def _fingerprint(path: Path) -> str:
    status = path.stat()
    return f"{path.name}:{status.st_size}:{status.st_mtime_ns}"


def _zip_files(paths: Iterable[Path]) -> Iterator[tuple[Path, bool]]:
    """Each zip file once, and whether it was named itself."""
    seen: set[Path] = set()
    for path in paths:
        files = [(path, True)] if path.is_file() else [(file, False) for file in sorted(_below(path))]
        for file, is_named in files:
            if (real := file.resolve()) not in seen:
                seen.add(real)
                yield file, is_named


def _below(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(STAGING)]
        yield from (Path(here, name) for name in files if name.endswith(".zip"))

"""`shardmig/manifest.json`: what is needed to read a run back under its own names, types and steps."""

from __future__ import annotations

from decimal import Decimal
from pathlib import PurePosixPath
from typing import Final

import msgspec

from shardmig.adapters.names import digest_of
from shardmig.adapters.sidecar.naming import OWN_FOLDER, Naming
from shardmig.errors import BadInput
from shardmig.records import Field, FieldType, FileRef, RunRef

MANIFEST: Final = f"{OWN_FOLDER}/manifest.json"
SIDECAR: Final = f"{OWN_FOLDER}/exact.parquet"
VERSION: Final = 1


class ParamEntry(msgspec.Struct, frozen=True, array_like=True):
    """One scalar: the param's key, the field and its type."""

    key: str
    path: str
    type: FieldType


class SeriesEntry(msgspec.Struct, frozen=True, array_like=True):
    """One string or histogram series: the lossless artifact, the shown one, the field and its type."""

    artifact: str
    shown: str
    path: str
    type: FieldType


class FileEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One file, or one tree with its members' (name, artifact). `size_bytes` and `sha256` of a file, if known."""

    path: str
    type: FieldType
    name: str
    artifact: str = ""
    members: list[tuple[str, str]] | None = None
    step: Decimal | None = None
    time_ms: int | None = None
    size_bytes: int = -1
    sha256: str = ""


class Manifest(msgspec.Struct, kw_only=True):
    """How one run was written. `metrics`: {key: field path} of the float series whose names changed. `is_native`: it
    came from a system of the target's own kind; `held` are its scalars that are no params here."""

    format_version: int = VERSION
    tool_version: str
    run: RunRef
    source: str
    source_version: str
    step_multiplier: int
    has_sidecar: bool = False
    params: list[ParamEntry] = []
    metrics: dict[str, str] = {}
    series: list[SeriesEntry] = []
    files: list[FileEntry] = []
    is_native: bool = False
    held: list[Field] = []

    @property
    def artifacts(self) -> frozenset[str]:
        """Where the files of its fields lie, below the run."""
        of_files = (name for entry in self.files for name in (entry.artifact, *(own for _, own in entry.members or ())))
        return frozenset(of_files) | {name for series in self.series for name in (series.artifact, series.shown)}


def encode_manifest(manifest: Manifest) -> bytes:
    """As JSON. Deterministic."""
    return msgspec.json.encode(manifest)


def decode_manifest(text: bytes, run: str) -> Manifest:
    """Back from JSON. Raises BadInput, naming the run."""
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except msgspec.DecodeError as error:
        raise BadInput(f"{MANIFEST} cannot be read: {error}", run=run) from error
    if manifest.format_version > VERSION:
        raise BadInput(f"{MANIFEST} was written by shardmig {manifest.tool_version}, which is newer", run=run)
    return manifest


class ArtifactNames:
    """Gives each file of a run its artifact path; no two are equal, and none is a folder of another."""

    def __init__(self, naming: Naming) -> None:
        self._naming = naming
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def claim(self, wanted: str, identity: str) -> str:
        """The path for a file that wants `wanted`; where that is taken or refused, one made of `identity`."""
        path = self._naming.artifact(wanted)
        tried = 0
        while path in self._files or path in self._folders or not self._files.isdisjoint(_folders_of(path)):
            tried += 1
            path = self._naming.unlike_any_other(wanted, identity if tried == 1 else f"{identity}\0{tried}")
        self._files.add(path)
        self._folders.update(_folders_of(path))
        return path


def wanted_path(ref: FileRef) -> str:
    """Where a file wants to lie: under its field path, with its own extension; a step of a series below it."""
    extension = PurePosixPath(ref.name or ref.stored).suffix
    base = ref.path if ref.step is None else f"{ref.path}/step_{plain(ref.step)}"
    return base if base.lower().endswith(extension.lower()) else base + extension


def plain(step: Decimal) -> str:
    """A step without exponent or needless zeros."""
    return format(step.normalize() if step else Decimal(0), "f")


def forced_key(naming: Naming, path: str, field_type: FieldType) -> str:
    """The key of the second scalar of another type on one path."""
    return naming.key(f"{path[:200]}~{digest_of(path + chr(0) + field_type)}")


def _folders_of(path: str) -> list[str]:
    return [str(parent) for parent in PurePosixPath(path).parents][:-1]

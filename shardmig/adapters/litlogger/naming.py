"""Which names Lightning is given, and what the others become.

No rules of the hosted service are published beyond 64 characters of `[a-zA-Z0-9_-]` for teamspaces and experiments.
Keys of metadata and metrics are kept as they are where they are printable text in its usual form (Unicode NFC) of at most
250 characters. Paths of artifacts become addresses that litlogger does not quote: they are held to letters, digits and a few
signs, and never lie below `shardmig/`, which is ours.
"""

from __future__ import annotations

import colorsys
import posixpath
import re
import unicodedata
from pathlib import PurePosixPath
from typing import Final

from shardmig.adapters.litlogger.facts import OWN_TAGS
from shardmig.adapters.names import digest_of, fit_name
from shardmig.adapters.sidecar.manifest import OWN_FOLDER
from shardmig.records import Field, Finding, MigrationKey, ProjectId, RunId

MAX_KEY: Final = 250
MAX_NAME: Final = 64
MAX_ARTIFACT_PATH: Final = 480
MAX_SEGMENT_BYTES: Final = 200

_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]*")
_NOT_NAME: Final = re.compile(r"[^a-zA-Z0-9_-]+")
_MADE_NAME: Final = re.compile(r"-[0-9a-f]{16}$")
_ARTIFACT: Final = re.compile(r"[/\w.\- +=@,()\[\]~]+")
_NOT_ARTIFACT: Final = re.compile(r"[^/\w.\- +=@,()\[\]~]")
_MADE_ARTIFACT: Final = re.compile(r"~[0-9a-f]{16}(\.[^/]*)?$")


class LightningNaming:
    """The names within one experiment. Pure and injective: equal names only for equal fields."""

    def wanted_key(self, path: str) -> str:
        """As Naming."""
        return path

    def key(self, path: str) -> str:
        """As Naming: the name of a metric, or of an entry of the metadata."""
        return fit_name(path, accepts=_accepts_key, clean=_clean_key, max_length=MAX_KEY)

    def wanted_artifact(self, path: str) -> str:
        """As Naming."""
        return path

    def artifact(self, path: str) -> str:
        """As Naming."""
        return path if _accepts_artifact(path) else self.unlike_any_other(path, path)

    def unlike_any_other(self, path: str, identity: str) -> str:
        """As Naming: at the top of the experiment's folder."""
        suffix = PurePosixPath(path).suffix
        extension = _NOT_ARTIFACT.sub("_", suffix)[:16].lower()
        stem = _NOT_ARTIFACT.sub("_", path.removesuffix(suffix)).replace("/", "_").strip(" ._")
        cut = stem.encode("utf-8", "replace")[:120].decode("utf-8", "ignore")
        return f"{cut or '_'}~{digest_of(identity)}{extension}"

    def is_param(self, field: Field) -> bool:  # noqa: ARG002 (every scalar is)
        """As Naming."""
        return True

    def findings(self, field: Field) -> list[Finding]:  # noqa: ARG002
        """As Naming."""
        return []


def stream_name(run: RunId, key: MigrationKey) -> str:
    """The experiment's name: the run id as far as it fits, and a digest of whose run it is, always. So two runs never
    share a name, whatever projects a teamspace is given."""
    return f"{_NOT_NAME.sub('_', run)[: MAX_NAME - 17].strip('_-') or 'run'}-{key[:16]}"


def teamspace_name(project: ProjectId) -> str:
    """The teamspace of a project: its own name where Lightning takes it, else cleaned and with a digest."""
    if len(project) <= MAX_NAME and _NAME.fullmatch(project) and not _MADE_NAME.search(project):
        return project
    return f"{_NOT_NAME.sub('-', project)[: MAX_NAME - 17].strip('_-') or 'project'}-{digest_of(project)}"


def colors_of(name: str) -> tuple[str, str]:
    """An experiment's colours on a light and on a dark page: always the same for one name."""
    hue = int(digest_of(name), 16) / 2**64
    return tuple(_hex(colorsys.hls_to_rgb(hue, lightness, 0.7)) for lightness in (0.4, 0.65))  # type: ignore[return-value]


def _hex(color: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(part * 255):02X}" for part in color)


def _accepts_key(name: str) -> bool:
    return (
        0 < len(name) <= MAX_KEY
        and name.isprintable()
        and name.strip() == name
        and name not in OWN_TAGS
        and unicodedata.is_normalized("NFC", name)
    )


def _clean_key(name: str) -> str:
    plain = unicodedata.normalize("NFC", name.encode("utf-8", "replace").decode())
    return "".join(letter if letter.isprintable() else "_" for letter in plain).strip() or "_"


def _accepts_artifact(path: str) -> bool:
    segments = path.split("/")
    return (
        len(path) <= MAX_ARTIFACT_PATH
        and _ARTIFACT.fullmatch(path) is not None
        and posixpath.normpath(path) == path
        and path != "."
        and not path.startswith(("..", "/"))
        and unicodedata.is_normalized("NFC", path)
        and segments[0].lower() != OWN_FOLDER
        and _MADE_ARTIFACT.search(path) is None
        and all(len(segment.encode()) <= MAX_SEGMENT_BYTES for segment in segments)
        and not any(segment[0] in " ~" or segment[-1] in " ." for segment in segments)
    )

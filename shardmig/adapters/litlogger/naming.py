"""Which names Lightning is given, and what the others become.

No rules of the hosted service are published beyond 64 characters of `[a-zA-Z0-9_-]` for teamspaces and experiments.
Keys of metadata and metrics are kept as they are where they are printable text in its usual form (Unicode NFC) of at most
250 characters. Paths of artifacts become addresses that litlogger does not quote: they are held to letters, digits and a few
signs, and never lie below `shardmig/`, which is ours.
"""

from __future__ import annotations

import colorsys
import re
import unicodedata
from typing import Final

from shardmig.adapters.litlogger.facts import OWN_TAGS
from shardmig.adapters.names import digest_of, fit_name
from shardmig.adapters.sidecar.naming import PlainNaming
from shardmig.records import MigrationKey, ProjectId, RunId

MAX_KEY: Final = 250
MAX_NAME: Final = 64

_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]*")
_NOT_NAME: Final = re.compile(r"[^a-zA-Z0-9_-]+")
_MADE_NAME: Final = re.compile(r"-[0-9a-f]{16}$")
_NOT_ARTIFACT: Final = re.compile(r"[^/\w.\- +=@,()\[\]~]")


class LightningNaming(PlainNaming):
    """The names within one experiment."""

    refused = _NOT_ARTIFACT

    def key(self, path: str) -> str:
        """As Naming: the name of a metric, or of an entry of the metadata."""
        return fit_name(path, accepts=_accepts_key, clean=_clean_key, max_length=MAX_KEY)

    def accepts_file(self, path: str) -> bool:
        """As PlainNaming."""
        return super().accepts_file(path) and unicodedata.is_normalized("NFC", path)


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

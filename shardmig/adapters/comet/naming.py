"""Which names Comet accepts, and what the others become.

The vendor's client cuts names of params, metrics and others at 100 characters, and its upload schemas refuse a line
break in them: a metric so named would cost all metrics after it. Names of assets are labels, held to what every disk
takes when they are downloaded; below `shardmig/` lies what is ours.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from posixpath import normpath
from typing import Final

from shardmig.adapters.names import digest_of, fit_name
from shardmig.adapters.sidecar.manifest import OWN_FOLDER
from shardmig.records import Field, Finding

MAX_KEY: Final = 100
MAX_PROJECT: Final = 100
MAX_ASSET: Final = 400
MAX_ASSET_SEGMENT_BYTES: Final = 200

_REFUSED: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_REFUSED_IN_ASSET: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff:*?\"<>|\\]")
_MADE: Final = re.compile(r"~[0-9a-f]{16}$")
_MADE_ASSET: Final = re.compile(r"~[0-9a-f]{16}(\.[^/]*)?$")


class Naming:
    """`sidecar.naming.Naming` of Comet. Pure and injective."""

    def wanted_key(self, path: str) -> str:
        """The field's own path."""
        return path

    def key(self, path: str) -> str:
        """The name of a param or metric."""
        return fit_name(path, accepts=_accepts_key, clean=_clean_key, max_length=MAX_KEY)

    def wanted_artifact(self, path: str) -> str:
        """The asset's own path."""
        return path

    def artifact(self, path: str) -> str:
        """The name of an asset."""
        return path if _accepts_asset(path) else self.unlike_any_other(path, path)

    def unlike_any_other(self, path: str, identity: str) -> str:
        """A name that only `identity` has, with the extension of `path`."""
        extension = PurePosixPath(path).suffix
        stem = _REFUSED_IN_ASSET.sub("_", path.removesuffix(extension)).replace("/", "_").strip(" ._")
        suffix = _REFUSED_IN_ASSET.sub("_", extension)[:16]
        return f"{stem[:60] or '_'}~{digest_of(identity)}{suffix}"

    def is_param(self, field: Field) -> bool:  # noqa: ARG002 (the protocol's)
        """Every scalar is a param."""
        return True

    def findings(self, field: Field) -> list[Finding]:  # noqa: ARG002
        """None."""
        return []


def project_name(wanted: str) -> str:
    """The project's name in Comet: at most 100 characters, no slash, and no two for one."""
    return fit_name(wanted, accepts=_accepts_project, clean=_clean_project, max_length=MAX_PROJECT)


def one_line(text: str) -> str:
    """A text that the vendor's schemas take where they ask for one line."""
    return _REFUSED.sub(" ", text)


def utf8(text: str) -> str:
    """A text that JSON and every database take: NUL and lone surrogates become U+FFFD."""
    return re.sub("[\x00\ud800-\udfff]", "\ufffd", text)


def _accepts_key(name: str) -> bool:
    return 0 < len(name) <= MAX_KEY and name.strip() == name and _REFUSED.search(name) is None


def _clean_key(name: str) -> str:
    return _REFUSED.sub("_", name).strip() or "_"


def _accepts_project(name: str) -> bool:
    return 0 < len(name) <= MAX_PROJECT and name.strip() == name and _clean_project(name) == name


def _clean_project(name: str) -> str:
    return _REFUSED.sub("_", name).replace("/", "-").strip()


def _accepts_asset(path: str) -> bool:
    segments = path.split("/")
    return (
        0 < len(path) <= MAX_ASSET
        and _REFUSED_IN_ASSET.search(path) is None
        and normpath(path) == path
        and not path.startswith(("/", ".."))
        and path != "."
        and segments[0].lower() != OWN_FOLDER
        and _MADE_ASSET.search(path) is None
        and all(len(segment.encode()) <= MAX_ASSET_SEGMENT_BYTES for segment in segments)
        and not any(segment[0] == " " or segment[-1] in " ." for segment in segments)
    )

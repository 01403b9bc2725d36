"""Which names Comet accepts, and what the others become.

The vendor's client cuts names of params, metrics and others at 100 characters, and its upload schemas refuse a line
break in them: a metric so named would cost all metrics after it. Names of assets are labels, held to what every disk
takes when they are downloaded; below `shardmig/` lies what is ours.
"""

from __future__ import annotations

import re
from typing import Final

from shardmig.adapters.names import fit_name
from shardmig.adapters.sidecar.naming import PlainNaming

MAX_KEY: Final = 100
MAX_PROJECT: Final = 100

_REFUSED: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_REFUSED_IN_ASSET: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff:*?\"<>|\\]")


class Naming(PlainNaming):
    """The names of Comet."""

    refused = _REFUSED_IN_ASSET
    refused_at_start = " "
    max_path = 400
    max_stem_bytes = 60

    def key(self, path: str) -> str:
        """As Naming: the name of a param or metric."""
        return fit_name(path, accepts=_accepts_key, clean=_clean_key, max_length=MAX_KEY)


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

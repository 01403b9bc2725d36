"""Where a URI leads on this machine's disk."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit


def on_this_machine(uri: str) -> Path | None:
    """The place of a path or a file URI; None: it leads elsewhere. A path may hold `%`, `#` and `?`: only a URI is quoted."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if parts.scheme else Path(uri)

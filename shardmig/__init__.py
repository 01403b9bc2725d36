"""shardmig moves experiment history between trackers, in parallel, whole, and proves that it arrived."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shardmig.archive.namespace import open_archive

__version__ = "0.1.0"
__all__ = ["__version__", "open_archive"]


def __getattr__(name: str) -> Any:
    """`open_archive` is imported when it is first used: the command line does without arrow for as long as it can."""
    if name != "open_archive":
        raise AttributeError(f"module 'shardmig' has no attribute {name!r}")
    from shardmig.archive.namespace import open_archive

    return open_archive

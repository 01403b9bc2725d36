"""What is asked of a target's names, and what most targets have in common."""

from __future__ import annotations

import posixpath
import re
from abc import ABC, abstractmethod
from pathlib import PurePosixPath
from typing import ClassVar, Final, Protocol

from shardmig.adapters.names import digest_of
from shardmig.records import Field, Finding

OWN_FOLDER: Final = "shardmig"
"""Where a run keeps what shardmig needs; no file of the run itself lies below it."""
MADE: Final = re.compile(r"~[0-9a-f]{16}(\.[^/]*)?$")
"""What the path of a file ends with that could not keep its own."""


class Naming(Protocol):
    """The names of one target. Pure and injective: equal names only for equal fields."""

    def wanted_key(self, path: str) -> str:
        """The key that the field would have if the target took every name."""
        ...

    def key(self, path: str) -> str:
        """The key of a scalar or of a float series."""
        ...

    def wanted_artifact(self, path: str) -> str:
        """The path of a file that wants to be called `path`, if every path were possible."""
        ...

    def artifact(self, path: str) -> str:
        """The path of a file that wants to be called `path`."""
        ...

    def unlike_any_other(self, path: str, identity: str) -> str:
        """A file path that only `identity` has, with the extension of `path`."""
        ...

    def is_param(self, field: Field) -> bool:
        """Is this scalar given to the target as a value under its key? Others are held in the manifest."""
        ...

    def findings(self, field: Field) -> list[Finding]:
        """What becomes of a scalar that is no param."""
        ...


class PlainNaming(ABC):
    """Names of a target in which every scalar is a value, under the field's own path where that is possible. Files keep
    their path where every object store and every disk takes it, else they lie at the top under a name with a digest."""

    refused: ClassVar[re.Pattern[str]]
    """Characters that the path of a file may not hold."""
    refused_at_start: ClassVar[str] = " ~"
    """Characters that no part of a path may begin with; none may end with a space or a dot."""
    max_path: ClassVar[int] = 480
    max_part_bytes: ClassVar[int] = 200
    max_stem_bytes: ClassVar[int] = 120
    """Of the readable part of a made name."""

    @abstractmethod
    def key(self, path: str) -> str:
        """As Naming."""

    def wanted_key(self, path: str) -> str:
        """As Naming."""
        return path

    def wanted_artifact(self, path: str) -> str:
        """As Naming."""
        return path

    def is_param(self, field: Field) -> bool:  # noqa: ARG002 (others have some that are none)
        """As Naming."""
        return True

    def findings(self, field: Field) -> list[Finding]:  # noqa: ARG002
        """As Naming."""
        return []

    def artifact(self, path: str) -> str:
        """As Naming."""
        wanted = self.wanted_artifact(path)
        return wanted if self.accepts_file(wanted) else self.unlike_any_other(path, path)

    def unlike_any_other(self, path: str, identity: str) -> str:
        """As Naming: at the top of the run's files."""
        suffix = PurePosixPath(path).suffix
        extension = self.refused.sub("_", suffix)[:16].lower()
        stem = self.refused.sub("_", path.removesuffix(suffix)).replace("/", "_").strip(" ._")
        cut = stem.encode("utf-8", "replace")[: self.max_stem_bytes].decode("utf-8", "ignore")
        return f"{cut or '_'}~{digest_of(identity)}{extension}"

    def accepts_file(self, path: str) -> bool:
        """May a file keep this path?"""
        parts = path.split("/")
        return (
            0 < len(path) <= self.max_path
            and self.refused.search(path) is None
            and is_normal(path)
            and parts[0].lower() != OWN_FOLDER
            and MADE.search(path) is None
            and all(len(part.encode()) <= self.max_part_bytes for part in parts)
            and not any(part[0] in self.refused_at_start or part[-1] in " ." for part in parts)
        )


def is_normal(path: str) -> bool:
    """Would this name, taken as a path, lead to itself?"""
    return posixpath.normpath(path) == path and path != "." and not path.startswith(("..", "/"))

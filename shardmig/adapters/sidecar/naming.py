"""What is asked of a target's names."""

from __future__ import annotations

from typing import Protocol

from shardmig.records import Field, Finding


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

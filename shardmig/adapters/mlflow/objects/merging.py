"""What becomes of an object that is there already, when more of it comes: pure.

Was the copy left alone since it was written, its fields become those of the source. Did somebody change it, what differs
is kept as it is here and told; only what is missing is added. The tag CONTENT remembers what was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Final

from shardmig.adapters.mlflow.merging import conflict
from shardmig.adapters.mlflow.objects.base import ObjectClass, Stored
from shardmig.adapters.mlflow.objects.changes import TAG, Change, decode, encode, restored
from shardmig.records import Field, FieldType, Finding

CONTENT: Final = "shardmig.content"

_Key = tuple[str, FieldType]


class ObjectMerge:
    """One object here, and what is brought to it. `fields`: what it is to be; `conflicts`: what was kept."""

    def __init__(self, kind: ObjectClass, stored: Stored, brought: Iterable[Field]) -> None:
        self.stored = stored
        known = decode(stored.tags, stored.name)
        self._told = {(change.path, change.type) for change in known}
        held = restored(kind.fields(stored), known, kind.is_volatile)
        wanted = {(field.path, field.type): field for field in brought}
        self.is_untouched = stored.tags.get(CONTENT) == content_of(held, kind.is_volatile)
        self.conflicts: list[Finding] = []
        self._others: set[_Key] = set()
        if not self.is_untouched:
            for field in held:
                self._keep(field, wanted, kind)
        self.fields = sorted(wanted.values(), key=lambda field: (field.path, field.type))

    def changes(self, found: list[Change]) -> list[Change]:
        """Those to remember: not what somebody else added here."""
        return [change for change in found if (change.path, change.type) not in self._others]

    def new(self, found: list[Change]) -> list[Change]:
        """Those that were not told when the object was brought."""
        return [change for change in found if (change.path, change.type) not in self._told]

    def tags(self, found: list[Change]) -> dict[str, str]:
        """As `changes.encode`; pieces that were there before and are none any more are blank."""
        pieces = encode(found)
        return {key: " " for key in self.stored.tags if key.startswith(TAG)} | pieces

    def _keep(self, here: Field, wanted: dict[_Key, Field], kind: ObjectClass) -> None:
        key = (here.path, here.type)
        if kind.is_volatile(here.path) or kind.is_own(here.path):
            return
        there = wanted.get(key)
        if there is None:
            self._others.add(key)
        elif there.value != here.value:
            self.conflicts.append(conflict(here.path, _short(here), _short(there)))
        wanted[key] = here


def content_of(fields: Iterable[Field], is_volatile: Callable[[str], bool]) -> str:
    """A digest of fields, but of those that MLflow changes by itself."""
    told = sorted(
        (field.path, field.type, repr(sorted(field.value) if isinstance(field.value, list) else field.value))
        for field in fields
        if not is_volatile(field.path)
    )
    return blake2b(repr(told).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _short(field: Field) -> str:
    text = repr(field.value)
    return text if len(text) <= 60 else f"{text[:59]}…"

"""What becomes of an object that is there already, when more of it comes.

Was the copy left alone since it was written, its fields become those of the source. Did somebody change it, what differs
is kept as it is here and told; only what is missing is added. The tag CONTENT remembers what was written, BEYOND what was
written that is no field. A merge that was cut half way is gone on with: MERGING says that it was one into a copy that had
been left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Final

from shardmig.adapters.mlflow.merging import conflict
from shardmig.adapters.mlflow.objects.base import ObjectClass, Stored
from shardmig.adapters.mlflow.objects.changes import TAG, Change, decode, encode, restored
from shardmig.adapters.sidecar.provenance import DIGEST
from shardmig.records import Field, FieldType, Finding

CONTENT: Final = "shardmig.content"
BEYOND: Final = "shardmig.beyond"
MERGING: Final = "shardmig.merging"
TAKEN: Final = "version-number-taken"
"""Code of a part that was not brought, because another one has its place here."""

_Key = tuple[str, FieldType]


class ObjectMerge:
    """One object here, and what is brought to it. `fields`: what it is to be; `conflicts`: what was kept. `is_untouched`: did
    nobody change its fields? `is_left_alone`: nor what it holds beyond them?"""

    def __init__(self, kind: ObjectClass, stored: Stored, brought: Iterable[Field]) -> None:
        self.stored = stored
        known = decode(stored.tags, stored.name)
        self._told = {(change.path, change.type) for change in known}
        self._held = held = restored(kind.fields(stored), known, kind.is_volatile)
        wanted = {(field.path, field.type): field for field in brought}
        self._is_begun = bool(stored.tags.get(MERGING, "").strip())
        self.is_untouched = self._is_begun or stored.tags.get(CONTENT) == content_of(held, kind.is_volatile)
        is_as_written = self.is_untouched and stored.tags.get(BEYOND, "") == stored.beyond
        self.is_left_alone = self._is_begun or is_as_written
        self.conflicts: list[Finding] = []
        self._others: set[_Key] = set()
        if not self.is_untouched:
            for field in held:
                self._keep(field, wanted, kind)
        self.fields = sorted(wanted.values(), key=lambda field: (field.path, field.type))

    def begin(self, kind: ObjectClass, digest: str) -> None:
        """Mark a copy that nobody changed: what is there until the end of the merge is the merge's own doing."""
        if self.is_untouched and not self._is_begun:
            kind.tag(self.stored, {MERGING: digest})
            self._is_begun = True

    def end_tags(self, made_of: Mapping[str, str], *, is_whole: bool) -> dict[str, str]:
        """The last tags, from what came; in this order none is missed by who is cut between them."""
        is_as_brought = is_whole and not self.conflicts
        content = {CONTENT: made_of[CONTENT]} if is_as_brought or self.is_untouched else {}
        ended = {MERGING: " "} if self._is_begun else {}
        return content | ended | ({DIGEST: made_of[DIGEST]} if is_as_brought else {})

    def outcome(self, findings: Iterable[Finding]) -> list[Field]:
        """What it is to be after all: a part whose place another one has is what it was here, not what came."""
        taken = tuple(f"{finding.field}/" for finding in findings if finding.code == TAKEN)
        brought = [field for field in self.fields if not f"{field.path}/".startswith(taken)]
        return brought + [field for field in self._held if f"{field.path}/".startswith(taken)]

    def changes(self, found: list[Change]) -> list[Change]:
        """Those to remember: not what somebody else added here."""
        return [change for change in found if (change.path, change.type) not in self._others]

    def new(self, found: list[Change]) -> list[Change]:
        """Those that were not told when the object was brought."""
        return [change for change in found if (change.path, change.type) not in self._told]

    def tags(self, found: list[Change]) -> dict[str, str]:
        """As `changes.encode`; pieces that were there before and are none any more are blank."""
        pieces = encode(found, self.stored.tags)
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

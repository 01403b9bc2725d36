"""What becomes of an object that is there already, when more of it comes.

Was the copy left alone since it was written, its fields become those of the source. Did somebody change it, what differs
is kept as it is here and told; only what is missing is added. The tag CONTENT remembers what was written, BEYOND what was
written that is no field. A merge that was cut half way is gone on with: MERGING says that it was one into a copy that had
been left alone. What is here beyond what came (a version that was not chosen this time, a tag that was removed in the source) is
remembered as left: `verify` passes over it, and a copy from here has it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Final

from shardmig.adapters.mlflow.merging import conflict
from shardmig.adapters.mlflow.objects.base import TAGS, ObjectClass, Stored
from shardmig.adapters.mlflow.objects.changes import Change, changes, decode, part_of, restored
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
    nobody change its fields? `is_left_alone`: nor what it holds beyond them? `is_to_be_made_anew`: would nothing be lost by that?"""

    def __init__(self, kind: ObjectClass, stored: Stored, brought: Iterable[Field]) -> None:
        self.stored = stored
        self._kind = kind
        known, here = decode(stored.tags, stored.name), list(kind.fields(stored))
        self._told = {(change.path, change.type) for change in known}
        self._was_left = {(change.path, change.type) for change in known if change.is_left}
        self._held = held = restored(here, known, kind.is_volatile)
        came = restored(here, known, kind.is_volatile, is_all=False)
        wanted = {(field.path, field.type): field for field in brought}
        self._is_begun = bool(stored.tags.get(MERGING, "").strip())
        self.is_untouched = self._is_begun or stored.tags.get(CONTENT) == content_of(came, kind.is_volatile)
        is_as_written = self.is_untouched and stored.tags.get(BEYOND, "") == stored.beyond
        self.is_left_alone = self._is_begun or is_as_written
        self.is_to_be_made_anew = self.is_left_alone and not self._was_left
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

    def changes(self, wanted: Iterable[Field], stored: Stored) -> list[Change]:
        """Those to remember of what is `stored` in the end."""
        held, wanted = list(self._kind.fields(stored)), list(wanted)
        here = {(field.path, field.type): field.value for field in held}
        found = changes(wanted, held, self._kind.is_volatile)
        known = {(one.path, one.type): one for one in found if (one.path, one.type) not in self._others}
        for field in self._left({(field.path, field.type) for field in wanted} - self._others, here.keys()):
            key = (field.path, field.type)
            known.pop(key, None)
            is_left = self.is_untouched or key in self._was_left
            if is_left or here.get(key) != field.value:
                known[key] = Change(*key, field.value, here.get(key), is_left)
        return [known[key] for key in sorted(known)]

    def _left(self, brought: Collection[_Key], here: Collection[_Key]) -> Iterator[Field]:
        """What it had and did not come, as far as it is still here. What MLflow sets by itself belongs to what it is a part of."""
        parts = {part_of(path) for path, _ in brought}
        parts_here = {part_of(path) for path, _ in here}
        for field in self._held:
            key, part = (field.path, field.type), part_of(field.path)
            if key in brought:
                continue
            is_set_by_mlflow = self._kind.is_volatile(field.path) or self._kind.is_own(field.path)
            if (key in here and not is_set_by_mlflow) if part in parts else part in parts_here:
                yield field

    def new(self, found: list[Change]) -> list[Change]:
        """Those that were not told when the object was brought."""
        return [one for one in found if not one.is_left and (one.path, one.type) not in self._told]

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


def made(kind: ObjectClass, wanted: Iterable[Field], stored: Stored) -> list[Change]:
    """The changes to remember of an object that was made. An experiment may have been somebody's: its other tags are left."""
    found = changes(wanted, kind.fields(stored), kind.is_volatile)
    if kind.scope != "experiments":
        return found
    return [
        Change(one.path, one.type, one.given, one.given, is_left=True)
        if one.value is None and one.path.startswith(TAGS)
        else one
        for one in found
    ]


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

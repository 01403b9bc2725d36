"""Experiments that several copies share: where in its tags each of them has its notes.

Two sources have experiments of one name, as they all have `Default`, and `--experiment-rename-file` makes two of one source
one: their runs go into one experiment. Whoever is first has its notes where every copy has them, in tags `shardmig.*`; any
other has them in tags `shardmig.also.<its key>-<when it was created>.*`, and sees them as its own. A tag that only another
copy brought it does not see.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from shardmig.adapters.mlflow.facts import PROVENANCE
from shardmig.adapters.mlflow.objects.references import References, creation_of
from shardmig.adapters.sidecar import provenance
from shardmig.records import MigrationKey

ALSO: Final = f"{PROVENANCE}also."
BROUGHT: Final = f"{PROVENANCE}tags"
"""Tag: the names of the tags that a copy brought, as JSON; none where they are too many."""
_END: Final = f".{BROUGHT.removeprefix(PROVENANCE)}"
_CHARACTERS: Final = 4900
"""MLflow takes 5000."""


def brought(names: Iterable[str]) -> dict[str, str]:
    """The note of which tags a copy brought."""
    text = json.dumps(sorted(names))
    return {BROUGHT: text} if len(text) <= _CHARACTERS else {BROUGHT: "null"}


class Place:
    """Where one copy has its notes among the tags of an experiment of MLflow's. `key`: of the copy; None: it has none yet."""

    def __init__(self, references: References, experiment: Any, key: str | None) -> None:
        self._tags: dict[str, str] = experiment.tags
        tags, name = self._tags, experiment.name
        self.is_alone = not any(tag.startswith(ALSO) for tag in tags)
        self._prefix = PROVENANCE
        first = tags.get(provenance.KEY)
        if not first or not key:
            return
        is_meant = first == key and references.is_meant(
            MigrationKey(key), creation_of(tags, name, experiment.creation_time)
        )
        if not is_meant:
            meant = references.expected(MigrationKey(key))
            self._prefix = f"{ALSO}{key}-{(meant.created_ms if meant else None) or 0}."
            self.is_alone = False

    def seen(self) -> dict[str, str]:
        """The tags as this copy sees them: its own notes, and no others."""
        hidden = self._of_others()
        own = {tag: text for tag, text in self._tags.items() if not tag.startswith(PROVENANCE) and tag not in hidden}
        return own | {PROVENANCE + tag.removeprefix(self._prefix): self._tags[tag] for tag in self._notes()}

    def put(self, tags: Mapping[str, str]) -> dict[str, str]:
        """Tags as they are set here."""
        return {self._tag(tag): text for tag, text in tags.items()}

    def cleared(self, kept: Iterable[str]) -> list[str]:
        """The tags that go when this is no copy any more. `kept`: notes that stay."""
        staying = set(map(self._tag, kept))
        return [tag for tag in self._notes() if tag not in staying]

    def _of_others(self) -> set[str]:
        ours = json.loads(self._tags.get(self._tag(BROUGHT), "[]" if self._prefix != PROVENANCE else "null"))
        if ours is None:
            return set()
        notes = [
            text for tag, text in self._tags.items() if tag == BROUGHT or (tag.startswith(ALSO) and tag.endswith(_END))
        ]
        return {name for text in notes for name in json.loads(text) or ()} - set(ours)

    def _notes(self) -> list[str]:
        is_first = self._prefix == PROVENANCE
        return [tag for tag in self._tags if tag.startswith(self._prefix) and not (is_first and tag.startswith(ALSO))]

    def _tag(self, tag: str) -> str:
        return self._prefix + tag.removeprefix(PROVENANCE) if tag.startswith(PROVENANCE) else tag

"""What a server may have cut of a trace in its answer: it cuts tags and metadata (measured, 3.17.2), and does not say so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from shardmig.adapters.mlflow.facts import PROVENANCE
from shardmig.records import Finding

TAG_CHARACTERS: Final = 4096
METADATA_CHARACTERS: Final = 250


def cuts(folder: str, texts: Mapping[str, str], characters: int) -> Iterator[Finding]:
    """Texts that are as long as the longest that a server tells."""
    detail = f"it has {characters} characters, and a server tells no more: read the database itself to have all of it"
    for key, text in sorted(texts.items()):
        if len(text) == characters and not key.startswith(PROVENANCE):
            yield Finding("gap", "may-be-cut", folder + key, detail=detail)

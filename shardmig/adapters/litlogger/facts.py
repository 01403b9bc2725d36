"""The facts of a run where Lightning has a place for them: phase, teamspace, name, and metadata of our own.

phase: FAILED if the run failed, RUNNING if it was still active, else COMPLETED. Times of a run cannot be set: they are in
the metadata as every other scalar, under their own field names.
"""

from __future__ import annotations

from typing import Final

import msgspec

from shardmig.adapters.litlogger.answers import Stream, Tag
from shardmig.adapters.run_facts import RunFacts, Status
from shardmig.adapters.sidecar import provenance
from shardmig.records import TargetRunId

PARENT: Final = "shardmig.parent"
OWN_TAGS: Final = frozenset(
    {
        provenance.KEY,
        provenance.STATE,
        provenance.DIGEST,
        provenance.INTENT,
        provenance.SOURCE,
        provenance.PROJECT,
        provenance.RUN_ID,
        provenance.SCOPE,
        provenance.STEP_MULTIPLIER,
        provenance.VERSION,
        PARENT,
    }
)

_PHASES: Final[dict[Status, str]] = {"RUNNING": "RUNNING", "FINISHED": "COMPLETED", "FAILED": "FAILED"}


def phase_of(run: RunFacts) -> str:
    """The experiment's phase."""
    return _PHASES[run.outcome]


def expected_facts(run: RunFacts, name: str, teamspace: str, parent: TargetRunId | None) -> dict[str, str]:
    """`WriteSide.expected_facts`."""
    facts = {"status": phase_of(run), "name": name, "teamspace": teamspace, "parent": parent or ""}
    return {fact: value for fact, value in facts.items() if value}


def held_facts(stream: Stream, teamspace: str) -> dict[str, str]:
    """`WriteSide.read_facts`."""
    parent = stream.metadata.get(PARENT, "")
    facts = {"status": stream.phase, "name": stream.name, "teamspace": teamspace, "parent": parent}
    return {fact: value for fact, value in facts.items() if value}


def with_parent(stream: Stream, parent: TargetRunId | None) -> Stream:
    """A stream that names this parent, whatever it named when it was made."""
    others = [tag for tag in stream.tags if tag.name != PARENT]
    return msgspec.structs.replace(stream, tags=[*others, Tag(PARENT, parent)] if parent else others)


def is_complete(stream: Stream) -> bool:
    """Was it loaded to its end?"""
    return stream.metadata.get(provenance.STATE) == provenance.COMPLETE


def was_brought(stream: Stream) -> bool:
    """Did shardmig write it?"""
    held = stream.metadata
    return all(held.get(tag) for tag in (provenance.KEY, provenance.STATE, provenance.PROJECT, provenance.RUN_ID))

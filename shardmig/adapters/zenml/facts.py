"""The facts of a run (its `sys/*` fields, see `run_facts`) in the places where ZenML has its own for them.

    ZenML                        from
    name of the model version    sys/custom_run_id, else the run id
    description                  sys/description
    tags                         sys/tags and sys/group_tags
    metadata `run`               status, start_time, end_time, owner, experiment, parent (the model version it was forked
                                 from), fork_parent and fork_step
    metadata `shardmig`          where the run came from, and how it was written

Every fact is among the metadata `fields` as well, under its own name, exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from shardmig import __version__
from shardmig.adapters.run_facts import RunFacts
from shardmig.adapters.zenml.entities import Version
from shardmig.adapters.zenml.naming import Naming, second_name
from shardmig.records import Finding, Header, MigrationKey, TargetRunId

RUN: Final = "run"
FIELDS: Final = "fields"
SERIES: Final = "series"
SHARDMIG: Final = "shardmig"
OWN_KEYS: Final = frozenset({RUN, FIELDS, SERIES, SHARDMIG})
"""The metadata that shardmig writes."""

KEY: Final = "key"
DIGEST: Final = "digest"
VERSION: Final = "model_version"
NAME: Final = "name"
SERIES_COUNT: Final = "float_series"
PARENT: Final = "parent"
MAX_DESCRIPTION: Final = 16_000
"""Characters that ZenML's database has room for, whatever they are."""

_REFUSED: Final = re.compile("[\x00\ud800-\udfff]")
_TEXTS: Final = ("status", "owner", "experiment", PARENT, "fork_parent", "fork_step")
_TIMES: Final = ("start_time", "end_time")


def description_of(facts: RunFacts) -> str:
    """The description of the model version."""
    return _REFUSED.sub("\ufffd", facts.text("sys/description"))[:MAX_DESCRIPTION]


def tags_of(facts: RunFacts, naming: Naming) -> list[str]:
    """The tags of the model version, sorted."""
    return sorted({naming.tag(tag) for tag in _wanted_tags(facts)})


def findings(facts: RunFacts, naming: Naming, wanted_model: str) -> Iterator[Finding]:
    """What is called otherwise in ZenML."""
    if (model := naming.name(wanted_model)) != wanted_model:
        yield Finding("note", "model-name-changed", detail=f"ZenML has {model!r}")
    if (version := naming.version(facts.wanted_name)) != facts.wanted_name:
        yield Finding("note", "run-name-changed", detail=f"ZenML has {version!r}")
    for tag in sorted(_wanted_tags(facts)):
        if naming.tag(tag) != tag:
            yield Finding("note", "tag-changed", detail=f"{tag[:100]!r} is {naming.tag(tag)!r}")


def run_metadata(facts: RunFacts, parent: TargetRunId | None, last_point_ms: int | None) -> dict[str, Any]:
    """The metadata `run`. Times are ISO 8601 with milliseconds."""
    end_ms = facts.ended_ms(last_point_ms)
    shown = {
        "status": facts.outcome,
        "start_time": _iso(facts.start_ms),
        "end_time": "" if end_ms is None else _iso(end_ms),
        "owner": facts.text("sys/owner"),
        "experiment": facts.sys_name,
        PARENT: parent or "",
        "fork_parent": facts.text("sys/forking/parent"),
        "fork_step": facts.text("sys/forking/step"),
    }
    return {name: text[:1000] for name, text in shown.items() if text}


def provenance(key: MigrationKey, digest: str, header: Header) -> dict[str, Any]:
    """The part of the metadata `shardmig` that is known before anything is written."""
    run = header.run
    return {
        KEY: key,
        DIGEST: digest,
        "project": run.project,
        "run_id": run.id,
        "scope": run.scope,
        "created_ms": run.created_ms,
        "archived": run.archived,
        PARENT: run.parent,
        "parent_project": run.parent_project,
        "source": " ".join(filter(None, (header.source, header.source_version))),
        "shardmig_version": __version__,
    }


def expected_facts(
    facts: RunFacts, naming: Naming, model: str, parent: TargetRunId | None, last_point_ms: int | None
) -> dict[str, str]:
    """`WriteSide.expected_facts`."""
    shown = run_metadata(facts, parent, last_point_ms)
    expected = {
        "name": naming.version(facts.wanted_name),
        "model": model,
        "description": description_of(facts),
        **_of_metadata(shown),
        **{f"tag:{tag}": tag for tag in tags_of(facts, naming)},
    }
    return {name: text for name, text in expected.items() if text}


def held_facts(version: Version, key: MigrationKey) -> dict[str, str]:
    """`WriteSide.read_facts`. A name that another run had already is the name that was wanted."""
    wanted = str(version.metadata.get(SHARDMIG, {}).get(NAME, version.name))
    held = {
        "name": wanted if version.name == second_name(wanted, key) else version.name,
        "model": version.model,
        "description": version.description,
        **_of_metadata(version.metadata.get(RUN, {})),
        **{f"tag:{tag}": tag for tag in version.tags},
    }
    return {name: text for name, text in held.items() if text}


def _of_metadata(shown: dict[str, Any]) -> dict[str, str]:
    texts = {name: str(shown[name]) for name in _TEXTS if name in shown}
    times = {name: _ms(str(shown[name])) for name in _TIMES if name in shown}
    return {{"owner": "user"}.get(name, name): text for name, text in (texts | times).items()}


def _wanted_tags(facts: RunFacts) -> set[str]:
    return {*facts.texts("sys/tags"), *facts.texts("sys/group_tags")}


def _iso(time_ms: int) -> str:
    return f"{np.int64(time_ms).astype('datetime64[ms]')}Z"


def _ms(text: str) -> str:
    """Epoch milliseconds; the text itself where somebody wrote something else there."""
    try:
        return str(int(np.datetime64(text.removesuffix("Z"), "ms").astype(np.int64)))
    except ValueError:
        return text

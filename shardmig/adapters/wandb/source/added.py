"""What people added to a run that shardmig brought, or changed of it. The run's manifest knows none of it.

    W&B                                    field
    config                                 its own key; nested keys joined with slashes
    history                                its own key; nested keys joined with dots. (Numbers on a server are read with the
                                           run's own)
    summary, system metrics, console,      as of W&B's own: summary/<key>, system/<key>, console/<stream>, files/<path>,
    run files, artifacts                   artifacts/<name>
    name, group, notes, state, job type,   sys/wandb/name, group, notes, state, job_type, host, sweep, where they are not
    host, sweep                            what the run was brought with
    tags                                   sys/wandb/added_tags
    artifacts that it read                 sys/wandb/used_artifacts
    commit, remote                         source_code/commit/commit_id, source_code/remote/origin
    client's own config                    sys/wandb/config, once a client had executed the run

Where the run has a field of that name, it has ` (2)` behind it. Steps are those of W&B divided by the step multiplier.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from shardmig import steps as step_arithmetic
from shardmig.adapters.base import Want
from shardmig.adapters.names import unlike
from shardmig.adapters.wandb.fit import MAX_TEXT
from shardmig.adapters.wandb.history import TIME
from shardmig.adapters.wandb.source.foreign import Artifact, ForeignRun, RunInfo
from shardmig.adapters.wandb.source.native import ARTIFACTS, CONSOLE, OWN, OWN_SUMMARY, SUMMARY, SYSTEM, Fielder
from shardmig.adapters.wandb.source.options import SourceOptions
from shardmig.adapters.wandb.source.own import Own
from shardmig.adapters.wandb.source.reading import Reading
from shardmig.records import Chunk, Field, Fields, Files, Finding, Points, RunRef, Steps


class Added(Reading):
    """Reads that alone. `others`: the run without what is `own`."""

    def __init__(
        self, run: RunRef, others: ForeignRun, own: Own, want: Want, options: SourceOptions, staging: Path
    ) -> None:
        super().__init__(run, others, want, options, staging)
        self._own = own
        self._taken: set[str] = set()
        self._names: dict[tuple[str, bool], str] = {}
        self._counted: set[str] = set()

    def learn(self, chunk: Chunk) -> None:
        """Some of the run itself: which fields it has."""
        self._own.learn(chunk)
        if isinstance(chunk, Fields):
            self._taken |= {field.path for field in chunk.fields}
        elif isinstance(chunk, Files):
            self._taken |= {ref.path for ref in chunk.files}
        elif isinstance(chunk, Points):
            self._taken |= set(chunk.paths)

    def scalars(self, artifacts: Iterable[Artifact]) -> tuple[list[Field], list[Finding]]:
        """As Reading."""
        fielder = _Fielder(self._taken)
        config = self._foreign.config()
        client = config.pop("_wandb", None)
        summary = {key: value for key, value in self._foreign.summary().items() if key not in OWN_SUMMARY}
        info = self._foreign.info()
        fields = [*fielder.values("", config), *fielder.values(SUMMARY, summary), *self._facts(info)]
        if isinstance(client, dict) and (client.get("e") or client.get("m")):  # `wandb sync` leaves neither
            fields.append(Field(self.named(f"{OWN}config"), "string", json.dumps(client)))
        fields += [Field(self.named(ARTIFACTS + one.name), "string", json.dumps(one.facts)) for one in artifacts]
        return fields, [*fielder.findings, *self._gone(info)]

    def named(self, field: str) -> str:
        """As Reading."""
        made = self._named(field, is_key=False)
        if field.startswith((SYSTEM, CONSOLE)):
            self._counted.add(made)
        return made

    def series(self, key: str) -> str:
        """As Reading."""
        return self._named(key, is_key=True)

    def steps(self, path: str, steps: Steps) -> Steps:
        """As Reading: those of the run's own axis; measurements and printed lines are counted."""
        return steps if path in self._counted else step_arithmetic.divide(steps.units, self._own.multiplier)

    def read_history(self) -> None:
        """As Reading; and what was met when the run's own was read."""
        met = self._own.met
        for key in met.keys():  # noqa: SIM118 (no mapping)
            for entry in met.entries(key):
                if not self._own.shows(key, entry.step, entry.text):
                    self.take(entry.step, entry.time_ms, key, entry.text)
        for key, number in met.inexact:
            if key == TIME:
                self.take_inexact(key, number)
            else:
                self._tally["int-to-float", self._own.series_of(key)] += number
        super().read_history()

    def _named(self, name: str, *, is_key: bool) -> str:
        if (name, is_key) not in self._names:
            self._names[name, is_key] = made = unlike(name, self._taken)
            self._taken.add(made)
        return self._names[name, is_key]

    def _facts(self, info: RunInfo) -> Iterator[Field]:
        """What W&B says of the run otherwise than shardmig told it."""
        texts = {OWN + name: now for name, now, before in self._told(info) if now != before}
        texts |= {"source_code/commit/commit_id": info.commit, "source_code/remote/origin": info.remote}
        yield from (Field(self.named(path), "string", text) for path, text in texts.items() if text)
        sets = {"added_tags": set(info.tags) - set(self._own.facts.tags), "used_artifacts": set(info.used)}
        yield from (Field(self.named(OWN + name), "string_set", sorted(texts)) for name, texts in sets.items() if texts)

    def _gone(self, info: RunInfo) -> Iterator[Finding]:
        """What shardmig told W&B and people removed. Of what W&B says of the run itself, its fields are there still."""
        for entry in self._own.gone:
            if self._matcher.wants_field(entry.path, entry.type):
                yield Finding("gap", "content-changed", entry.path, detail="removed from the config in W&B")
        for name, now, before in self._told(info):
            if before and not now:
                yield Finding("gap", "content-changed", OWN + name, detail=f"removed in W&B: {before[:100]!r}")
        if gone := sorted(set(self._own.facts.tags) - set(info.tags)):
            yield Finding("gap", "content-changed", "sys/tags", len(gone), detail=f"removed in W&B: {', '.join(gone)}")

    def _told(self, info: RunInfo) -> Iterator[tuple[str, str, str]]:
        """Name of a fact, what it is, and what it was."""
        facts = self._own.facts
        yield "name", info.name, facts.name
        yield "group", info.group, facts.group
        # A very long description is cut in the config.
        is_as_told = info.notes[:MAX_TEXT] == facts.notes[:MAX_TEXT]
        yield "notes", info.notes, info.notes if is_as_told else facts.notes
        yield "state", info.state, facts.state
        yield "job_type", info.job_type, self._own.job_type or ""
        yield "host", info.host, facts.host if info.host else ""
        yield "sweep", info.sweep, ""


class _Fielder(Fielder):
    """Names as those of what else was added."""

    def apart(self, path: str, identity: str) -> str:  # noqa: ARG002 (a number tells them apart)
        """As Fielder."""
        return unlike(path, self._taken)

"""The Comet target: finding, writing, discarding and reading runs, in offline archives or on a server."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import msgspec

from shardmig.adapters.base import Capabilities, FileSink, FileStore, Fitted, Want, Written
from shardmig.adapters.comet import facts
from shardmig.adapters.comet.experiment import KEY_PREFIX, Experiment, Mark
from shardmig.adapters.comet.facts import RunFacts, other_value
from shardmig.adapters.comet.fit import CometRules
from shardmig.adapters.comet.messages import Brought, ExperimentFile
from shardmig.adapters.comet.naming import MAX_KEY, Naming
from shardmig.adapters.comet.options import REQUESTS_PER_S, CometOptions
from shardmig.adapters.comet.run import AssetsOfRun, FilesOfRun, RunInArchives, looking_ahead
from shardmig.adapters.comet.writer import ArchiveWriter
from shardmig.adapters.sidecar import provenance
from shardmig.adapters.sidecar.reading import HeldRun, RunReader
from shardmig.adapters.sidecar.uploads import Uploads
from shardmig.adapters.sidecar.writing import RunContent, leading_fields
from shardmig.adapters.staging import staging_folder
from shardmig.errors import TargetConflict, about_run
from shardmig.records import (
    Chunk,
    Field,
    Fields,
    Finding,
    Header,
    LoadOptions,
    MigrationKey,
    Piece,
    RunRef,
    TargetRun,
    TargetRunId,
)

CAPABILITIES: Final = Capabilities(
    name="comet",
    step_type="int64",
    holds_nan=True,
    holds_infinity=True,
    keeps_point_times=True,
    keeps_run_times=True,
    replay_is_idempotent=False,
    max_key_length=MAX_KEY,
    requests_per_s=REQUESTS_PER_S,
)
_DIGITS: Final = 32
_UPLOADERS: Final = 1
"""Into an archive goes one file after the other."""


class Place(Protocol):
    """Where runs are kept: a folder of offline archives, or a server.

    `marks_afterwards`: what is kept there may be less than what was given, so a run is marked complete only once it was
    read back.
    """

    marks_afterwards: bool

    def staging(self, key: str) -> AbstractContextManager[Path]:
        """An empty folder for the archives of one run, gone at the end."""
        ...

    def find(self, key: str) -> Mark | None:
        """What shardmig noted with the experiment of that key; None: it is not there, or not of shardmig."""
        ...

    def open(self, key: str) -> Experiment:
        """The experiment of that key. Raises NotFound."""
        ...

    def whole(self, experiment: Experiment, staging: Path) -> HeldRun:
        """The experiment with all of its points, where the place shows fewer. `staging`: a folder."""
        ...

    def keep(self, key: str, archives: Sequence[Path], *, replaces: bool) -> list[Finding]:
        """Bring finished archives there; what is not as it was given. A run that is there already is replaced. `replaces`: is
        it whole?"""
        ...

    def add_others(self, key: str, others: Mapping[str, str]) -> None:
        """Set facts of an experiment that is there."""
        ...

    def discard(self, key: str) -> None:
        """Remove an experiment; idempotent."""
        ...

    def url(self, key: str) -> str:
        """Where people find it."""
        ...

    def close(self) -> None:
        """Release everything; idempotent."""
        ...


class _Asked(NamedTuple):
    """What is to be written, but its content. `replaces`: is a whole run of other content there?"""

    key: MigrationKey
    digest: str
    header: Header
    facts: RunFacts
    parent: TargetRunId | None
    replaces: bool


class CometTarget:
    """WriteSide of Comet, over any place."""

    def __init__(self, open_place: Callable[[], Place], options: CometOptions, load: LoadOptions) -> None:
        self.caps = msgspec.structs.replace(CAPABILITIES, requests_per_s=options.requests_per_s or None)
        self._open_place = open_place
        self._options = options
        self._load = load
        self._rules = CometRules(load, Naming())

    @cached_property
    def _place(self) -> Place:
        return self._open_place()

    def fit(self, chunk: Chunk) -> Fitted:
        """As WriteSide; see `fit`."""
        if isinstance(chunk, Header):
            self._rules = CometRules(self._load, Naming())
        return self._rules.fit(chunk)

    def find_run(self, key: MigrationKey) -> TargetRun | None:
        """As WriteSide."""
        if not key.isalnum() or not key.isascii():
            return None
        held = TargetRunId(experiment_key(key))
        mark = self._place.find(held)
        if mark is None or mark.key != key:
            return None
        return TargetRun(held, key, "complete" if mark.is_complete else "partial", mark.digest, self._place.url(held))

    def write_run(
        self, key: MigrationKey, digest: str, chunks: Iterator[Chunk], files: FileStore, parent: TargetRunId | None
    ) -> Written:
        """As WriteSide. A partial run is replaced as a whole."""
        header, fields, rest = leading_fields(chunks)
        run_facts = RunFacts(header.run, self._options)
        run_facts.learn(fields)
        with about_run(header.run.label):
            found = self.find_run(key)
            whole = found if found is not None and found.state == "complete" else None
            if whole is not None:
                if whole.digest == digest:
                    self._link(whole, parent)
                    return Written(whole.id, [], url=whole.url)
                if self._load.on_existing != "replace":
                    raise TargetConflict(
                        f"Comet holds this run as {whole.id}, whole but with other content",
                        hint="--on-existing replace writes it anew",
                    )
            content = itertools.chain([Fields(fields)] if fields else [], rest)
            return self._write(
                _Asked(key, digest, header, run_facts, parent, replaces=whole is not None), content, files
            )

    def discard_run(self, run: TargetRun) -> None:
        """As WriteSide."""
        self._place.discard(run.id)

    def read_run(self, run: TargetRun, want: Want, files: FileSink) -> Iterator[Piece]:
        """As WriteSide."""
        experiment = self._place.open(run.id)
        with closing(experiment), staging_folder() as staging:
            whole = self._place.whole(experiment, staging)
            yield from RunReader(whole, experiment, want, staging, self._rules).pieces(files)

    def expected_facts(
        self, run: RunRef, fields: Iterable[Field], parent: TargetRunId | None, last_point_ms: int | None
    ) -> dict[str, str]:
        """As WriteSide."""
        run_facts = RunFacts(run, self._options)
        run_facts.learn(fields)
        return facts.expected_facts(run_facts, parent, last_point_ms)

    def read_facts(self, run: TargetRun) -> dict[str, str]:
        """As WriteSide."""
        experiment = self._place.open(run.id)
        with closing(experiment):
            return facts.held_facts(experiment.about(), names_workspace=bool(self._options.workspace))

    def close(self) -> None:
        """As WriteSide."""
        if "_place" in self.__dict__:
            self._place.close()

    def _write(self, asked: _Asked, chunks: Iterator[Chunk], files: FileStore) -> Written:
        held = TargetRunId(experiment_key(asked.key))
        file = ExperimentFile(
            offline_id=held,
            workspace=asked.facts.workspace or None,
            project_name=asked.facts.project,
            start_time=asked.facts.start_ms,
            stop_time=asked.facts.start_ms,
            resume_strategy="get_or_create",
            user_provided_experiment_key=True,
        )
        with self._place.staging(held) as staging:
            archives = ArchiveWriter(staging, file, points_per_archive=self._options.points_per_upload)
            with closing(archives):
                content = self._fill(archives, file, staging, asked, chunks, files)
                state = provenance.COMPLETE if content.is_whole else provenance.LOADING
                first = provenance.LOADING if self._place.marks_afterwards else state
                archives.add_others(asked.facts.others(asked.parent) | self._provenance(asked, first))
                kept = self._place.keep(held, archives.finish(), replaces=asked.replaces)
        if first != state:
            self._place.add_others(held, {provenance.STATE: state})
        changes = sum(finding.code == "name-changed" for finding in content.findings)
        findings = [*content.findings, *kept, *_renamed(asked.facts)]
        return Written(held, findings, name_changes=changes, url=self._place.url(held))

    def _fill(
        self,
        archives: ArchiveWriter,
        file: ExperimentFile,
        staging: Path,
        asked: _Asked,
        chunks: Iterator[Chunk],
        files: FileStore,
    ) -> RunContent:
        """Everything but the facts that are "others"; `file` is completed."""
        rules = CometRules(self._load, Naming())
        remembered = FilesOfRun(files)
        assets = AssetsOfRun(archives, file, remembered, step_multiplier=self._load.step_multiplier or 1)
        uploads = Uploads(assets, _UPLOADERS)
        own = staging / "content"
        own.mkdir()
        content = RunContent(RunInArchives(archives), uploads, own, rules, is_native=False)
        try:
            shown = assets.drawing(looking_ahead(chunks, rules), Naming(), uploads, staging)
            content.write(asked.header, shown, asked.facts, remembered)
        finally:
            uploads.close()
            content.close()
        file.tags = asked.facts.tags
        file.stop_time = asked.facts.end_ms(content.last_point_ms)
        file.customer_error_reported = asked.facts.status == "failed"
        failed = facts.failed_in(asked.header.source)
        file.customer_error_message = failed if file.customer_error_reported else None
        run, whole = own_ref(asked.header.run), content.is_whole
        file.shardmig = Brought(run=run, digest=asked.digest, is_whole=whole, numbered=archives.numbered)
        return content

    def _provenance(self, asked: _Asked, state: str) -> dict[str, str]:
        others = provenance.notes(asked.key, asked.digest, asked.header, state=state)
        others[provenance.STEP_MULTIPLIER] = str(self._load.step_multiplier or 1)
        return {name: other_value(value) for name, value in others.items() if value}

    def _link(self, run: TargetRun, parent: TargetRunId | None) -> None:
        if parent is None:
            return
        experiment = self._place.open(run.id)
        with closing(experiment):
            held = experiment.about().others.get(facts.PARENT)
        if held != parent:
            self._place.add_others(run.id, {facts.PARENT: parent})


def own_ref(run: RunRef) -> RunRef:
    """The run without what only its source's machine knows."""
    return msgspec.structs.replace(run, locator="", fingerprint="")


def experiment_key(key: MigrationKey) -> str:
    """The key of a run's experiment, always the same: of Comet's 32 to 50 letters and digits, and told from the vendor's by
    how it begins."""
    return KEY_PREFIX + (key if len(key) == _DIGITS else blake2b(key.encode(), digest_size=_DIGITS // 2).hexdigest())


def _renamed(run_facts: RunFacts) -> Iterator[Finding]:
    if run_facts.project != run_facts.wanted_project:
        yield Finding("note", "project-name-changed", detail=f"Comet has {run_facts.project!r}")

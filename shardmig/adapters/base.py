"""The contracts between shardmig and the systems it reads and writes. Knows no system.

An adapter has a read side, a write side, or both. Its obligations are in the docstrings here and are held by
`adapters/conformance.py`. Vendor exceptions are translated to `shardmig.errors` at the adapter's edge, once, `from`
the original. An adapter never retries (wrappers do), never prints, never touches the plan or the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, Protocol, runtime_checkable

import msgspec

from shardmig.errors import AdapterError
from shardmig.records import (
    SCOPES,
    Chunk,
    Field,
    FieldType,
    FileRef,
    Finding,
    LoadOptions,
    MigrationKey,
    Piece,
    ProjectId,
    RunId,
    RunRef,
    Scope,
    Selection,
    TargetRun,
    TargetRunId,
)


class FileSink(Protocol):
    """Where a read side puts the files it reads. Contents are streamed and digested, never held whole."""

    def put(
        self,
        run: RunRef,
        path: str,
        field_type: FieldType,
        content: BinaryIO | Path,
        *,
        name: str,
        step: Decimal | None = None,
        time_ms: int | None = None,
    ) -> FileRef:
        """Store one file of field `path`. `name` is the file's own name; its extension is kept.

        Idempotent: the same run, path, name and step overwrite. The caller closes `content`.
        Raises OSError of the disk as errors.DiskFull, of the source as errors.NotFound or errors.Unavailable.
        """
        ...

    def put_tree(
        self, run: RunRef, path: str, field_type: FieldType, members: Iterable[tuple[str, BinaryIO | Path]]
    ) -> FileRef:
        """Store a set of files as one tree. Member names are relative, with forward slashes.

        Raises HostilePath for a member that would leave the tree.
        """
        ...


class FileStore(Protocol):
    """Where a write side gets stored files from."""

    def path(self, ref: FileRef) -> Path:
        """The file (or folder, for a tree) on local disk. Raises HostilePath or NotFound."""
        ...

    def members(self, ref: FileRef) -> Iterator[tuple[str, Path]]:
        """(relative name, file) of a tree in name order; for a single file exactly one, named `ref.name`."""
        ...


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """What to read of runs. `cursors`: continue behind the cursor that an earlier reading gave, by run id.
    `chunk_points`: upper bound on points in a chunk, and so on memory."""

    selection: Selection = Selection()
    cursors: Mapping[RunId, bytes] = {}
    chunk_points: int = 250_000


FACT_NAMESPACES = ("sys/", "source_code/")
"""Where Neptune keeps what it knows of a run itself."""

STEP_CODES = frozenset({"step-rounded", "step-merged"})
"""Reason codes of what a step multiplier that is too small does, the same in every target."""


class ReadSide(Protocol):
    """Reads a system into entities."""

    def list_projects(self, selection: Selection) -> Iterator[ProjectId]:
        """Selected projects in stable order. A project without permission is raised as Denied only when it was
        named explicitly; others are skipped with a log line."""
        ...

    def list_runs(self, project: ProjectId, selection: Selection) -> Iterator[RunRef]:
        """Selected runs of a project: each once, stable ids and order, streaming, correct past 10,000 runs.
        `selection.limit` is applied by the planner, not here."""
        ...

    def read_runs(self, runs: Iterable[RunRef], want: Want, files: FileSink) -> Iterator[Piece]:
        """Everything wanted of these runs, in bounded memory.

        For each run: Header first, then Fields, points and Files in any order of chunks, End last. Chunks of
        several runs may interleave. The same run read twice gives the same chunks in the same order. What cannot
        be read for good is a loss in End.findings, named by field; what concerns the whole run is raised with
        `run` set. A run given a cursor starts with Header (whose
        own cursor marks that same place) and goes on behind it.
        Scalars are typed; int beyond 64 bits, unknown types and the like are findings, never silence.
        """
        ...

    def close(self) -> None:
        """Release everything; idempotent."""
        ...


class Fitted(msgspec.Struct, frozen=True):
    """What a target holds of a chunk: `native` is the chunk after the documented approximations (None = nothing of
    it can be held natively); `exact` holds the rows that `native` changed, as they were, for the sidecar (None = all
    is exact)."""

    native: Chunk | None
    exact: Chunk | None
    findings: list[Finding]


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a target can do; shown by `plan`. Rules that need code are in `WriteSide.fit`."""

    name: str
    step_type: Literal["int64", "decimal", "none"]
    holds_nan: bool
    holds_infinity: bool
    keeps_point_times: bool
    keeps_run_times: bool
    replay_is_idempotent: bool
    max_key_length: int
    merges: bool = False
    requests_per_s: float | None = None
    points_per_min: float | None = None


class WriteSide(Protocol):
    """Writes entities into a system and reads them back."""

    caps: Capabilities

    def fit(self, chunk: Chunk) -> Fitted:
        """What the target will hold of this chunk, under this write side's LoadOptions. Pure: `plan` predicts with
        it, `write_run` writes by it, `verify` expects it. A run's Header comes before its other chunks: what is held of
        them may depend on the source that it names. Raises StepConflict as documented in `shardmig.steps`."""
        ...

    def find_run(self, key: MigrationKey) -> TargetRun | None:
        """The run that carries this key, or None. The truth about what was loaded."""
        ...

    def write_run(
        self, key: MigrationKey, digest: str, chunks: Iterator[Chunk], files: FileStore, parent: TargetRunId | None
    ) -> Written:
        """Write one run from its chunks: Header, Fields, Files, points of each series in step order, End.

        Owns the whole life of the target run: creates it (or goes on with the partial one that carries `key`),
        writes, and last of all marks it complete with `digest`. A stream that ends without End, or whose End holds
        losses, leaves it marked partial. Executing it again after any crash gives the same end state: nothing lost,
        nothing doubled. `parent` is the target id of the run named by Header.run.parent, None if it has none there.
        A run that is complete already is left as it is, but for its link to a parent that came later; with other content and
        `on_existing="replace"` it goes, where the target can hold both not before the new one is complete.
        Raises Permanent for this run alone, Fatal for all.
        """
        ...

    def discard_run(self, run: TargetRun) -> None:
        """Remove a run so that `find_run` no longer finds it; idempotent."""
        ...

    def read_run(self, run: TargetRun, want: Want, files: FileSink) -> Iterator[Piece]:
        """The run as entities under its original project, id, field names, types and exact steps, restored from
        the sidecar where the native form is an approximation. What write_run added by itself is left out.
        `files.put` gets every file; verify passes a sink that only digests."""
        ...

    def expected_facts(
        self, run: RunRef, fields: Iterable[Field], parent: TargetRunId | None, last_point_ms: int | None
    ) -> dict[str, str]:
        """What the target's own run facts must be for this run, by fact name: `status`, `start_time`, `end_time`
        (epoch ms), `name`, `user`, `parent`, `experiment`, `tag:<key>` for every tag that write_run sets from the run,
        and whatever else it sets natively. Pure, under this write side's LoadOptions. `fields` are the scalar
        fields below FACT_NAMESPACES; `parent` is the target id of the parent run, None if the target has none;
        `last_point_ms` is the greatest time of its points. A fact that is not set is left out."""
        ...

    def read_facts(self, run: TargetRun) -> dict[str, str]:
        """The same facts as the target holds them now, in the same form; a fact that is not set is left out, and so
        are facts that the target makes by itself."""
        ...

    def close(self) -> None:
        """Release everything; idempotent."""
        ...


@runtime_checkable
class Expecting(Protocol):
    """What a WriteSide may do beside: look several runs up in one request."""

    def expect(self, runs: Sequence[RunRef]) -> None:
        """These are asked for next, and by nobody else meanwhile. Asks for nothing by itself yet."""
        ...


class Written(msgspec.Struct, frozen=True):
    """What write_run did."""

    id: TargetRunId
    findings: list[Finding]
    name_changes: int = 0
    url: str = ""


class ToWrite(NamedTuple):
    """What write_run takes."""

    key: MigrationKey
    digest: str
    chunks: Iterator[Chunk]
    files: FileStore
    parent: TargetRunId | None


@runtime_checkable
class Grouping(Protocol):
    """What a WriteSide may do beside: write small runs of some scopes together, with fewer requests."""

    grouped: frozenset[Scope]

    def write_together(self, runs: Sequence[ToWrite]) -> list[Written | AdapterError]:
        """As write_run for each of them, in their order. What it would raise for one is its result, and does not stop the
        others. Raises Fatal."""
        ...


MakeSource = Callable[[Mapping[str, str]], ReadSide]
"""From an AdapterSpec's options."""

MakeTarget = Callable[[Mapping[str, str], LoadOptions], WriteSide]
"""From an AdapterSpec's options and the load options."""


def migration_key(run: RunRef) -> MigrationKey:
    """The idempotency key of a run in any target: the same for the same project, scope and run id, always.
    Letters and digits only; for entities that only MLflow has it tells their scope."""
    text = "\0".join((run.project, run.scope, run.id))
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return MigrationKey(_PREFIXES.get(run.scope, "") + digest)


def scope_of(key: MigrationKey) -> Scope:
    """The scope that a key tells; "runs" for every key that tells none."""
    return next((scope for scope, prefix in _PREFIXES.items() if key.startswith(prefix)), "runs")


_NEPTUNE_SCOPES: frozenset[Scope] = frozenset({"runs", "models", "model_versions"})
_PREFIXES = {scope: scope.replace("_", "") for scope in SCOPES if scope not in _NEPTUNE_SCOPES}

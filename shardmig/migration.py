"""The folder of one migration below an archive: plan, journal, locks, logs, spools."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from shardmig import codec
from shardmig.errors import PlanMismatch, UsageError
from shardmig.journal import State, replay
from shardmig.records import FORMAT_VERSION, ArchivePaths, MigrationId, Phase, Plan, ShardId


class MigrationFolder:
    """Paths of one migration. Creating the object creates nothing."""

    def __init__(self, home: Path, migration: MigrationId) -> None:
        self.id = migration
        self.path = home / migration
        self.plan_file = self.path / "plan.msgpack"
        self.journal_file = self.path / "journal"
        self.lock_file = self.path / "lock"
        self.logs = self.path / "logs"
        self.spool = self.path / "spool"

    def log_file(self, phase: Phase, shard: ShardId, attempt: int) -> Path:
        """The log of one attempt."""
        return self.logs / f"{phase}-{shard}-{attempt}.jsonl"

    def progress_file(self, phase: Phase, shard: ShardId) -> Path:
        """Where the attempt in progress tells how far it is."""
        return self.spool / f"{phase}-{shard}.progress"

    def create(self) -> None:
        """Make the folders; idempotent."""
        for folder in (self.logs, self.spool):
            folder.mkdir(parents=True, exist_ok=True)

    def write_plan(self, plan: Plan) -> None:
        """Freeze the plan: it appears whole or not at all."""
        codec.write_whole(self.plan_file, codec.encode(plan))

    def read_plan(self) -> Plan:
        """The frozen plan. Raises PlanMismatch when it is of another format or cannot be read."""
        hint = f"remove {self.path} to plan anew; what is published stays published"
        return plan_of(self.plan_file.read_bytes(), self.plan_file, hint=hint)

    def state(self) -> State:
        """The plan and what its journal says, now. Readable while another process executes it."""
        return replay(self.read_plan(), self.journal_file)


def plan_of(written: bytes, file: Path, *, hint: str) -> Plan:
    """The plan that a file holds. Raises PlanMismatch, with this hint, when it is of another format or cannot be read."""
    try:
        plan: Plan = codec.decode(written, Plan)
    except ValueError as error:
        raise PlanMismatch(f"{file} is not a plan of this version: {error}", hint=hint) from error
    if plan.format_version > FORMAT_VERSION:
        raise PlanMismatch(f"{file} has format {plan.format_version}; this version knows {FORMAT_VERSION}")
    return plan


def home_of(archive: ArchivePaths) -> Path:
    """Where the migrations of an archive are kept. Neptune-exporter ignores folders that start with a dot.

    Journal and locks need a disk: for an archive in an object store it is a folder of this user, named by the URL, below
    $SHARDMIG_HOME (default: $XDG_STATE_HOME/shardmig, ~/.local/state/shardmig).
    """
    scheme, is_url, name = archive.data.partition("://")
    if not is_url:
        return Path(archive.data) / ".shardmig"
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(os.environ.get("SHARDMIG_HOME") or Path(state, "shardmig")).absolute() / scheme / name / ".shardmig"


def migrations(archive: ArchivePaths) -> Iterator[MigrationFolder]:
    """The migrations of an archive, the one worked at last coming last."""
    home = home_of(archive)
    plans = sorted(home.glob("*/plan.msgpack"), key=lambda plan: (_last_change(plan), plan.parent.name))
    for plan in plans:
        yield MigrationFolder(home, MigrationId(plan.parent.name))


def find_migration(archive: ArchivePaths, migration: str = "") -> MigrationFolder:
    """The named migration, or the one worked at last. Raises UsageError when there is none."""
    known = list(migrations(archive))
    named = [folder for folder in known if folder.id == migration] if migration else known
    if not named:
        what = f"migration {migration!r}" if migration else "migration"
        names = ", ".join(folder.id for folder in known) or "none"
        raise UsageError(f"there is no {what} below {home_of(archive)}", hint=f"known: {names}")
    return named[-1]


def _last_change(plan_file: Path) -> int:
    journal = plan_file.with_name("journal")
    return (journal if journal.exists() else plan_file).stat().st_mtime_ns

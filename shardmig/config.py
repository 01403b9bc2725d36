"""Settings of one execution: how, never what. Flags override SHARDMIG_* variables, which override a TOML file.

Secrets are no settings: adapters read them from the environment of the vendor's own client, in the worker.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from shardmig.errors import UsageError

_PREFIX: Final = "SHARDMIG_"


def usable_cores() -> int:
    """Cores that this computer lets us use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a migration is executed. Nothing here changes what arrives.

    workers: worker processes, 0 = usable cores (ray: as many as the cluster has room for). engine: where shards execute. max_attempts: of one shard in one
    execution. deadline_s: longest attempt, 0 = none. grace_s: how long an interrupted worker may finish.
    chunk_points: most points in a chunk, the unit of memory. part_bytes: size at which a parquet part is closed.
    ray_address: of the cluster, "" = $RAY_ADDRESS or a Ray of one's own. ray_resources: what one worker occupies there.
    """

    workers: int = 0
    engine: Literal["local", "inline", "ray"] = "local"
    max_attempts: int = 3
    deadline_s: float = 0.0
    grace_s: float = 10.0
    chunk_points: int = 250_000
    part_bytes: int = 50 * 1024 * 1024
    compression: Literal["zstd", "snappy", "none"] = "zstd"
    ray_address: str = ""
    ray_resources: str = ""

    @property
    def slots(self) -> int:
        """Number of workers that execute at once."""
        return self.workers or usable_cores()

    @classmethod
    def resolve(
        cls, flags: Mapping[str, Any], *, environ: Mapping[str, str] | None = None, file: Path | None = None
    ) -> Settings:
        """Settings from flags (None = not given), environment and file. Raises UsageError that names the culprit."""
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = _read_file(file) if file else {}
        for name in cls.__struct_fields__:
            if (text := environ.get(_PREFIX + name.upper())) is not None:
                values[name] = text
        values |= {name: flag for name, flag in flags.items() if flag is not None}
        try:
            settings = msgspec.convert(values, cls, strict=False)
        except msgspec.ValidationError as error:
            raise UsageError(f"settings: {error}", hint="see `shardmig export --help`") from error
        if settings.workers < 0 or settings.max_attempts < 1 or settings.chunk_points < 1000:
            raise UsageError("settings: workers must be >= 0, max_attempts >= 1 and chunk_points >= 1000")
        return settings


def _read_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"configuration file {file}: {error}") from error

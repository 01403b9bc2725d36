"""The options of source `wandb`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from shardmig.adapters.wandb.options import ServerOptions, converted
from shardmig.errors import UsageError


class SourceOptions(ServerOptions, frozen=True, kw_only=True):
    """What to read: folders, or a server.

    path            `.wandb` files, run folders or folders that hold them at any depth, several with the system's path
                    separator; none: the server
    entity          whose projects of the server; default: the key's own entity
    system_metrics  read what wandb measured of the computer
    console         read what the run printed (folders; a server has it as a file)
    """

    path: str = ""
    entity: str = ""
    system_metrics: Literal["yes", "no"] = "yes"
    console: Literal["yes", "no"] = "yes"

    @property
    def paths(self) -> list[Path]:
        """Files and folders to read."""
        return [Path(part).absolute() for part in self.path.split(os.pathsep) if part]


def parse_options(texts: Mapping[str, str]) -> SourceOptions:
    """Options from their texts. Raises UsageError for unknown names, bad values and paths that do not exist."""
    options = converted(texts, SourceOptions, "wandb source")
    for path in options.paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist")
    return options

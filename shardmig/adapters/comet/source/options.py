"""The options of source `comet`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from shardmig.adapters.comet.options import ServerOptions, configured, server_options
from shardmig.errors import UsageError


class SourceOptions(ServerOptions, frozen=True, kw_only=True):
    """Where to read: offline archives, or a server.

    path            offline archives: zip files, or folders that hold them (searched with their subfolders)
    workspace       on a server: the one to read (default: $COMET_WORKSPACE, then the configuration file, then every one
                    that the key may read)
    system-metrics  yes: also the metrics that Comet's client collects of the machine (sys.*)
    """

    path: str = ""
    workspace: str = ""
    system_metrics: Literal["yes", "no"] = "yes"

    @property
    def paths(self) -> list[Path]:
        """The archives and folders, absolute."""
        return [Path(part).absolute() for part in self.path.split(os.pathsep) if part]


def parse_options(texts: Mapping[str, str]) -> SourceOptions:
    """Options from their texts. Raises UsageError for unknown names, bad values and paths that do not exist."""
    options = server_options(texts, SourceOptions)
    for path in options.paths:
        if not path.exists():
            raise UsageError(f"comet source: there is no {path}")
    if not options.workspace and not options.path:
        return server_options({**texts, "workspace": configured("workspace")}, SourceOptions)
    return options

"""The options of source `neptune2`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from shardmig.adapters.neptune_server import ServerOptions, parse_server_options
from shardmig.errors import UsageError
from shardmig.records import Scope

SCOPES: Final[tuple[Scope, ...]] = ("runs", "models", "model_versions")


class Neptune2Options(ServerOptions, frozen=True, kw_only=True):
    """See `ServerOptions`; and

    scopes        which of runs, models and model_versions are read
    models_query  NQL of models, answered by the server: only these, and only their versions
    """

    scopes: str = ",".join(SCOPES)
    models_query: str = ""

    @property
    def wanted_scopes(self) -> tuple[Scope, ...]:
        """In the order of listing."""
        asked = self.scopes.split(",")
        return tuple(scope for scope in SCOPES if scope in asked)


def parse_options(options: Mapping[str, str]) -> Neptune2Options:
    """Options as given on the command line. Raises UsageError."""
    parsed = parse_server_options("neptune2", Neptune2Options, options)
    for name in parsed.scopes.split(","):
        if cast("Scope", name) not in SCOPES:
            raise UsageError(f"scopes: there is no {name!r}", hint=f"there are: {', '.join(SCOPES)}")
    return parsed

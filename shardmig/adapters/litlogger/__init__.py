"""Lightning AI (LitLogger) as target and as source.

Read from top to bottom: options → target, source → catalog (which experiment is which run) → appending (points, each once)
→ histories (points in order) → drive (files) → cloud (the API); naming, fit and facts are the rules. litlogger and
lightning-sdk are imported by `cloud` and below, when the first call is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from shardmig.adapters.base import ReadSide, WriteSide
from shardmig.adapters.litlogger.options import parse_options, parse_source_options
from shardmig.errors import MissingExtra
from shardmig.records import LoadOptions

__all__ = ["open_source", "open_target", "parse_options"]


def open_target(options: Mapping[str, str], load: LoadOptions) -> WriteSide:
    """The write side. Raises UsageError for its options, MissingExtra when litlogger is not installed."""
    from shardmig.adapters.litlogger.target import LightningTarget

    _check_installed()
    return LightningTarget(parse_options(options), load)


def open_source(options: Mapping[str, str]) -> ReadSide:
    """The read side. Raises UsageError for its options, MissingExtra when litlogger is not installed."""
    from shardmig.adapters.litlogger.source import LightningSource

    _check_installed()
    return LightningSource(parse_source_options(options))


def _check_installed() -> None:
    """It is looked for, not imported: that takes seconds, and a plan needs none of it."""
    if find_spec("litlogger") is None:
        raise MissingExtra("Lightning needs the package 'litlogger'", hint="pip install 'shardmig[litlogger]'")

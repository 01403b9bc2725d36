"""What people added to an experiment that shardmig brought, or changed there: the run's manifest knows none of it.

    Comet                              field
    parameter, point                   <name>: read with the run's own
    epoch of such a point              epochs/<name>
    point that no float series takes   metrics/<name>, system_metrics/<name>: one without step or time, with a step that is not
                                       whole, or with a value that is no double
    tags                               sys/comet/added_tags
    other that is new or changed       others/<name>; the name of the experiment is others/Name
    asset, HTML, console, packages …   as of Comet's own experiments
    user, machine, git, script         sys/comet/<fact>: of those who went on with the run, not of the run

Where the run has a field of that name already, ` (2)` stands behind it. Steps are the run's: what the run's own were
multiplied by, these are divided by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from shardmig.adapters.base import FACT_NAMESPACES
from shardmig.adapters.comet.experiment import KEY_PREFIX
from shardmig.adapters.comet.facts import PARENT, SET_BY_COMET, failed_in
from shardmig.adapters.comet.source.points import Row, exact_number
from shardmig.adapters.sidecar.manifest import Manifest
from shardmig.adapters.sidecar.reading import HeldRun
from shardmig.records import Finding

_OWN_FACTS: Final = "sys/comet/"
ADDED_TAGS: Final = f"{_OWN_FACTS}added_tags"
_OWN: Final = "shardmig."
_INT64: Final = range(-(2**63), 2**63)
_LONGEST_ERROR: Final = 200


def paths_of(manifest: Manifest, held: HeldRun) -> frozenset[str]:
    """Where a run that was brought has fields: by its manifest, and by what the experiment holds under names of its own."""
    entries = [entry.path for entry in manifest.params]
    entries += [*(entry.path for entry in manifest.series), *(entry.path for entry in manifest.files)]
    series = (manifest.metrics.get(key, key) for key in held.series_keys())
    params = held.values().keys() - {entry.key for entry in manifest.params}
    return frozenset((*entries, *series, *params))


def no_fact(path: str) -> str:
    """The name of a scalar, where trackers do not take it for a fact of the run."""
    if path.startswith(FACT_NAMESPACES) and not path.startswith(_OWN_FACTS):
        return _OWN_FACTS + path.removeprefix("sys/")
    return path


def point_of_series(row: Row) -> tuple[int, int, float] | None:
    """Step, time and value of a point that a series of the run can take as it is, as it can whatever shardmig wrote; else
    None."""
    value = exact_number(row.value)
    step = int(row.step) if isinstance(row.step, float) and row.step.is_integer() else row.step
    if not isinstance(step, int) or row.time_ms is None or value is None:
        return None
    return (step, row.time_ms, value) if step in _INT64 and row.time_ms in _INT64 else None


def new_others(found: Mapping[str, str], brought: Mapping[str, str]) -> dict[str, str]:
    """The facts of an experiment that it was not brought with. Its parent may have been brought after it."""
    return {
        key: text
        for key, text in found.items()
        if brought.get(key) != text
        and not key.startswith(_OWN)
        and key not in SET_BY_COMET
        and not (key == PARENT and text.startswith(KEY_PREFIX))
    }


def shown_error(error: Any, source: str) -> list[Finding]:
    """What is told of an error that the experiment shows and that it was not brought with."""
    if not error or error == failed_in(source):
        return []
    return [Finding("note", "error-shown", detail=f"Comet shows an error: {str(error)[:_LONGEST_ERROR]}")]

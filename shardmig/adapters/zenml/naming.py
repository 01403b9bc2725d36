"""Which names ZenML accepts, and what the others become.

Models, model versions, artifacts and tags have at most 254 characters, none of them a tab or line break; a model version
is called neither by a number nor by a stage, a tag not by a UUID. Metadata takes every key. Paths in an artifact store
are held to what every store and every disk takes: short segments of plain characters, never below `shardmig/`, which is
ours.
"""

from __future__ import annotations

import re
from typing import Final
from uuid import UUID

from shardmig.adapters.names import fit_name
from shardmig.adapters.run_facts import RunFacts
from shardmig.adapters.sidecar.naming import PlainNaming
from shardmig.adapters.zenml.options import TargetOptions
from shardmig.records import MigrationKey

MAX_NAME: Final = 250
MAX_KEY: Final = 1000
"""Characters of a key in a metadata dictionary: with its value it must fit a 60 kB row."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_STAGES: Final = frozenset({"none", "staging", "production", "archived", "latest"})
_NOT_PATH: Final = re.compile(r"[^/\w.\- +=@,()\[\]~]")
_LOADING: Final = re.compile(r" \(loading [0-9a-z]{32,}\)$")
_CASELESS: Final = re.compile(r"[^A-Z\x80-\U0010ffff]*")


class Naming(PlainNaming):
    """The names of one target."""

    refused = _NOT_PATH
    refused_at_start = " ~."

    def __init__(self, *, caseless: bool = False) -> None:
        self._caseless = caseless

    def key(self, path: str) -> str:
        """As sidecar.naming: every path but an extremely long one."""
        return fit_name(path, accepts=lambda name: len(name) <= MAX_KEY, clean=str, max_length=MAX_KEY)

    def accepts_file(self, path: str) -> bool:
        """As PlainNaming."""
        return super().accepts_file(path) and (not self._caseless or _CASELESS.fullmatch(path) is not None)

    def name(self, wanted: str) -> str:
        """The name of a model or an artifact."""
        return fit_name(wanted, accepts=self._accepts_name, clean=_clean, max_length=MAX_NAME)

    def version(self, wanted: str) -> str:
        """The name of a model version."""
        return fit_name(wanted, accepts=self._accepts_version, clean=_clean, max_length=MAX_NAME)

    def tag(self, wanted: str) -> str:
        """The name of a tag."""
        return fit_name(wanted, accepts=self._accepts_tag, clean=_clean, max_length=MAX_NAME)

    def _accepts_name(self, name: str) -> bool:
        return (
            0 < len(name) <= MAX_NAME
            and _CONTROL.search(name) is None
            and name.strip() == name
            and (not self._caseless or _CASELESS.fullmatch(name) is not None)
        )

    def _accepts_version(self, name: str) -> bool:
        return self._accepts_name(name) and not (name.isnumeric() or name.lower() in _STAGES or is_loading(name))

    def _accepts_tag(self, name: str) -> bool:
        return self._accepts_name(name) and not _is_uuid(name)


def wanted_model_name(options: TargetOptions, facts: RunFacts) -> str:
    """The model of a run: prefix and template, joined with slashes; models and their versions have models of their own."""
    project_id = facts.run.project
    workspace, _, project = project_id.rpartition("/")
    known = {"project_id": project_id, "workspace": workspace, "project": project, "sys_name": facts.sys_name}
    parts = [
        part.format_map(known)
        for part in options.model_name_template.split("/")
        if all(value for name, value in known.items() if f"{{{name}}}" in part)
    ]
    prefix = options.name_prefix.strip("/")
    name = "/".join([prefix] * bool(prefix) + parts) or project_id
    return name if facts.run.scope == "runs" else f"{name} ({facts.run.scope})"


def loading_name(version: str, key: MigrationKey) -> str:
    """The name of a model version until it is complete: nobody else's, and no reader takes it for the run."""
    return f"{version[:200]} (loading {key})"


def is_loading(name: str) -> bool:
    """Is it the name of a model version that is not complete yet, or was never loaded to its end?"""
    return _LOADING.search(name) is not None


def second_name(version: str, key: MigrationKey) -> str:
    """The name of a model version where another one has its name already."""
    return f"{version[: MAX_NAME - 17]}~{key[:16]}"


def _clean(name: str) -> str:
    return _CONTROL.sub("_", name).strip() or "_"


def _is_uuid(name: str) -> bool:
    try:
        UUID(name)
    except ValueError:
        return False
    return True

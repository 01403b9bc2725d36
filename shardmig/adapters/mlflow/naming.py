"""Which names MLflow accepts, and what the others become.

MLflow 3.17 takes as key of a param, metric or tag at most 250 letters, digits, `_`, `-`, `.`, `:`, spaces and slashes
(letters of any script) that are a normal relative path. Artifact paths are held to what every artifact store and
every disk takes: the same characters without `:` and with a few signs, short segments, never below `shardmig/`, which
is ours.
"""

from __future__ import annotations

import re
from typing import Final

from shardmig.adapters.mlflow.options import MlflowOptions, renames
from shardmig.adapters.names import fit_name
from shardmig.adapters.sidecar.naming import PlainNaming, is_normal

MAX_KEY: Final = 250
MAX_EXPERIMENT_NAME: Final = 256
"""MLflow's API says 500, its database column (as PostgreSQL enforces) 256."""
MAX_RUN_NAME: Final = 250

_KEY: Final = re.compile(r"[/\w.\- :]*")
_NOT_KEY: Final = re.compile(r"[^/\w.\- :]")
_NOT_ARTIFACT: Final = re.compile(r"[^/\w.\- +=@,()\[\]~]")
_MADE_KEY: Final = re.compile(r"--[0-9a-f]{16}$")
_CASELESS: Final = re.compile(r"[!-@\[-~]([ -@\[-~]*[!-@\[-~])?")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class Naming(PlainNaming):
    """The names of one target."""

    refused = _NOT_ARTIFACT

    def __init__(self, *, caseless: bool = False) -> None:
        self._caseless = caseless

    def key(self, path: str) -> str:
        """The key of a param or metric."""
        return self.fit_key(self.wanted_key(path))

    def fit_key(self, name: str) -> str:
        """The key that MLflow takes for `name`."""
        if self._accepts_key(name):
            return name
        made = fit_name(name, accepts=lambda _: False, clean=_clean_key, max_length=MAX_KEY - 1)
        return made.replace("~", "--")  # MLflow takes no ~ in keys

    def accepts_file(self, path: str) -> bool:
        """As PlainNaming."""
        return super().accepts_file(path) and (not self._caseless or _CASELESS.fullmatch(path) is not None)

    def _accepts_key(self, name: str) -> bool:
        return (
            len(name) <= MAX_KEY
            and _KEY.fullmatch(name) is not None
            and _MADE_KEY.search(name) is None
            and is_normal(name)
            and (not self._caseless or _CASELESS.fullmatch(name) is not None)
        )


def experiment_name(wanted: str) -> str:
    """The experiment's name in MLflow: at most 256 characters, and no two for one."""
    return fit_name(
        wanted, accepts=_accepts_experiment, clean=lambda text: _CONTROL.sub("_", text), max_length=MAX_EXPERIMENT_NAME
    )


def wanted_experiment_name(options: MlflowOptions, project_id: str, sys_name: str) -> str:
    """The experiment of a run: prefix and template, joined with slashes. A project that is renamed counts as the new one."""
    if options.experiment_rename_file:
        project_id = renames(options.experiment_rename_file).get(project_id, project_id)
    workspace, _, project = project_id.rpartition("/")
    facts = {"project_id": project_id, "workspace": workspace, "project": project, "sys_name": sys_name}
    parts = [
        part.format_map(facts)
        for part in options.experiment_name_template.split("/")
        if all(value for name, value in facts.items() if f"{{{name}}}" in part)
    ]
    prefix = options.name_prefix.strip("/")
    return "/".join([prefix] * bool(prefix) + parts) or project_id


def run_name(name: str) -> str:
    """A run's name for people, cut to what the database column holds; the exact one is in tags and params."""
    return _CONTROL.sub("_", name)[:MAX_RUN_NAME]


def without_control_characters(text: str) -> str:
    """A text that every SQL store takes: NUL and lone surrogates become U+FFFD."""
    return re.sub("[\x00\ud800-\udfff]", "\ufffd", text)


def _accepts_experiment(name: str) -> bool:
    return 0 < len(name) <= MAX_EXPERIMENT_NAME and _CONTROL.search(name) is None and name.strip() == name


def _clean_key(name: str) -> str:
    words = [word for word in _NOT_KEY.sub("_", name).split("/") if word not in ("", ".", "..")]
    return "/".join(words).lstrip(". ") or "_"

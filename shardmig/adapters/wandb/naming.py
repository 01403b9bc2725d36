"""Which names W&B accepts, and what the others become.

A config or history key may hold anything but control characters; slashes group panels. A few keys are W&B's own. Run
files are held to what every object store and every disk takes; `*`, `?` and brackets are patterns to `wandb sync`.
"""

from __future__ import annotations

import re
from typing import Final

from shardmig.adapters.names import fit_name
from shardmig.adapters.sidecar.naming import OWN_FOLDER, PlainNaming
from shardmig.adapters.wandb.options import WandbOptions

MAX_KEY: Final = 500
"""W&B names no limit; Neptune's paths of more than 500 characters are rare, and such keys break its pages."""
MAX_TITLE: Final = 128
"""Of a project, run or group."""
MAX_TAG: Final = 64
BLOCK: Final = "shardmig"
"""The key of the config that holds what shardmig needs."""

_OWN_KEYS: Final = frozenset({BLOCK, "", "_wandb", "_step", "_timestamp", "_runtime"})
_OWN_FILES: Final = re.compile(
    r"(media|artifact|wandb-[^/]*|config\.yaml|output\.log|requirements\.txt|conda-environment\.yaml|diff\.patch)"
    r"(/|$)|" + OWN_FOLDER + "/",
    re.IGNORECASE,
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_NOT_FILE: Final = re.compile(r"[^/\w.\- +=@,()~]")
_NOT_PROJECT: Final = re.compile(r"[/\\#?%:\x00-\x1f\x7f\ud800-\udfff]")


class WandbNaming(PlainNaming):
    """The names of one run. Files are run files."""

    refused = _NOT_FILE
    refused_at_start = " ~-"

    def key(self, path: str) -> str:
        """As Naming: the key in config and history."""
        return fit_name(path, accepts=_accepts_key, clean=_clean_key, max_length=MAX_KEY)

    def accepts_file(self, path: str) -> bool:
        """As PlainNaming."""
        return super().accepts_file(path) and _OWN_FILES.match(path) is None


def entity_of(options: WandbOptions, project_id: str) -> str:
    """The entity of a run; "" = the API key's own."""
    return options.entity.format_map(_facts(project_id))


def wanted_project(options: WandbOptions, project_id: str) -> str:
    """The project that the template makes."""
    return options.project_prefix + options.project.format_map(_facts(project_id))


def project_of(options: WandbOptions, project_id: str) -> str:
    """The project of a run: what the template makes, as W&B takes it."""
    wanted = wanted_project(options, project_id)
    clean = _NOT_PROJECT
    return fit_name(
        wanted,
        accepts=lambda name: 0 < len(name) <= MAX_TITLE and not clean.search(name) and name.strip() == name,
        clean=lambda name: clean.sub("_", name).strip() or "_",
        max_length=MAX_TITLE,
    )


def title(text: str, most: int = MAX_TITLE) -> str:
    """A name for people: without control characters, cut to what W&B takes."""
    return _CONTROL.sub("_", text)[:most].strip()


def _facts(project_id: str) -> dict[str, str]:
    workspace, _, project = project_id.rpartition("/")
    return {"project_id": project_id, "workspace": workspace, "project": project}


def _accepts_key(key: str) -> bool:
    return len(key) <= MAX_KEY and key not in _OWN_KEYS and _CONTROL.search(key) is None


def _clean_key(key: str) -> str:
    return _CONTROL.sub("_", key) or "_"

"""Which names W&B accepts, and what the others become.

A config or history key may hold anything but control characters; slashes group panels. A few keys are W&B's own. Run
files are held to what every object store and every disk takes; `*`, `?` and brackets are patterns to `wandb sync`.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final

from shardmig.adapters.names import digest_of, fit_name
from shardmig.adapters.sidecar.naming import OWN_FOLDER
from shardmig.adapters.wandb.options import WandbOptions
from shardmig.records import Field, Finding

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
_MAX_FILE_PATH: Final = 480
_MAX_SEGMENT_BYTES: Final = 200
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_NOT_FILE: Final = re.compile(r"[^/\w.\- +=@,()~]")
_NOT_PROJECT: Final = re.compile(r"[/\\#?%:\x00-\x1f\x7f\ud800-\udfff]")
_MADE: Final = re.compile(r"~[0-9a-f]{16}(\.[^/]*)?$")


class WandbNaming:
    """As `sidecar.naming.Naming`. Pure and injective: equal names only for equal fields."""

    def wanted_key(self, path: str) -> str:
        """As Naming."""
        return path

    def key(self, path: str) -> str:
        """The key in config and history."""
        return fit_name(path, accepts=_accepts_key, clean=_clean_key, max_length=MAX_KEY)

    def wanted_artifact(self, path: str) -> str:
        """As Naming."""
        return path

    def artifact(self, path: str) -> str:
        """The path of the run file that wants to be called `path`."""
        return path if _accepts_file(path) else self.unlike_any_other(path, path)

    def unlike_any_other(self, path: str, identity: str) -> str:
        """As Naming."""
        extension = _NOT_FILE.sub("_", PurePosixPath(path).suffix)[:16].lower()
        stem = _NOT_FILE.sub("_", path.removesuffix(PurePosixPath(path).suffix)).replace("/", "_").strip(" ._")
        stem = stem.encode("utf-8", "replace")[:120].decode("utf-8", "ignore")
        return f"{stem or '_'}~{digest_of(identity)}{extension}"

    def is_param(self, field: Field) -> bool:  # noqa: ARG002 (every scalar has a place in the config)
        """As Naming."""
        return True

    def findings(self, field: Field) -> list[Finding]:  # noqa: ARG002
        """As Naming."""
        return []


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


def _accepts_file(path: str) -> bool:
    segments = path.split("/")
    return (
        len(path) <= _MAX_FILE_PATH
        and _NOT_FILE.search(path) is None
        and _MADE.search(path) is None
        and _OWN_FILES.match(path) is None
        and all(segment not in ("", ".", "..") for segment in segments)
        and not any(segment[0] in " ~-" or segment[-1] in " ." for segment in segments)
        and all(len(segment.encode()) <= _MAX_SEGMENT_BYTES for segment in segments)
    )

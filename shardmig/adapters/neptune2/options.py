"""The options of source `neptune2`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast

import msgspec

from shardmig.errors import AuthFailed, UsageError
from shardmig.records import ProjectId, Scope

SCOPES: Final[tuple[Scope, ...]] = ("runs", "models", "model_versions")
_KNOWN: Final = (
    "token-file",
    "workspace",
    "project-pattern",
    "project-exclude-pattern",
    "runs-query",
    "scopes",
    "connections",
    "requests-per-s",
    "ca-file",
    "verify-tls",
    "allow-http",
)
_MOST_THREADS: Final = 16
_YES_NO: Final = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


class Neptune2Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the options say, checked. The API token is no option: it comes from a file or from $NEPTUNE_API_TOKEN.

    workspace: only its projects. project_pattern, project_exclude: searched in a project's name without its
    workspace, as neptune-exporter does. runs_query: of runs, in
    Neptune's query language. connections: requests under way at once, of all workers
    of this computer together. requests_per_s: of one worker at most, 0 = as many as they are. ca_file: certificate authorities of a self-hosted
    server. allow_http: send the token unencrypted, beyond this computer.
    """

    token_file: Path | None = None
    workspace: str = ""
    project_pattern: re.Pattern[str] | None = None
    project_exclude: re.Pattern[str] | None = None
    runs_query: str = ""
    scopes: tuple[Scope, ...] = SCOPES
    connections: int = 32
    requests_per_s: float = 0.0
    ca_file: Path | None = None
    verify_tls: bool = True
    allow_http: bool = False

    @property
    def threads(self) -> int:
        """Of one worker."""
        return min(self.connections, _MOST_THREADS)

    @property
    def names_projects(self) -> bool:
        """Do these options say which projects are meant?"""
        return bool(self.workspace or self.project_pattern or self.project_exclude)

    def wants_project(self, project: ProjectId) -> bool:
        """Is a project that was found one of those meant?"""
        workspace, _, name = project.partition("/")
        if self.workspace not in ("", workspace):
            return False
        if self.project_pattern is not None and not self.project_pattern.search(name):
            return False
        return self.project_exclude is None or not self.project_exclude.search(name)

    def api_token(self) -> str:
        """The token, read anew each time and kept nowhere. Raises UsageError, and AuthFailed if there is none."""
        if self.token_file is None:
            token = os.environ.get("NEPTUNE_API_TOKEN", "")
        else:
            try:
                token = self.token_file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"the file of the API token cannot be read: {error}") from error
        if not token.strip():
            raise AuthFailed(
                "there is no Neptune API token", hint="set $NEPTUNE_API_TOKEN, or name a file that holds it"
            )
        return token.strip()


def parse_options(options: Mapping[str, str]) -> Neptune2Options:
    """Options as given on the command line. Raises UsageError."""
    for name in options:
        if name not in _KNOWN:
            raise UsageError(f"neptune2 has no option {name!r}", hint=f"known: {', '.join(_KNOWN)}")
    connections = options.get("connections", "32")
    if not connections.isdecimal() or not 1 <= int(connections) <= 256:
        raise UsageError(f"connections is {connections!r}; it must be a number from 1 to 256")
    return Neptune2Options(
        token_file=_file(options, "token-file"),
        workspace=options.get("workspace", ""),
        project_pattern=_pattern(options, "project-pattern"),
        project_exclude=_pattern(options, "project-exclude-pattern"),
        runs_query=options.get("runs-query", ""),
        scopes=_scopes(options.get("scopes", "")),
        connections=int(connections),
        requests_per_s=_rate(options.get("requests-per-s", "0")),
        ca_file=_file(options, "ca-file"),
        verify_tls=_yes_or_no(options, "verify-tls", "yes"),
        allow_http=_yes_or_no(options, "allow-http", "no"),
    )


def _scopes(text: str) -> tuple[Scope, ...]:
    asked = [part.strip() for part in text.split(",") if part.strip()]
    for name in asked:
        if name not in SCOPES:
            raise UsageError(f"scopes: there is no {name!r}", hint=f"there are: {', '.join(SCOPES)}")
    return cast("tuple[Scope, ...]", tuple(name for name in SCOPES if name in asked)) or SCOPES


def _yes_or_no(options: Mapping[str, str], name: str, default: str) -> bool:
    text = options.get(name, default).lower()
    if text not in _YES_NO:
        raise UsageError(f"{name} is {text!r}; it must be yes or no")
    return _YES_NO[text]


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 <= rate < float("inf"):
        raise UsageError(f"requests-per-s is {text!r}; it must be a number that is not negative")
    return rate


def _file(options: Mapping[str, str], name: str) -> Path | None:
    text = options.get(name, "")
    if not text:
        return None
    path = Path(text).expanduser().absolute()
    if not path.is_file():
        raise UsageError(f"{name}: {path} is not a file")
    return path


def _pattern(options: Mapping[str, str], name: str) -> re.Pattern[str] | None:
    text = options.get(name, "")
    try:
        return re.compile(text) if text else None
    except re.error as error:
        raise UsageError(f"{name}: {text!r} is not a regular expression: {error}") from error

"""What the sources of both generations of Neptune servers share: options, API token, TLS, choice of projects, patience.

Beside `slots`, which bounds the requests of all workers together.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec

from shardmig.adapters.wrappers import RetryPolicy
from shardmig.errors import AuthFailed, Unavailable, UsageError
from shardmig.records import ProjectId, Selection

OUTLAST_A_MINUTE: Final = RetryPolicy(attempts=14, longest_pause_s=15.0)
"""14 attempts pause for 68 to 136 s in all: an outage of a minute costs nothing but time."""

BRIEF: Final = RetryPolicy(attempts=4)
"""For the fields of a run at one of which a server that is well has failed time after time already."""

TOKEN_HINT: Final = "set $NEPTUNE_API_TOKEN, or name a file that holds the token: --api-token-file"  # noqa: S105
TLS_HINT: Final = "name its certificate authority: --source-option ca-file=PEM; or verify-tls=no"
_HTTP_HINT: Final = "--source-option allow-http=yes if its network is safe"
_MOST_THREADS: Final = 16
_MOST_CONNECTIONS: Final = 256
_PROJECTS_PER_PAGE: Final = 200

YesNo = Literal["yes", "no"]
Options = TypeVar("Options", bound="ServerOptions")


class ServerError(Unavailable):
    """The server is there and failed at this very request (500): it may do so for good. If it does, while it answers
    about the same run otherwise, the field that was asked for is a loss; else it is an outage as any other."""


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """What to ask of a server. The API token is no option: it comes from `token_file` or from $NEPTUNE_API_TOKEN.

    token_file               file that holds the API token
    workspace                only its projects, unless projects are named
    project_pattern          regular expression, searched in the project's name without its workspace
    project_exclude_pattern  the same, for projects to leave out
    runs_query               NQL, answered by the server
    connections              requests under way at once, of all workers together
    requests_per_s           of all workers together at most; 0 = as many as the server takes
    ca_file                  certificate authorities to trust, PEM
    verify_tls               no: accept any certificate
    allow_http               send the token unencrypted to a server that is not this computer
    """

    token_file: str = ""
    workspace: str = ""
    project_pattern: str = ""
    project_exclude_pattern: str = ""
    runs_query: str = ""
    connections: int = 32
    requests_per_s: float = 0.0
    ca_file: str = ""
    verify_tls: YesNo = "yes"
    allow_http: YesNo = "no"

    @property
    def threads(self) -> int:
        """Of one worker."""
        return min(self.connections, _MOST_THREADS)

    def named_projects(self, selection: Selection) -> list[ProjectId]:
        """The projects that are named: by the selection, else by $NEPTUNE_PROJECT, unless these options say which
        projects are meant. Empty = all that the token opens, and `wants_project`."""
        if selection.projects:
            return [ProjectId(project) for project in sorted(set(selection.projects))]
        if self.workspace or self.project_pattern or self.project_exclude_pattern:
            return []
        return [ProjectId(named)] if (named := os.environ.get("NEPTUNE_PROJECT")) else []

    def wants_project(self, project: ProjectId) -> bool:
        """Is a project that was found one of those meant?"""
        workspace, _, name = project.partition("/")
        if self.workspace not in ("", workspace) or not re.search(self.project_pattern, name):
            return False
        return not (self.project_exclude_pattern and re.search(self.project_exclude_pattern, name))


def parse_server_options(source: str, kind: type[Options], options: Mapping[str, str]) -> Options:
    """The options of `source` as given on the command line. Raises UsageError."""
    try:
        parsed = msgspec.convert(dict(options), kind, strict=False)
    except msgspec.ValidationError as error:
        known = ", ".join(field.encode_name for field in msgspec.structs.fields(kind))
        raise UsageError(f"source {source}: {error}", hint=f"known options: {known}") from error
    if not 1 <= parsed.connections <= _MOST_CONNECTIONS:
        raise UsageError(f"connections is {parsed.connections}; it must be a number from 1 to {_MOST_CONNECTIONS}")
    if not 0 <= parsed.requests_per_s < float("inf"):
        raise UsageError(f"requests-per-s is {parsed.requests_per_s}; it must be a number that is not negative")
    for name in ("project-pattern", "project-exclude-pattern"):
        expression = getattr(parsed, name.replace("-", "_"))
        try:
            re.compile(expression)
        except re.error as error:
            raise UsageError(f"{name}: {expression!r} is not a regular expression: {error}") from error
    files = {"token_file": _file("token-file", parsed.token_file), "ca_file": _file("ca-file", parsed.ca_file)}
    return msgspec.structs.replace(parsed, **files)


class Credentials(msgspec.Struct, frozen=True):
    """An API token and the server that it is for. Never printed, never written."""

    token: str
    url: str

    def __repr__(self) -> str:
        return f"Credentials({self.url})"


class _Token(msgspec.Struct):
    api_url: str | None = None
    api_address: str | None = None


def credentials_of(options: ServerOptions) -> Credentials:
    """The token of this process, read anew each time. Raises AuthFailed without one, UsageError for a server that it
    must not be sent to."""
    token = _token(options)
    try:
        parts = msgspec.json.decode(base64.b64decode(token), type=_Token)
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise AuthFailed("the Neptune API token cannot be read: it is cut or no token", hint=TOKEN_HINT) from error
    # The clients take the text "None" for the address where a token has only api_address.
    url = (parts.api_url or parts.api_address or "").rstrip("/")
    split = urlsplit(url)
    if split.scheme not in ("http", "https") or not split.hostname:
        raise AuthFailed("the Neptune API token names no server", hint=TOKEN_HINT)
    if split.scheme == "http" and options.allow_http == "no" and not _is_this_computer(split.hostname):
        raise UsageError(f"{url} is not encrypted: the API token would be readable on the way", hint=_HTTP_HINT)
    return Credentials(token, url)


class _Project(msgspec.Struct, rename="camel"):
    name: str
    organization_name: str


class ProjectPage(msgspec.Struct, rename="camel"):
    """What both generations answer to `GET /api/backend/v1/projects`."""

    entries: list[_Project] = []
    matching_item_count: int = 0


def visible_projects(ask: Callable[[Mapping[str, Any]], ProjectPage], options: ServerOptions) -> list[ProjectId]:
    """All projects that the token's owner may read and that the options mean, sorted. `ask` is given the query of one
    page. Raises Unavailable if the server shows fewer than it counts."""
    where = {"organizationIdentifier": options.workspace} if options.workspace else {}
    found: set[ProjectId] = set()
    offset = 0
    while True:
        paging = {"userRelation": "viewerOrHigher", "sortBy": "lastViewed", "offset": offset}
        page = ask(where | paging | {"limit": _PROJECTS_PER_PAGE})
        fresh = {ProjectId(f"{one.organization_name}/{one.name}") for one in page.entries} - found
        found |= fresh
        offset += len(page.entries)
        # A server that does not page gives the same list again.
        if not fresh or 0 < page.matching_item_count <= len(found):
            break
    if len(found) < page.matching_item_count:
        raise Unavailable(f"the server counts {page.matching_item_count} projects and shows {len(found)}")
    return sorted(filter(options.wants_project, found))


def _file(option: str, text: str) -> str:
    if not text:
        return ""
    path = Path(text).expanduser().absolute()
    if not path.is_file():
        raise UsageError(f"{option}: {path} is not a file")
    return str(path)


def _token(options: ServerOptions) -> str:
    token = os.environ.get("NEPTUNE_API_TOKEN", "")
    if options.token_file:
        try:
            token = Path(options.token_file).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"token-file {options.token_file} cannot be read: {error}") from error
    if not token.strip():
        raise AuthFailed("there is no Neptune API token", hint=TOKEN_HINT)
    return token.strip()


def _is_this_computer(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

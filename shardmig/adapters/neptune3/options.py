"""The options of source `neptune3`, and where its secret comes from."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from shardmig.errors import AuthFailed, UsageError

_HINT: Final = "set $NEPTUNE_API_TOKEN, or give --source-option token-file=PATH"
_EXPRESSIONS: Final = ("project_pattern", "project_exclude_pattern")

YesNo = Literal["yes", "no"]


class Neptune3Options(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """What to read and how. The API token comes from $NEPTUNE_API_TOKEN or from `token_file`, never from an option.

    workspace                projects of this workspace, unless projects are named; default: all that the token sees
    project_pattern          regular expression, searched in the project's name without its workspace
    project_exclude_pattern  the same, for projects to leave out
    runs_query               NQL, answered by the server
    lineage                  also the points that a fork inherits: its series are whole, and stand in the parent too
    metric_previews          also points that were never committed, as fields of their own below sys/metric_previews
    connections              requests in flight from one worker
    requests_per_s           at most so many from one worker; 0 = as many as the server takes
    verify_tls               no: accept any certificate
    ca_file                  certificate authorities to trust, PEM
    allow_http               send the token unencrypted to a server that is not this machine
    timeout_s                of one request
    """

    token_file: str = ""
    workspace: str = ""
    project_pattern: str = ""
    project_exclude_pattern: str = ""
    runs_query: str = ""
    lineage: YesNo = "no"
    metric_previews: YesNo = "no"
    connections: int = 16
    requests_per_s: float = 0.0
    verify_tls: YesNo = "yes"
    ca_file: str = ""
    allow_http: YesNo = "no"
    timeout_s: float = 60.0

    def verify(self) -> bool | ssl.SSLContext:
        """What the HTTP client is told about certificates. Raises UsageError for authorities that cannot be read."""
        if self.verify_tls == "no" or not self.ca_file:
            return self.verify_tls == "yes"
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise UsageError(f"ca-file {self.ca_file} cannot be read: {error}") from error


def parse_options(options: Mapping[str, str]) -> Neptune3Options:
    """Options as given on the command line. Raises UsageError."""
    try:
        parsed = msgspec.convert(dict(options), Neptune3Options, strict=False)
    except msgspec.ValidationError as error:
        known = ", ".join(field.encode_name for field in msgspec.structs.fields(Neptune3Options))
        raise UsageError(f"source neptune3: {error}", hint=f"known options: {known}") from error
    if parsed.connections < 1 or parsed.requests_per_s < 0 or parsed.timeout_s <= 0:
        raise UsageError("source neptune3: connections and timeout-s must be positive, requests-per-s not negative")
    for name in _EXPRESSIONS:
        expression = getattr(parsed, name)
        try:
            re.compile(expression)
        except re.error as error:
            option = name.replace("_", "-")
            raise UsageError(f"{option}: {expression!r} is not a regular expression: {error}") from error
    return parsed


class Credentials(msgspec.Struct, frozen=True):
    """An API token and the server that it is for. Never printed, never written."""

    token: str
    url: str

    def __repr__(self) -> str:
        return f"Credentials({self.url})"


class _Token(msgspec.Struct):
    api_url: str | None = None
    api_address: str | None = None


def credentials_of(options: Neptune3Options) -> Credentials:
    """The token of this process. Raises AuthFailed without one, UsageError for a server that it must not be sent to."""
    token = _token(options)
    try:
        parts = msgspec.json.decode(base64.b64decode(token), type=_Token)
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise AuthFailed("the Neptune API token cannot be read: it is cut or no token", hint=_HINT) from error
    # neptune-query takes the text "None" for the address where a token has only api_address.
    url = (parts.api_url or parts.api_address or "").rstrip("/")
    split = urlsplit(url)
    if split.scheme not in ("http", "https") or not split.hostname:
        raise AuthFailed("the Neptune API token names no server", hint=_HINT)
    if split.scheme == "http" and options.allow_http == "no" and not _is_this_machine(split.hostname):
        raise UsageError(
            f"{url} would get the API token unencrypted", hint="--source-option allow-http=yes if its network is safe"
        )
    return Credentials(token, url)


def _token(options: Neptune3Options) -> str:
    token = os.environ.get("NEPTUNE_API_TOKEN", "")
    if options.token_file:
        try:
            token = Path(options.token_file).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"token-file {options.token_file} cannot be read: {error}") from error
    if not token.strip():
        raise AuthFailed("there is no Neptune API token", hint=_HINT)
    return token.strip()


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

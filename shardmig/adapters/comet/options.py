"""The options of the Comet target, and where account, address and key come from."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from contextlib import suppress
from pathlib import Path
from string import Formatter
from typing import Final, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec

from shardmig.errors import AuthFailed, UsageError

TEMPLATE_FIELDS: Final = ("project_id", "workspace", "project", "sys_name")
REQUESTS_PER_S: Final = 10.0
HOSTED: Final = "https://www.comet.com/clientlib/"

T = TypeVar("T", bound="ServerOptions")


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """Where Comet is, whether it is written or read.

    url             of an installation of one's own, as in $COMET_URL_OVERRIDE (default: that, then the Comet
                    configuration file, then the hosted service)
    key-file        a file whose only content is the API key (default: $COMET_API_KEY, then the configuration file)
    timeout-s       of one HTTP request
    requests-per-s  requests of shardmig's own, of all workers of this computer together; 0 = as they come. What the
                    vendor's uploader sends is not counted: Comet has no rate limit for offline experiments
    allow-http      send the key unencrypted to a server that is not this computer
    """

    url: str = ""
    key_file: str = ""
    timeout_s: float = 120.0
    requests_per_s: float = REQUESTS_PER_S
    allow_http: Literal["yes", "no"] = "no"

    @property
    def root(self) -> str:
        """Scheme and host of the server."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def api_key(self) -> str:
        """The API key. Raises UsageError for a key file that cannot be read, AuthFailed when there is no key."""
        if self.key_file:
            try:
                key = Path(self.key_file).read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"key-file {self.key_file}: {error}") from error
        else:
            key = configured("api_key")
        if not key:
            raise AuthFailed("there is no Comet API key", hint="set $COMET_API_KEY, or name a file with key-file=PATH")
        return key


class CometOptions(ServerOptions, frozen=True, kw_only=True):
    """Where and how to write.

    offline-dir        leave each run as an offline archive in this folder and send nothing
    workspace          of the experiments, a template as below (default: $COMET_WORKSPACE, then the configuration file,
                       then the default workspace of the key's owner)
    project            of the experiments, a template of {project_id}, {workspace}, {project}, {sys_name}
    settle-s           how long Comet may take to show what was sent before it counts as lost
    points-per-upload  points in one offline archive; the vendor's uploader holds all of them in memory
    """

    offline_dir: str = ""
    workspace: str = ""
    project: str = "{project}"
    settle_s: float = 120.0
    points_per_upload: int = 100_000


def parse_options(texts: Mapping[str, str]) -> CometOptions:
    """Options from their texts. Raises UsageError for unknown names and bad values."""
    options = server_options(texts, CometOptions)
    if not options.workspace:
        options = msgspec.structs.replace(options, workspace=configured("workspace"))
    if options.points_per_upload < 1 or options.settle_s < 0:
        raise UsageError("comet: points-per-upload must be at least 1 and settle-s not negative")
    for name in ("workspace", "project"):
        _check_template(name, getattr(options, name))
    if not options.project:
        raise UsageError("comet: project must not be empty")
    return options


def server_options(texts: Mapping[str, str], kind: type[T]) -> T:
    """Options of either side, with the server's address made out."""
    try:
        options = msgspec.convert(dict(texts), kind, strict=False)
    except msgspec.ValidationError as error:
        names = ", ".join(field.encode_name for field in msgspec.structs.fields(kind))
        raise UsageError(f"comet: {error}", hint=f"known options: {names}") from error
    if not options.url:
        options = msgspec.structs.replace(options, url=configured("url_override") or HOSTED)
    parts = urlsplit(options.url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.password:
        raise UsageError(
            "comet: url must be http(s)://host…, without a password",
            hint="for example https://comet.example.com/clientlib/",
        )
    if parts.scheme == "http" and options.allow_http == "no" and not _is_this_computer(parts.hostname):
        raise UsageError(
            f"comet: the API key would go to {parts.hostname} unencrypted",
            hint="use https, or allow-http=yes if its network is safe",
        )
    if options.timeout_s <= 0 or options.requests_per_s < 0:
        raise UsageError("comet: timeout-s must be positive and requests-per-s not negative")
    return options


def filled(template: str, project_id: str, sys_name: str) -> str:
    """A template with the facts of a run."""
    workspace, _, project = project_id.rpartition("/")
    return template.format(project_id=project_id, workspace=workspace, project=project, sys_name=sys_name)


def configured(name: str) -> str:
    """A setting of Comet's own: from the environment, else from the section [comet] of .comet.config; "" = none."""
    if value := os.environ.get(f"COMET_{name.upper()}", "").strip():
        return value
    named = os.environ.get("COMET_CONFIG", "")
    for file in (Path(named) if named else None, Path(".comet.config"), Path("~/.comet.config").expanduser()):
        if file is not None and (value := _in_file(file / ".comet.config" if file.is_dir() else file, name)):
            return value
    return ""


def _is_this_computer(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _in_file(file: Path, name: str) -> str:
    parser = ConfigParser(interpolation=None)
    try:
        parser.read(file, encoding="utf-8")
        return parser.get("comet", name, fallback="").strip().strip("\"'")
    except (ConfigParserError, OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: {error}") from error


def _check_template(name: str, template: str) -> None:
    try:
        fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise UsageError(f"comet: {name}: {error}") from error
    if unknown := sorted(set(fields) - set(TEMPLATE_FIELDS)):
        raise UsageError(f"comet: {name}: unknown field {unknown[0]!r}", hint=f"known: {', '.join(TEMPLATE_FIELDS)}")

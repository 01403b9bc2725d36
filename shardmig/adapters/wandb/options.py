"""The options of the W&B target, and what they share with the source's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from string import Formatter
from typing import Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from shardmig.errors import AuthFailed, MissingExtra, UsageError

DEFAULT_SERVER: Final = "https://api.wandb.ai"
MOST_JOB_TYPE: Final = 64
REQUESTS_PER_S: Final = 20.0
"""W&B publishes no number for its GraphQL API, only that it counts by user. `wandb sync` paces itself by the server's
headers."""
HOSTED_VALUES_PER_MINUTE: Final = 100_000
TEMPLATE_FIELDS: Final = ("project_id", "workspace", "project")


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """Which W&B server, and who asks.

    base_url   of the server; default: $WANDB_BASE_URL, else the hosted one
    key_file   a file that holds the API key; default: $WANDB_API_KEY
    timeout_s  of one request
    requests_per_s  of all workers together; 0 = as many as they like
    """

    base_url: str = ""
    key_file: str = ""
    timeout_s: float = 60.0
    requests_per_s: float = REQUESTS_PER_S

    def api_key(self) -> str:
        """The API key, read where it is used: it is stored nowhere. Raises AuthFailed."""
        hint = "set $WANDB_API_KEY, or name a file that holds the key with the option key-file"
        if not self.key_file:
            key = os.environ.get("WANDB_API_KEY", "")
        else:
            try:
                key = Path(self.key_file).read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise AuthFailed(f"the file with the W&B key cannot be read: {error}", hint=hint) from error
        if not key:
            raise AuthFailed("no W&B API key", hint=hint)
        return key


Options = TypeVar("Options", bound=ServerOptions)


class WandbOptions(ServerOptions, frozen=True, kw_only=True):
    """Where and how to write.

    offline_dir     write run folders there and send nothing; `wandb sync <offline-dir>` sends them
    entity          template of the entity, of {project_id}, {workspace}, {project}; default: the key's own entity
    project         template of the project
    project_prefix  what every project's name begins with
    job_type        of every run
    sync_deadline_s after which sending one run is given up
    arrival_s       how long to wait until all that was sent is seen on the server
    values_per_minute of all workers together; 0 = no limit; default: the 100,000 that W&B advises on its hosted service,
                    no limit elsewhere
    """

    offline_dir: str = ""
    entity: str = ""
    project: str = "{project}"
    project_prefix: str = ""
    job_type: str = ""
    sync_deadline_s: float = 3600.0
    arrival_s: float = 60.0
    values_per_minute: int = 0


def require_wandb() -> None:
    """Raises MissingExtra where the vendor's package is not installed."""
    if find_spec("wandb") is None:
        raise MissingExtra("Weights & Biases needs the package 'wandb'", hint="pip install 'shardmig[wandb]'")


def parse_options(texts: Mapping[str, str]) -> WandbOptions:
    """Options from their texts. Raises UsageError for unknown names, bad values and bad templates."""
    options = converted(texts, WandbOptions, "wandb target")
    if "values-per-minute" not in texts and options.base_url == DEFAULT_SERVER:
        options = msgspec.structs.replace(options, values_per_minute=HOSTED_VALUES_PER_MINUTE)
    for name, template in (("entity", options.entity), ("project", options.project)):
        try:
            fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
        except ValueError as error:
            raise UsageError(f"{name}: {error}") from error
        if unknown := sorted(set(fields) - set(TEMPLATE_FIELDS)):
            raise UsageError(f"{name}: unknown field {unknown[0]!r}", hint=f"known: {', '.join(TEMPLATE_FIELDS)}")
    if not options.project:
        raise UsageError("project: the template is empty")
    if options.sync_deadline_s <= 0 or options.values_per_minute < 0:
        raise UsageError("sync-deadline-s must be positive, and values-per-minute not negative")
    if len(options.job_type) > MOST_JOB_TYPE:
        raise UsageError(f"job-type: W&B takes {MOST_JOB_TYPE} characters")
    return options


def converted(texts: Mapping[str, str], kind: type[Options], what: str) -> Options:
    """Options of one kind. Raises UsageError."""
    try:
        options = msgspec.convert(dict(texts), kind, strict=False)
    except msgspec.ValidationError as error:
        names = ", ".join(field.encode_name for field in msgspec.structs.fields(kind))
        raise UsageError(f"{what}: {error}", hint=f"known options: {names}") from error
    url = options.base_url or os.environ.get("WANDB_BASE_URL", "") or DEFAULT_SERVER
    if options.timeout_s <= 0 or options.requests_per_s < 0:
        raise UsageError("timeout-s must be positive, and requests-per-s not negative")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"base-url: {url!r} is no http or https address")
    if parts.username or parts.password:
        raise UsageError("base-url holds a user name or password, which would be stored in the plan")
    return msgspec.structs.replace(options, base_url=url.rstrip("/"))

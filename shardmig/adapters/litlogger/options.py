"""The options of target and source `litlogger`, and the credentials, which are none."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from shardmig.errors import AuthFailed, UsageError

DEFAULT_URL: Final = "https://lightning.ai"
KEY_HINT: Final = "set $LIGHTNING_USER_ID and $LIGHTNING_API_KEY, or name a file that holds them: key-file"
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
Options = TypeVar("Options", bound="CloudOptions")


class CloudOptions(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """Which Lightning, and how hard to press it.

    cloud_url       its address; default: $LIGHTNING_CLOUD_URL, else https://lightning.ai
    key_file        JSON with user_id and api_key (or auth_token), as `lightning login` leaves it; default:
                    $LIGHTNING_USER_ID and $LIGHTNING_API_KEY (or $LIGHTNING_AUTH_TOKEN), else ~/.lightning/credentials.json
    requests_per_s  of all workers together; 0 = as many as they like
    timeout_s       of one HTTP request
    """

    cloud_url: str = ""
    key_file: str = ""
    requests_per_s: float = 10.0
    timeout_s: float = 60.0


class TargetOptions(CloudOptions, frozen=True, kw_only=True):
    """Where to write.

    teamspace     name or id of one teamspace for the runs of all projects; default: one a project, named after it
    organization  id or name of the organization whose teamspaces are taken and made; default: any that is called so, and new
                  ones in the user's own account
    artifact_workers  files of one run that go up at the same time
    most_media    pictures of one run at most that are shown, each for three requests; 0 = none
    """

    teamspace: str = ""
    organization: str = ""
    artifact_workers: int = 4
    most_media: int = 1000


class SourceOptions(CloudOptions, frozen=True, kw_only=True):
    """What to read: CloudOptions alone. Teamspaces are chosen as projects."""


def parse_options(texts: Mapping[str, str]) -> TargetOptions:
    """The target's options. Raises UsageError."""
    options = _parsed("target", TargetOptions, texts)
    if not 1 <= options.artifact_workers <= 32:
        raise UsageError("artifact-workers must be from 1 to 32")
    if options.most_media < 0:
        raise UsageError("most-media must not be negative")
    return options


def parse_source_options(texts: Mapping[str, str]) -> SourceOptions:
    """The source's options. Raises UsageError."""
    return _parsed("source", SourceOptions, texts)


def authorization(options: CloudOptions) -> str:
    """The header that proves who asks, made anew for each client and kept nowhere else. Raises AuthFailed."""
    held = _Credentials(
        user_id=os.environ.get("LIGHTNING_USER_ID", ""),
        api_key=os.environ.get("LIGHTNING_API_KEY", ""),
        auth_token=os.environ.get("LIGHTNING_AUTH_TOKEN", ""),
    )
    if options.key_file:
        held = _read_credentials(Path(options.key_file))
    elif not (held.api_key or held.auth_token):
        held = _read_credentials(Path(os.environ.get("LIGHTNING_CREDENTIAL_PATH", "~/.lightning/credentials.json")))
    if held.auth_token:
        return f"Bearer {held.auth_token}"
    if not held.api_key:
        raise AuthFailed("there is no Lightning API key", hint=KEY_HINT)
    if not held.user_id:
        return f"Bearer {held.api_key}"
    return "Basic " + base64.b64encode(f"{held.user_id}:{held.api_key}".encode()).decode()


class _Credentials(msgspec.Struct, frozen=True):
    user_id: str | None = ""
    api_key: str | None = ""
    auth_token: str | None = ""

    def __repr__(self) -> str:
        return "_Credentials()"


def _read_credentials(path: Path) -> _Credentials:
    try:
        return msgspec.json.decode(path.expanduser().read_bytes(), type=_Credentials)
    except FileNotFoundError:
        raise AuthFailed(f"there is no Lightning API key: {path} does not exist", hint=KEY_HINT) from None
    except (OSError, msgspec.DecodeError):  # whose text could hold the key
        raise AuthFailed(f"{path} holds no Lightning API key", hint=KEY_HINT) from None


def _parsed(role: str, kind: type[Options], texts: Mapping[str, str]) -> Options:
    try:
        options = msgspec.convert(dict(texts), kind, strict=False)
    except msgspec.ValidationError as error:
        known = ", ".join(field.encode_name for field in msgspec.structs.fields(kind))
        raise UsageError(f"litlogger {role}: {error}", hint=f"known options: {known}") from error
    url = options.cloud_url or os.environ.get("LIGHTNING_CLOUD_URL", "") or DEFAULT_URL
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"cloud-url {url!r} is no address of a Lightning")
    if parts.username or parts.password:
        raise UsageError("cloud-url holds credentials, which would be stored in the plan", hint=KEY_HINT)
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise UsageError(f"cloud-url {url!r} would send the API key unencrypted", hint="use https")
    if not 0 <= options.requests_per_s < float("inf"):
        raise UsageError(f"requests-per-s is {options.requests_per_s}; it must be a number that is not negative")
    if options.timeout_s <= 0:
        raise UsageError("timeout-s must be positive")
    return msgspec.structs.replace(options, cloud_url=url.rstrip("/"))

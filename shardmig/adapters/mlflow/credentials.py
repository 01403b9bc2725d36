"""Who calls an MLflow server, and over which TLS: from a file, or from MLflow's own environment variables.

Each side of a copy may have its own: `SHARDMIG_SOURCE_MLFLOW_TRACKING_TOKEN` and the like are the source's,
`SHARDMIG_TARGET_…` the target's. A side with such a variable takes none of MLflow's plain ones.
"""

from __future__ import annotations

import base64
import os
import ssl
import subprocess
import threading
import time
import tomllib
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

import msgspec

from shardmig.errors import AuthFailed, UsageError

Side = Literal["source", "target"]

HEADERS_S: Final = 300.0
"""For so long the headers that a command printed are used."""
COMMAND_S: Final = 60.0
"""For so long a command may take."""

_VARIABLES: Final = {
    "username": "MLFLOW_TRACKING_USERNAME",
    "password": "MLFLOW_TRACKING_PASSWORD",
    "token": "MLFLOW_TRACKING_TOKEN",
    "workspace": "MLFLOW_WORKSPACE",
    "certificate-authority": "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "client-certificate": "MLFLOW_TRACKING_CLIENT_CERT_PATH",
    "insecure-tls": "MLFLOW_TRACKING_INSECURE_TLS",
}
_UNSUPPORTED: Final = ("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4")


class Credentials(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """What a server asks of its callers; all may be absent. Also the keys of a credentials file (TOML).

    username, password       basic authentication
    token                    bearer authentication
    workspace                MLflow's workspace
    header_command           a command, as list of words, that prints headers (`Name: value`, one a line) for a proxy in
                             front of the server; executed again every five minutes
    certificate_authority    PEM file that the server's certificate is checked against
    client_certificate       PEM file with this side's certificate and key
    insecure_tls             accept any certificate
    """

    username: str = ""
    password: str = ""
    token: str = ""
    workspace: str = ""
    header_command: list[str] = []
    certificate_authority: str = ""
    client_certificate: str = ""
    insecure_tls: bool = False


def credentials_of(side: Side, file: str = "") -> Credentials:
    """The credentials of one side: from the file if one is named, else from the environment. Raises UsageError."""
    return _from_file(Path(file)) if file else _from_environment(side)


class Login:
    """Headers and TLS of one client. Safe to use from several threads."""

    def __init__(self, credentials: Credentials, url: str = "") -> None:
        """`url` may hold user name and password, which count where the credentials have none."""
        parts = urlsplit(url)
        self.credentials = credentials
        self._fixed = _headers(credentials, unquote(parts.username or ""), unquote(parts.password or ""))
        self._printed: tuple[float, dict[str, str]] = (float("-inf"), {})
        self._lock = threading.Lock()

    def headers(self) -> dict[str, str]:
        """What each request says of its caller. Raises AuthFailed where the command for headers fails."""
        if not self.credentials.header_command:
            return self._fixed
        with self._lock:
            since, printed = self._printed
            if time.monotonic() - since > HEADERS_S:
                printed = _printed_headers(self.credentials.header_command)
                self._printed = (time.monotonic(), printed)
        return self._fixed | printed

    def tls(self) -> ssl.SSLContext:
        """The TLS of https. Raises UsageError for a certificate that cannot be read."""
        authorities = self.credentials.certificate_authority or os.environ.get("REQUESTS_CA_BUNDLE")
        try:
            context = ssl.create_default_context(cafile=authorities)
            if self.credentials.client_certificate:
                context.load_cert_chain(self.credentials.client_certificate)
        except OSError as error:
            raise UsageError(f"a TLS certificate cannot be read: {error}") from error
        if self.credentials.insecure_tls:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _from_file(file: Path) -> Credentials:
    try:
        given = tomllib.loads(file.read_text(encoding="utf-8"))
        return msgspec.convert(given, Credentials)
    except OSError as error:
        raise UsageError(f"credentials-file: {file}: {error.strerror}") from error
    except (ValueError, msgspec.ValidationError) as error:  # its text may name a key, never a value
        keys = ", ".join(field.encode_name for field in msgspec.structs.fields(Credentials))
        raise UsageError(
            f"credentials-file: {file} is not as it should be: {error}", hint=f"TOML; keys: {keys}"
        ) from error


def _from_environment(side: Side) -> Credentials:
    own = f"SHARDMIG_{side.upper()}_"
    prefix = own if any(os.environ.get(own + variable) for variable in _VARIABLES.values()) else ""
    for variable in _UNSUPPORTED:
        if not prefix and os.environ.get(variable, "").lower() not in ("", "false", "0"):
            raise UsageError(f"${variable} is not supported: use a user name and password, or a token")
    given: dict[str, Any] = {name: os.environ.get(prefix + variable, "") for name, variable in _VARIABLES.items()}
    insecure = given.pop("insecure-tls").lower() in ("true", "1")
    return msgspec.convert(given | {"insecure-tls": insecure}, Credentials)


def _headers(credentials: Credentials, url_user: str, url_password: str) -> dict[str, str]:
    headers = {"X-MLFLOW-WORKSPACE": credentials.workspace} if credentials.workspace else {}
    user, password = credentials.username or url_user, credentials.password or url_password
    if user and password:
        text = base64.b64encode(f"{user}:{password}".encode()).decode()
        headers["Authorization"] = f"Basic {text}"
    elif token := credentials.token.strip():  # a secret's file often ends with a line end
        headers["Authorization"] = f"Bearer {token}"
    for name, value in headers.items():
        if _is_refused(value):
            raise UsageError(f"the header {name} would hold a character that no header may: look for a line end in it")
    return headers


def _is_refused(value: str) -> bool:
    """Would Python's HTTP client refuse this as a header's value? It would tell the value, which is a secret."""
    return any(ord(sign) < 32 or ord(sign) == 127 or ord(sign) > 255 for sign in value)


def _printed_headers(command: list[str]) -> dict[str, str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=True)
    except subprocess.CalledProcessError as error:
        last = (error.stderr or "").strip().splitlines()[-1:] or [f"it ended with {error.returncode}"]
        raise AuthFailed(f"header-command {command[0]} failed: {last[0]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AuthFailed(f"header-command {command[0]} failed: {error}") from error
    headers = {}
    for line in filter(None, map(str.strip, done.stdout.splitlines())):
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise AuthFailed(f"header-command {command[0]} printed a line that is no header (Name: value)")
        if _is_refused(value.strip()):
            raise AuthFailed(f"header-command {command[0]} printed a header with a character that none may hold")
        headers[name.strip()] = value.strip()
    return headers

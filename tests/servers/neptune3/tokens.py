"""API tokens, and the short-lived ones that they are exchanged for."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from typing import Any


def api_token(url: str, key: str = "secret") -> str:
    """An API token for the server at `url`, as users find it in their profile."""
    return base64.b64encode(json.dumps({"api_address": url, "api_url": url, "api_key": key}).encode()).decode()


class Tokens:
    """Issues access tokens and knows which are good. `life_s` may be changed at any time."""

    def __init__(self, life_s: float = 3600.0) -> None:
        self.life_s = life_s
        self.exchanged = 0
        self.refreshed = 0
        self.rejects = False
        self._valid_until: dict[str, float] = {}
        self._refresh: set[str] = set()
        self._number = 0
        self._lock = threading.Lock()

    def exchange(self, token: str, url: str) -> dict[str, Any] | None:
        """For an API token; None if it is not one of this server."""
        try:
            known = json.loads(base64.b64decode(token)).get("api_key") == "secret"
        except ValueError:
            known = False
        if not known or self.rejects:
            return None
        with self._lock:
            self.exchanged += 1
            access, refresh = self._issue(url)
        return {"accessToken": access, "refreshToken": refresh, "username": "tester"}

    def refresh(self, token: str, url: str) -> dict[str, Any] | None:
        """For a refresh token; None if it was never issued."""
        with self._lock:
            if token not in self._refresh or self.rejects:
                return None
            self.refreshed += 1
            access, refresh = self._issue(url)
        return {"access_token": access, "refresh_token": refresh, "token_type": "Bearer", "expires_in": self.life_s}

    def is_valid(self, header: str) -> bool:
        """Does this Authorization header hold a token that is still good?"""
        return self._valid_until.get(header.removeprefix("Bearer "), 0.0) > time.time()

    def revoke_all(self) -> None:
        """No access token that was issued is good any more."""
        self._valid_until.clear()

    def _issue(self, url: str) -> tuple[str, str]:
        self._number += 1
        until = time.time() + self.life_s
        access = _jwt({"exp": until, "azp": "neptune-cli", "iss": f"{url}/auth/realms/neptune", "jti": self._number})
        refresh = f"refresh-{self._number}"
        self._valid_until[access] = until
        self._refresh.add(refresh)
        return access, refresh


def _jwt(claims: dict[str, Any]) -> str:
    head, body = (_base64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    signature = hmac.new(b"tests", f"{head}.{body}".encode(), hashlib.sha256).digest()
    return f"{head}.{body}.{_base64(signature)}"


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()

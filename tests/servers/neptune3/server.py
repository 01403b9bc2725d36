"""An HTTP server that speaks Neptune 3.x: neptune-scale writes to it, neptune-query reads from it, both unmodified.

Nothing of Neptune is in it: it was made from what the two clients send and expect. See `store` for what it holds.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

from tests.servers.http import Exchange, LocalServer, answering
from tests.servers.neptune3 import reading, writing
from tests.servers.neptune3.faults import Faults
from tests.servers.neptune3.messages import client, codes, operations, status
from tests.servers.neptune3.reading import Pages, Reader, Refused
from tests.servers.neptune3.store import Store
from tests.servers.neptune3.tokens import Tokens, api_token

_LB = "/api/leaderboard/v1"


class Neptune3(LocalServer):
    """The server and the handles by which a test moves it.

    unsigned: status of a question for the addresses of such files; 0 = they are left out of the answer. broken_objects:
    status of the object store for such a file. cut_short: how often half of a file is given as if it were the whole.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(_Exchange, tls)
        self.store = Store()
        self.pages = Pages()
        self.reader = Reader(self.store, self.pages)
        self.tokens = Tokens()
        self.faults = Faults()
        self.latency_s = 0.0
        self.requests: Counter[str] = Counter()
        self.most_at_once = 0
        self._at_once = 0
        self._counting = threading.Lock()
        self.provider = "aws"
        self.signatures_expire = 0
        self.unsigned: dict[str, int] = {}
        self.broken_objects: dict[str, int] = {}
        self.cut_short: dict[str, int] = {}
        self.statuses: dict[str, list[int]] = {}

    @property
    def token(self) -> str:
        """An API token that this server accepts."""
        return api_token(self.url)

    @contextmanager
    def counted(self, path: str) -> Iterator[None]:
        """A request that is being answered."""
        with self._counting:
            self.requests[path if not path.startswith("/objects/") else "/objects/"] += 1
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            with self._counting:
                self._at_once -= 1

    def apply(self, operation: Any) -> str:
        """Take a RunOperation as if it had been posted; the request id."""
        with self.store.lock:
            request = f"request-{len(self.statuses)}"
            self.statuses[request] = writing.apply(self.store, operation)
            return request


def neptune3_server(*, tls: ssl.SSLContext | None = None) -> AbstractContextManager[Neptune3]:
    """A running server, gone at the end."""
    return answering(Neptune3(tls=tls))


class _Exchange(Exchange):
    server: Neptune3

    def answer(self) -> None:
        neptune = self.server
        place = urlsplit(self.path)
        body = self.body()
        fault = neptune.faults.next(place.path)
        with neptune.counted(place.path):
            time.sleep(neptune.latency_s)
            answer = self._answer_of(self.command, place, body) if fault in (None, "cut") else None
        if fault == "drop":
            self.hang_up()
        elif answer is None:
            self.send_fault(fault or "500", neptune.faults.retry_after_s)
        else:
            self.send(*answer, is_cut=fault == "cut")

    def _answer_of(self, method: str, place: SplitResult, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        query = {name: values[0] for name, values in parse_qs(place.query).items()}
        try:
            return self._routed(method, unquote(place.path), query, body)
        except Refused as refusal:
            return refusal.status, json.dumps({"errorType": refusal.error_type, "message": str(refusal)}).encode(), {}

    def _routed(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, bytes, dict[str, str]]:
        neptune = self.server
        if path.startswith("/objects/"):
            return self._object(method, path.removeprefix("/objects/"), query, body)
        if (answer := self._open(path, body)) is not None:
            return answer
        if not neptune.tokens.is_valid(self.headers.get("Authorization", "")):
            raise Refused(401, "AUTHORIZATION_TOKEN_EXPIRED", "the token has expired")
        routes: dict[str, Callable[[], bytes]] = {
            f"{_LB}/proto/leaderboard/entries/search/": lambda: neptune.reader.search(
                query["projectIdentifier"], json.loads(body)
            ),
            f"{_LB}/leaderboard/attributes/definitions/query": lambda: json.dumps(
                neptune.reader.definitions(json.loads(body))
            ).encode(),
            f"{_LB}/proto/leaderboard/attributes/query": lambda: neptune.reader.attributes(
                query["projectIdentifier"], json.loads(body)
            ),
            f"{_LB}/proto/attributes/series/float": lambda: neptune.reader.float_series(json.loads(body)),
            f"{_LB}/proto/attributes/series": lambda: neptune.reader.other_series(json.loads(body)),
            "/api/backend/v1/projects": lambda: self._projects(method, query, body),
            "/api/storagebridge/v1/signedUrl": lambda: self._sign(json.loads(body)),
            "/api/client/v1/ingest": lambda: self._ingest(body),
            "/api/client/v1/ingest/check": lambda: self._check(body),
        }
        if path not in routes:
            raise Refused(404, "NOT_FOUND", path)
        with neptune.store.lock:
            return 200, routes[path](), {}

    def _open(self, path: str, body: bytes) -> tuple[int, bytes, dict[str, str]] | None:
        """What is answered without a token."""
        neptune = self.server
        realm = f"{neptune.url}/auth/realms/neptune"
        content: Any
        if path == "/api/backend/v1/clients/config":
            content = {
                "apiUrl": neptune.url,
                "applicationUrl": neptune.url,
                "pyLibVersions": {},
                "security": {"clientId": "neptune-cli", "openIdDiscovery": f"{realm}/.well-known/openid-configuration"},
            }
        elif path.endswith("/.well-known/openid-configuration"):
            endpoint = f"{realm}/protocol/openid-connect"
            content = {"authorization_endpoint": f"{endpoint}/auth", "token_endpoint": f"{endpoint}/token"}
        elif path == "/api/backend/v1/authorization/oauth-token":
            content = neptune.tokens.exchange(self.headers.get("X-Neptune-Api-Token", ""), neptune.url)
        elif path.endswith("/protocol/openid-connect/token"):
            form = parse_qs(body.decode())
            content = neptune.tokens.refresh(form["refresh_token"][0], neptune.url)
        else:
            return None
        if content is None:
            return 401, b'{"code": 401, "message": "unknown token"}', {}
        return 200, json.dumps(content).encode(), {}

    def _projects(self, method: str, query: dict[str, str], body: bytes) -> bytes:
        store = self.server.store
        if method == "POST":
            wanted = json.loads(body)
            store.project(f"{wanted['organizationIdentifier']}/{wanted['name']}")
            return b"{}"
        offset, limit = int(query.get("offset", 0)), int(query.get("limit", 1_000))
        return json.dumps(reading.project_list(store, query.get("organizationIdentifier"), offset, limit)).encode()

    def _ingest(self, body: bytes) -> bytes:
        request = self.server.apply(operations.RunOperation.FromString(body))
        return bytes(client.SubmitResponse(request_id=request, request_ids=[request]).SerializeToString())

    def _check(self, body: bytes) -> bytes:
        answer = client.BulkRequestStatus()
        for request in client.RequestIdList.FromString(body).ids:
            one = answer.statuses.add()
            refused = self.server.statuses.get(request.value, [])
            for code in refused:
                one.code_by_count.append(
                    status.RequestStatus.CodeByCount(code=codes.Code.INVALID_ARGUMENT, count=1, detail=code)
                )
            if not refused:
                one.code_by_count.append(status.RequestStatus.CodeByCount(code=codes.Code.OK, count=1))
        return bytes(answer.SerializeToString())

    def _sign(self, body: dict[str, Any]) -> bytes:
        neptune = self.server
        expired = "&expired=1" if neptune.signatures_expire else ""
        neptune.signatures_expire = max(0, neptune.signatures_expire - 1)
        for one in body["files"]:
            if status := neptune.unsigned.get(one["path"]):
                raise Refused(status, "BROKEN", f"{one['path']} cannot be signed")
        files = [
            {
                "path": one["path"],
                "project_identifier": one["project_identifier"],
                "provider": neptune.provider,
                "url": f"{neptune.url}/objects/{quote(one['path'], safe='')}"
                f"?project={quote(one['project_identifier'], safe='')}{expired}",
            }
            for one in body["files"]
            if one["path"] not in neptune.unsigned
        ]
        return json.dumps({"files": files}).encode()

    def _object(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, bytes, dict[str, str]]:
        """The object store behind signed addresses, which asks for no token."""
        store = self.server.store
        if "expired" in query:
            return 400, b"<Error><Code>ExpiredToken</Code></Error>", {}
        with store.lock:
            if method == "PUT":
                store.objects[query["project"], path] = body
                return 200, b"", {"ETag": '"1"'}
            if path in self.server.broken_objects:
                return self.server.broken_objects[path], b"<Error><Code>InternalError</Code></Error>", {}
            content = store.objects.get((query["project"], path))
            if content is not None and self.server.cut_short.get(path):
                self.server.cut_short[path] -= 1
                content = content[: len(content) // 2]
        return (200, content, {}) if content is not None else (404, b"<Error><Code>NoSuchKey</Code></Error>", {})

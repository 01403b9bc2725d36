"""An HTTP server that speaks Neptune 3.x: neptune-scale writes to it, neptune-query reads from it, both unmodified.

Nothing of Neptune is in it: it was made from what the two clients send and expect. See `store` for what it holds.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

from tests.servers.neptune3 import reading, writing
from tests.servers.neptune3.faults import Faults
from tests.servers.neptune3.messages import client, codes, operations, status
from tests.servers.neptune3.reading import Pages, Reader, Refused
from tests.servers.neptune3.store import Store
from tests.servers.neptune3.tokens import Tokens, api_token

_LB = "/api/leaderboard/v1"


class Neptune3:
    """A running server and the handles by which a test moves it."""

    def __init__(self, *, tls: Any = None) -> None:
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
        self.statuses: dict[str, list[int]] = {}
        self._http = _Server(("127.0.0.1", 0), _Exchange)
        self._http.neptune = self
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def token(self) -> str:
        """An API token that this server accepts."""
        return api_token(self.url)

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

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


@contextmanager
def neptune3_server(**settings: Any) -> Iterator[Neptune3]:
    """A server on a loopback port for as long as the block lasts."""
    server = Neptune3(**settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    neptune: Neptune3

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are none of a test's business."""


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""

    def _answer(self, method: str) -> None:
        neptune = self.server.neptune
        place = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = neptune.faults.next(place.path)
        with neptune.counted(place.path):
            time.sleep(neptune.latency_s)
            answer = self._answer_of(method, place, body) if fault in (None, "cut") else None
        if fault == "drop":
            self.close_connection = True
        elif answer is None:
            headers = {"Retry-After": str(neptune.faults.retry_after_s)} if fault == "429" else {}
            self._send(int(fault or 500), b'{"code": 0, "message": "planned fault"}', headers=headers)
        else:
            code, content, headers = answer
            self._send(code, content, headers=headers, cut=fault == "cut")

    def _answer_of(self, method: str, place: SplitResult, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        query = {name: values[0] for name, values in parse_qs(place.query).items()}
        try:
            return self._routed(method, unquote(place.path), query, body)
        except Refused as refusal:
            return refusal.status, json.dumps({"errorType": refusal.error_type, "message": str(refusal)}).encode(), {}

    def _send(self, code: int, content: bytes, *, headers: dict[str, str], cut: bool = False) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if cut:
            self.close_connection = True
            content = content[: len(content) // 2]
        self.wfile.write(content)

    def _routed(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, bytes, dict[str, str]]:
        neptune = self.server.neptune
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
        neptune = self.server.neptune
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
        store = self.server.neptune.store
        if method == "POST":
            wanted = json.loads(body)
            store.project(f"{wanted['organizationIdentifier']}/{wanted['name']}")
            return b"{}"
        offset, limit = int(query.get("offset", 0)), int(query.get("limit", 1_000))
        return json.dumps(reading.project_list(store, query.get("organizationIdentifier"), offset, limit)).encode()

    def _ingest(self, body: bytes) -> bytes:
        request = self.server.neptune.apply(operations.RunOperation.FromString(body))
        return bytes(client.SubmitResponse(request_id=request, request_ids=[request]).SerializeToString())

    def _check(self, body: bytes) -> bytes:
        answer = client.BulkRequestStatus()
        for request in client.RequestIdList.FromString(body).ids:
            one = answer.statuses.add()
            refused = self.server.neptune.statuses.get(request.value, [])
            for code in refused:
                one.code_by_count.append(
                    status.RequestStatus.CodeByCount(code=codes.Code.INVALID_ARGUMENT, count=1, detail=code)
                )
            if not refused:
                one.code_by_count.append(status.RequestStatus.CodeByCount(code=codes.Code.OK, count=1))
        return bytes(answer.SerializeToString())

    def _sign(self, body: dict[str, Any]) -> bytes:
        neptune = self.server.neptune
        expired = "&expired=1" if neptune.signatures_expire else ""
        neptune.signatures_expire = max(0, neptune.signatures_expire - 1)
        files = [
            {
                "path": one["path"],
                "project_identifier": one["project_identifier"],
                "provider": neptune.provider,
                "url": f"{neptune.url}/objects/{quote(one['path'], safe='')}"
                f"?project={quote(one['project_identifier'], safe='')}{expired}",
            }
            for one in body["files"]
        ]
        return json.dumps({"files": files}).encode()

    def _object(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, bytes, dict[str, str]]:
        """The object store behind signed addresses, which asks for no token."""
        store = self.server.neptune.store
        if "expired" in query:
            return 400, b"<Error><Code>ExpiredToken</Code></Error>", {}
        with store.lock:
            if method == "PUT":
                store.objects[query["project"], path] = body
                return 200, b"", {"ETag": '"1"'}
            content = store.objects.get((query["project"], path))
        return (200, content, {}) if content is not None else (404, b"<Error><Code>NoSuchKey</Code></Error>", {})

"""An HTTP server that speaks Lightning's REST API to litlogger and lightning-sdk, both unmodified. See `store`."""

from __future__ import annotations

import base64
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import msgspec

from tests.servers.http import Exchange, LocalServer, answering
from tests.servers.lightning.drive import Drive
from tests.servers.lightning.store import Appended, Refused, Store, Stream, Value, iso_now
from tests.servers.neptune3.faults import Faults

Query = dict[str, list[str]]
Answer = tuple[int, bytes, dict[str, str]]
USER, KEY = "user-1", "key-1"


class Lightning(LocalServer):
    """The server and the handles by which a test moves it.

    most_values  of one append request; more are refused. most_answered: values of one series in one answer; of more,
    an even sample is given, as charts ask for it. after: what is to happen once a request whose path holds this was done
    and before it is answered.
    """

    def __init__(self) -> None:
        super().__init__(_Exchange)
        self.store = Store()
        self.faults = Faults()
        self.requests: Counter[str] = Counter()
        self.after: dict[str, Callable[[str], None]] = {}
        self.times_s: list[float] = []
        self.append_times_s: list[float] = []
        self.most_values = 1000
        self.most_answered = 1_000_000
        self.page = 100
        self.drive = Drive(self.store, self.url)

    @property
    def environment(self) -> dict[str, str]:
        """What points the clients here."""
        return {"LIGHTNING_CLOUD_URL": self.url, "LIGHTNING_USER_ID": USER, "LIGHTNING_API_KEY": KEY}

    def forget(self) -> None:
        """Be as new."""
        with self.store.lock:
            self.store.forget()
            self.faults = Faults()
            self.requests.clear()
            self.after.clear()
            self.times_s.clear()
            self.append_times_s.clear()
            self.most_answered = 1_000_000
            self.drive.wants_completion = False


def lightning_server() -> AbstractContextManager[Lightning]:
    """A running server, gone at the end."""
    return answering(Lightning())


class _Exchange(Exchange):
    server: Lightning

    def answer(self) -> None:
        lightning = self.server
        place = urlsplit(self.path)
        body = self.body()
        what = f"{self.command} {place.path}"
        fault = lightning.faults.next(what)
        with lightning.store.lock:
            lightning.requests[re.sub(r"/(prj|stream|media)-\d+|(?<=blobs/).*", "", what)] += 1
            if place.path.startswith("/v1/"):
                lightning.times_s.append(time.monotonic())
            if "/logger-metrics/" in place.path:
                lightning.append_times_s.append(time.monotonic())
            answer = self._answer_of(self.command, place, body) if fault in (None, "cut") else None
        for part, happens in list(lightning.after.items()):
            if part in what:
                happens(what)
        if fault in ("drop", "cut"):  # "cut": what was asked for is done, and nobody hears of it
            self.hang_up()
        elif answer is None:
            self.send_fault(fault or "500", lightning.faults.retry_after_s)
        else:
            self.send(*answer)

    def _answer_of(self, method: str, place: SplitResult, body: bytes) -> Answer:
        try:
            return self._routed(method, unquote(place.path), parse_qs(place.query), body)
        except Refused as refusal:
            return refusal.status, json.dumps({"code": 5, "message": str(refusal)}).encode(), {}
        except (msgspec.DecodeError, KeyError) as error:
            return 400, json.dumps({"code": 3, "message": f"bad request: {error}"}).encode(), {}

    def _routed(self, method: str, path: str, query: Query, body: bytes) -> Answer:
        lightning = self.server
        if path == "/storage":
            plain = {name: values[0] for name, values in query.items()}
            return 200, b"", lightning.drive.put(plain, body)
        wanted = "Basic " + base64.b64encode(f"{USER}:{KEY}".encode()).decode()
        if self.headers.get("Authorization") != wanted:
            raise Refused(401, "unauthenticated")
        if method == "GET" and (found := re.fullmatch(r"/v1/projects/([^/]+)/artifacts/blobs/(.+)", path)):
            return 200, lightning.drive.get(*found.groups()), {}
        for verb, pattern, answer_of in _ROUTES:
            if verb == method and (found := re.fullmatch(pattern, path)):
                return 200, msgspec.json.encode(answer_of(lightning, found.groups(), query, body)), {}
        raise Refused(404, f"{method} {path}")


Route = Callable[[Lightning, tuple[str, ...], Query, bytes], Any]


def _user(*_: Any) -> Any:
    return {"id": USER, "userId": USER, "username": "somebody"}


def _memberships(lightning: Lightning, *_: Any) -> Any:
    return {"memberships": [teamspace.shown() for teamspace in lightning.store.teamspaces.values()]}


def _create_project(lightning: Lightning, _: tuple[str, ...], query: Query, body: bytes) -> Any:
    wanted = msgspec.json.decode(body)
    made = lightning.store.create_teamspace(wanted["name"], wanted.get("displayName", ""))
    made.owner_id = wanted.get("organizationId") or USER
    return made.shown()


def _stream(lightning: Lightning, _: tuple[str, ...], query: Query, body: bytes) -> Any:
    project = query.get("projectId", [None])[0]
    if "id" in query:
        return lightning.store.stream(project or "", query["id"][0]).shown()
    return lightning.store.stream_named(project, query["name"][0]).shown()


def _streams(lightning: Lightning, ids: tuple[str, ...], query: Query, body: bytes) -> Any:
    lightning.store.teamspace(ids[0])
    found = [stream.shown() for stream in lightning.store.streams.values() if stream.project == ids[0]]
    offset = int(query.get("offset", ["0"])[0])
    limit = min(int(query.get("limit", ["1000000"])[0]), lightning.page)
    return {"metricsStreams": found[::-1][offset : offset + limit]}


def _create_stream(lightning: Lightning, ids: tuple[str, ...], query: Query, body: bytes) -> Any:
    return lightning.store.create_stream(ids[0], msgspec.json.decode(body)).shown()


def _delete_streams(lightning: Lightning, ids: tuple[str, ...], query: Query, body: bytes) -> Any:
    for stream_id in msgspec.json.decode(body)["ids"]:
        lightning.store.stream(ids[0], stream_id)
        del lightning.store.streams[stream_id]
    return {}


def _update_stream(lightning: Lightning, ids: tuple[str, ...], query: Query, body: bytes) -> Any:
    stream = lightning.store.stream(*ids)
    wanted = msgspec.json.decode(body)
    if wanted.get("tags") is not None:
        stream.tags = wanted["tags"]
    stream.phase = wanted.get("phase", stream.phase)
    stream.persisted = wanted.get("persisted", stream.persisted)
    stream.updated_at = iso_now()
    return stream.shown()


def _append(lightning: Lightning, ids: tuple[str, ...], query: Query, body: bytes) -> Any:
    appended = msgspec.json.decode(body, type=Appended)  # as the server's own parser, it takes no NaN
    if sum(len(one.values) for one in appended.metrics) > lightning.most_values:
        raise Refused(413, f"more than {lightning.most_values} values")
    lightning.store.append(ids[0], ids[1], appended)
    return {}


def _metrics(lightning: Lightning, ids: tuple[str, ...], query: Query, body: bytes) -> Any:
    low, high = (int(query[name][0]) if name in query else None for name in ("minStep", "maxStep"))
    named: dict[str, Any] = {}
    for stream_id in query["ids"]:
        stream: Stream = lightning.store.stream(ids[0], stream_id)
        for name, held in stream.series.items():
            values = [
                value
                for value in held
                if (low is None or int(value.step) >= low) and (high is None or int(value.step) <= high)
            ]
            if values:
                most = int(query.get("samples", [str(lightning.most_answered)])[0])
                shown = [_shown(value) for value in values[:: -(-len(values) // most)]]
                named.setdefault(name, {"idsMetrics": {}})["idsMetrics"][stream_id] = {"metricsValues": shown}
    return {"namedMetrics": named}


def _shown(value: Value) -> dict[str, Any]:
    return {
        "value": value.value,
        "step": str(value.step),
        "createdAt": value.created_at.replace("+00:00", "Z") or None,
        "walltime": None,
    }


def _summary(lightning: Lightning, ids: tuple[str, ...], query: Query, body: bytes) -> Any:
    summaries: dict[str, Any] = {}
    for stream_id in query["ids"]:
        for name, summary in lightning.store.summary(lightning.store.stream(ids[0], stream_id)).items():
            summaries.setdefault(name, {"summariesPerId": {}})["summariesPerId"][stream_id] = summary
    return {"summariesPerName": summaries}


def _add_artifact(lightning: Lightning, ids: tuple[str, ...], query: Query, body: bytes) -> Any:
    stream = lightning.store.stream(*ids)
    stream.artifacts.append(msgspec.json.decode(body)["path"])
    return {"id": str(len(stream.artifacts)), "path": stream.artifacts[-1]}


def _artifacts(lightning: Lightning, ids: tuple[str, ...], query: Query, body: bytes) -> Any:
    stream = lightning.store.stream(*ids)
    return {
        "loggerArtifacts": [
            {"id": str(number), "path": path, "clusterId": "cluster-1"} for number, path in enumerate(stream.artifacts)
        ]
    }


def _add_media(lightning: Lightning, ids: tuple[str, ...], query: Query, body: bytes) -> Any:
    stream = lightning.store.stream(*ids)
    media = msgspec.json.decode(body) | {"id": f"media-{len(stream.media) + 1}", "clusterId": "cluster-1"}
    media["storagePath"] = f"media/{stream.id}/{media['id']}"
    stream.media.append(media)
    return {"media": media, "alreadyExists": False}


def _update_media(lightning: Lightning, ids: tuple[str, ...], query: Query, body: bytes) -> Any:
    (media,) = (one for one in lightning.store.stream(*ids[:2]).media if one["id"] == ids[2])
    media |= msgspec.json.decode(body)
    return media


def _media(lightning: Lightning, ids: tuple[str, ...], query: Query, body: bytes) -> Any:
    found = lightning.store.stream(*ids).media
    offset = int(query.get("offset", ["0"])[0])
    limit = min(int(query.get("limit", ["1000000"])[0]), lightning.page)
    return {"media": found[offset : offset + limit], "totalCount": len(found)}


_P = r"/v1/projects/([^/]+)"
_S = rf"{_P}/metrics-streams/([^/]+)"
_ROUTES: list[tuple[str, str, Route]] = [
    ("GET", r"/v1/auth/(?:user|whoami)", _user),
    ("GET", r"/v1/users/search", lambda *_: {"users": [_user()]}),
    ("GET", r"/v1/orgs", lambda *_: {"organizations": [{"id": "org-1", "name": "name-of-org-1"}]}),
    ("GET", r"/v1/orgs/([^/]+)", lambda _, ids, *__: {"id": ids[0], "name": f"name-of-{ids[0]}"}),
    ("GET", r"/v1/memberships", _memberships),
    ("POST", r"/v1/projects", _create_project),
    ("GET", _P, lambda lightning, ids, *_: lightning.store.teamspace(ids[0]).shown()),
    ("GET", rf"{_P}/models", lambda *_: {"models": []}),
    ("GET", r"/v1/metrics-streams", _stream),
    ("GET", rf"{_P}/metrics-stream/list", _streams),
    ("POST", rf"{_P}/metrics-stream/create", _create_stream),
    ("POST", rf"{_P}/metrics-stream/delete", _delete_streams),
    ("PUT", rf"{_P}/metrics-stream/([^/]+)", _update_stream),
    ("PUT", rf"{_P}/logger-metrics/([^/]+)", _append),
    ("GET", rf"{_P}/logger-metrics", _metrics),
    ("GET", rf"{_P}/logger-metrics-summary", _summary),
    ("POST", rf"{_S}/logger-artifacts", _add_artifact),
    ("GET", rf"{_S}/logger-artifacts", _artifacts),
    ("POST", rf"{_S}/media", _add_media),
    ("PUT", rf"{_S}/media/([^/]+)", _update_media),
    ("GET", rf"{_S}/media", _media),
    ("POST", rf"{_P}/artifacts/blobs", lambda li, ids, _, body: li.drive.sign(ids[0], msgspec.json.decode(body))),
    (
        "POST",
        rf"{_P}/artifacts/blobs/complete",
        lambda li, ids, _, body: li.drive.complete(ids[0], msgspec.json.decode(body)),
    ),
]

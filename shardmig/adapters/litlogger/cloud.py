"""Lightning's REST API, through the vendor's own client, with our budget, patience and errors.

The client is the one below litlogger (`GridRestClient`, `MetricsApi`), made without `litlogger.init`: no background
thread, no handler of SIGTERM, SIGINT or exit, no GET of all models for every new key. What is written goes through its
methods; what is read comes through its transport and is decoded here, since its models cost 30 times as much a point
(measured). Its urllib3 repeats a PUT whose answer did not come, and so would append points twice (measured: once a cut
connection): that is switched off, and what may be repeated is repeated by `retrying`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import urlencode

import msgspec

from shardmig.adapters.budget import budget_of
from shardmig.adapters.litlogger.answers import (
    ArtifactList,
    Media,
    MediaPage,
    Memberships,
    MetricsAnswer,
    Organizations,
    Owner,
    Stream,
    StreamPage,
    Summary,
    SummaryAnswer,
    Tag,
    Teamspace,
    Users,
    Value,
)
from shardmig.adapters.litlogger.options import CloudOptions, authorization
from shardmig.adapters.litlogger.refusals import lightning_errors, status_error
from shardmig.adapters.wrappers import retrying
from shardmig.errors import BadInput, NotFound, Permanent, TargetConflict

T = TypeVar("T")
Query = Mapping[str, str | int]

PER_PAGE: Final = 500
_CONNECT_S: Final = 10.0
_REFUSAL_BYTES: Final = 1 << 16


class NewMedium(NamedTuple):
    """An image or a video that is to be shown. `caption`: no two media of an experiment have the same."""

    name: str
    caption: str
    mime_type: str
    size_bytes: int
    content_hash: str
    step: int | None


class Cloud:
    """The API. Every call waits for its turn, and is tried again unless it says otherwise. Safe to use from threads."""

    def __init__(self, options: CloudOptions) -> None:
        from lightning_sdk.lightning_cloud.openapi import ApiClient, Configuration
        from lightning_sdk.lightning_cloud.rest_client import GridRestClient
        from litlogger.api.metrics_api import MetricsApi
        from urllib3 import Retry, Timeout

        header = authorization(options)
        configuration: Any = Configuration()
        configuration.host = options.cloud_url
        configuration.request_timeout = (_CONNECT_S, options.timeout_s)
        configuration.ssl_ca_cert = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")
        client: Any = ApiClient(configuration)
        client.default_headers["Authorization"] = header
        client.user_agent = "shardmig"
        self._pool: Any = client.rest_client.pool_manager
        self._pool.connection_pool_kw["retries"] = Retry(None, connect=0, read=0, status=0, other=0, redirect=5)
        self.url = options.cloud_url
        self.headers = {"Authorization": header, "User-Agent": "shardmig"}
        self._timeout = Timeout(connect=_CONNECT_S, read=options.timeout_s)
        self.budget = budget_of(f"litlogger {self.url}", requests_per_s=options.requests_per_s)
        self._api: Any = GridRestClient(api_client=client)
        self._metrics: Any = MetricsApi(client=self._api)

    def teamspaces(self) -> list[Teamspace]:
        """Those that the user is a member of; `project_id` is set."""
        return self.get("/v1/memberships", {"filterByUserId": "true"}, Memberships).memberships

    def teamspace(self, teamspace_id: str) -> Teamspace:
        """One by its id. Raises NotFound, Denied."""
        return self.get(f"/v1/projects/{teamspace_id}", {}, Teamspace)

    def owner_name(self, teamspace: Teamspace) -> str:
        """The name of the user or organization that owns it; "" = not known."""
        owner_id = teamspace.owner_id
        try:
            if "org" in teamspace.owner_type.lower():
                return self.get(f"/v1/orgs/{owner_id}", {}, Owner).name
            users = self.get("/v1/users/search", {"query": owner_id}, Users).users
        except Permanent:
            return ""
        return next((user.username for user in users if user.id == owner_id), "")

    def organization_id(self, wanted: str) -> str:
        """The id of an organization of this user, named by its id or its name; "" = the user's own account, named by the user
        name or by "". Raises BadInput."""
        if not wanted:
            return ""
        known = self.get("/v1/orgs", {}, Organizations).organizations
        for owner in known:
            if wanted in (owner.id, owner.name, owner.display_name):
                return owner.id
        if wanted == self.get("/v1/auth/user", {}, Owner).username:
            return ""
        names = ", ".join(sorted(owner.name for owner in known)) or "none"
        raise BadInput(f"{wanted!r} is no organization of this user", hint=f"known: {names}")

    def create_teamspace(self, name: str, display_name: str, organization: str) -> Teamspace:
        """A new one, or the one that is there already. Raises Denied."""
        from lightning_sdk.lightning_cloud.openapi import V1CreateProjectRequest

        owner = self.organization_id(organization) or None
        body = V1CreateProjectRequest(name=name, display_name=display_name, organization_id=owner)
        create = self._api.projects_service_create_project
        try:
            made = self.patiently(f"teamspace {name}", lambda: create(body=body))
        except (TargetConflict, BadInput) as error:
            held = next((one for one in self.teamspaces() if one.name == name and owner in (None, one.owner_id)), None)
            if held is None:
                error.message += f"; {organization or 'this user'} has none of that name"
                error.args = (error.message,)
                raise
            return held
        return Teamspace(project_id=made.id, name=made.name, owner_id=made.owner_id or "")

    def streams(self, teamspace_id: str, *, surely: bool = False) -> Iterator[Stream]:
        """Every stream of a teamspace, each once. Offsets move when streams come or go: whatever comes twice is left out, and
        `surely`: several pages are read until that brings nothing new, since whatever moved up was on none."""
        seen: set[str] = set()
        is_new = True
        while is_new:
            is_new = False
            for number, page in enumerate(self._pages_of_streams(teamspace_id)):
                new = [stream for stream in page if stream.id not in seen]
                is_new |= surely and bool(new) and (number > 0 or len(seen) > 0)
                seen |= {stream.id for stream in new}
                yield from new

    def _pages_of_streams(self, teamspace_id: str) -> Iterator[list[Stream]]:
        place = f"/v1/projects/{teamspace_id}/metrics-stream/list"
        offset, before = 0, None
        while page := self.get(place, {"limit": PER_PAGE, "offset": offset}, StreamPage).metrics_streams:
            if page == before:  # a server that knows no offsets
                return
            yield page
            offset, before = offset + len(page), page

    def stream(self, teamspace_id: str, stream_id: str) -> Stream:
        """One by its id. Raises NotFound."""
        return self.get("/v1/metrics-streams", {"projectId": teamspace_id, "id": stream_id}, Stream)

    def stream_named(self, teamspace_id: str, name: str) -> Stream | None:
        """One by its name."""
        try:
            return self.get("/v1/metrics-streams", {"projectId": teamspace_id, "name": name}, Stream)
        except NotFound:
            return None

    def create_stream(
        self, teamspace_id: str, name: str, metadata: Mapping[str, str], colors: tuple[str, str]
    ) -> Stream:
        """The stream of that name, new unless an earlier attempt made it. It tells nothing of this computer, which
        litlogger's own call would."""
        from lightning_sdk.lightning_cloud.openapi import LitLoggerServiceCreateMetricsStreamBody, V1MetricsTags

        body = LitLoggerServiceCreateMetricsStreamBody(
            name=name,
            tags=[V1MetricsTags(name=key, value=text, from_code=True, active=True) for key, text in metadata.items()],
            light_color=colors[0],
            dark_color=colors[1],
            store_step=True,
            store_created_at=True,
        )
        create = self._api.lit_logger_service_create_metrics_stream
        is_first = True

        def attempt() -> Stream:
            nonlocal is_first
            if not is_first and (held := self.stream_named(teamspace_id, name)) is not None:
                return held
            is_first = False
            with lightning_errors(f"experiment {name}"):
                made = create(project_id=teamspace_id, body=body)
            tags = [Tag(key, text, from_code=True) for key, text in metadata.items()]
            return Stream(id=made.id, name=name, project_id=teamspace_id, cluster_id=made.cluster_id or "", tags=tags)

        return retrying(attempt, limit=self.budget)

    def update_stream(self, stream: Stream, phase: str, metadata: Mapping[str, str]) -> None:
        """Set the phase and all metadata."""
        from litlogger.types import PhaseType

        self.patiently(
            f"metadata of {stream.name}",
            lambda: self._metrics.update_experiment_metrics(
                teamspace_id=stream.project_id,
                metrics_store_id=stream.id,
                persisted=phase != "RUNNING",
                phase=PhaseType(phase.lower()),
                metadata=dict(metadata),
            ),
        )

    def delete_stream(self, teamspace_id: str, stream_id: str) -> None:
        """Remove a stream; one that is not there is no error."""
        from lightning_sdk.lightning_cloud.openapi import LitLoggerServiceDeleteMetricsStreamBody

        body = LitLoggerServiceDeleteMetricsStreamBody(ids=[stream_id])
        delete = self._api.lit_logger_service_delete_metrics_stream
        try:
            self.patiently(f"experiment {stream_id}", lambda: delete(project_id=teamspace_id, body=body))
        except NotFound:
            return

    def append_once(self, stream: Stream, metrics: Sequence[Any]) -> None:
        """Append litlogger `Metrics`: at most 1000 values. Not idempotent, so not tried again, and its turn is the
        caller's to take."""
        with lightning_errors(f"points of {stream.name}"):
            self._metrics.append_experiment_metrics(
                teamspace_id=stream.project_id, metrics_store_id=stream.id, metrics=list(metrics)
            )

    def summaries(self, stream: Stream) -> dict[str, Summary]:
        """Count and last point of every series."""
        place = f"/v1/projects/{stream.project_id}/logger-metrics-summary"
        found = self.get(place, {"ids": stream.id}, SummaryAnswer).summaries_per_name
        return {name: of[stream.id] for name, one in found.items() if stream.id in (of := one.summaries_per_id)}

    def values(
        self, stream: Stream, low: int | None, high: int | None, most_bytes: int | None = None
    ) -> dict[str, list[Value]] | None:
        """Points of every series whose steps are from `low` to `high`; None where the answer is longer than that."""
        query: dict[str, str | int] = {"ids": stream.id}
        query |= {} if low is None else {"minStep": low}
        query |= {} if high is None else {"maxStep": high}
        content = self._content(f"/v1/projects/{stream.project_id}/logger-metrics", query, most_bytes)
        if content is None:
            return None
        found = _decoded("points", content, MetricsAnswer).named_metrics
        return {
            name: of[stream.id].metrics_values for name, one in found.items() if stream.id in (of := one.ids_metrics)
        }

    def artifacts(self, stream: Stream) -> list[str]:
        """The paths of the artifacts, each once."""
        place = f"/v1/projects/{stream.project_id}/metrics-streams/{stream.id}/logger-artifacts"
        return sorted({artifact.path for artifact in self.get(place, {}, ArtifactList).logger_artifacts})

    def add_artifact(self, stream: Stream, path: str) -> None:
        """Let the experiment show a file of its folder; shown once, however often an attempt is answered too late."""
        from lightning_sdk.lightning_cloud.openapi import LitLoggerServiceCreateLoggerArtifactBody

        body = LitLoggerServiceCreateLoggerArtifactBody(path=path)
        create = self._api.lit_logger_service_create_logger_artifact
        is_first = True

        def attempt() -> None:
            nonlocal is_first
            if not is_first and path in self.artifacts(stream):
                return
            is_first = False
            with lightning_errors(f"artifact {path}"):
                create(project_id=stream.project_id, metrics_stream_id=stream.id, body=body)

        retrying(attempt, limit=self.budget)

    def media(self, stream: Stream) -> Iterator[Media]:
        """Every image, text and video of an experiment, each once."""
        place = f"/v1/projects/{stream.project_id}/metrics-streams/{stream.id}/media"
        seen: set[str] = set()
        while True:
            page = self.get(place, {"limit": PER_PAGE, "offset": len(seen)}, MediaPage).media
            new = [media for media in page if media.id not in seen]
            if not new:
                return
            seen |= {media.id for media in new}
            yield from new

    def add_medium(self, stream: Stream, wanted: NewMedium) -> Media:
        """Announce a medium: where its file is to be put, after which it is to be completed. One of that caption,
        however often an attempt is answered too late."""
        from lightning_sdk.lightning_cloud.openapi import LitLoggerServiceCreateLitLoggerMediaBody, V1MediaType

        is_video = wanted.mime_type.startswith("video/")
        body = LitLoggerServiceCreateLitLoggerMediaBody(
            name=wanted.name,
            caption=wanted.caption,
            media_type=V1MediaType.VIDEO if is_video else V1MediaType.IMAGE,
            mime_type=wanted.mime_type,
            size_bytes=str(wanted.size_bytes),
            content_hash=wanted.content_hash,
            step=None if wanted.step is None else str(wanted.step),
        )
        create = self._api.lit_logger_service_create_lit_logger_media
        is_first = True

        def attempt() -> Media:
            nonlocal is_first
            if not is_first:
                for held in self.media(stream):
                    if held.caption == wanted.caption:
                        return held
            is_first = False
            with lightning_errors(f"medium {wanted.name}"):
                answer = create(project_id=stream.project_id, metrics_stream_id=stream.id, body=body)
            made, is_there = answer.media, bool(answer.already_exists)
            return Media(id=made.id, storage_path=made.storage_path, upload_complete=is_there)

        return retrying(attempt, limit=self.budget)

    def complete_medium(self, stream: Stream, medium: Media) -> None:
        """Its file is where it is to be."""
        from lightning_sdk.lightning_cloud.openapi import LitLoggerServiceUpdateLitLoggerMediaBody

        body = LitLoggerServiceUpdateLitLoggerMediaBody(upload_complete=True)
        update = self._api.lit_logger_service_update_lit_logger_media
        place = {"project_id": stream.project_id, "metrics_stream_id": stream.id, "id": medium.id}
        self.patiently(f"medium {medium.id}", lambda: update(body=body, **place))

    def get(self, place: str, query: Query, kind: type[T]) -> T:
        """GET and decode."""
        content = self._content(place, query, None)
        assert content is not None
        return _decoded(place, content, kind)

    @contextmanager
    def asked(self, method: str, url: str, headers: Mapping[str, str], body: Any = None) -> Iterator[Any]:
        """The answer to one request while it is read, through the client's connections; not tried again."""
        what = f"{method} {url.partition('?')[0]}"  # an address signed with a secret says it behind the ?
        with lightning_errors(what):
            answer = self._pool.request(
                method, url, headers=dict(headers), body=body, timeout=self._timeout, preload_content=False
            )
            try:
                self.budget.heed(answer.headers)
                if answer.status >= 300:
                    raise status_error(what, answer.status, answer.read(_REFUSAL_BYTES), answer.headers)
                yield answer
            finally:
                answer.close()

    def _content(self, place: str, query: Query, most_bytes: int | None) -> bytes | None:
        url = f"{self.url}{place}?{urlencode(query)}" if query else self.url + place

        def attempt() -> bytes | None:
            with self.asked("GET", url, self.headers) as answer:
                blocks, size_bytes = [], 0
                for block in answer.stream(1 << 20):
                    blocks.append(block)
                    size_bytes += len(block)
                    if most_bytes is not None and size_bytes > most_bytes:
                        return None
                return b"".join(blocks)

        return retrying(attempt, limit=self.budget)

    def patiently(self, what: str, call: Callable[[], T]) -> T:
        """The result of one idempotent call of the vendor's client."""

        def attempt() -> T:
            with lightning_errors(what):
                return call()

        return retrying(attempt, limit=self.budget)

    def close(self) -> None:
        """Close the connections; idempotent."""
        self._pool.clear()


def _decoded(place: str, content: bytes, kind: type[T]) -> T:
    """64-bit integers come as texts."""
    try:
        return msgspec.json.decode(content, type=kind, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{place}: the answer cannot be read: {error}") from error

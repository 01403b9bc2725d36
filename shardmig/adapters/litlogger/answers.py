"""What of Lightning's answers is looked at. What is zero may be left out of them, a time that is not set
may be null, and 64-bit integers come as texts."""

from __future__ import annotations

from typing import Any

import msgspec


class Answer(msgspec.Struct, frozen=True, rename="camel"):
    """Part of an answer; what is zero may be left out of it."""


class Tag(Answer, frozen=True):
    """One entry of an experiment's metadata."""

    name: str = ""
    value: str = ""
    from_code: bool = False


class Stream(Answer, frozen=True):
    """A metrics stream, which users call an experiment."""

    id: str
    name: str = ""
    project_id: str = ""
    cluster_id: str = ""
    phase: str = "RUNNING"
    tags: list[Tag] = []
    created_at: str | None = None
    updated_at: str | None = None
    updates_counter: int | str = 0
    light_color: str = ""
    dark_color: str = ""
    system_info: dict[str, Any] | None = None

    @property
    def metadata(self) -> dict[str, str]:
        """The tags by name."""
        return {tag.name: tag.value for tag in self.tags}


class Settings(Answer, frozen=True):
    """Of a teamspace."""

    preferred_cluster: str = ""


class Teamspace(Answer, frozen=True):
    """A project in the API's words. `project_id` is how a membership names it."""

    id: str = ""
    project_id: str = ""
    name: str = ""
    display_name: str = ""
    owner_id: str = ""
    owner_type: str = ""
    project_settings: Settings | None = None


class Summary(Answer, frozen=True):
    """What a series has."""

    num_values: int = 0
    last_step: int = 0
    last_value: float | str | None = 0.0
    min_step: int = 0
    max_step: int = 0


class Value(Answer, frozen=True, gc=False):
    """One point as it is answered."""

    value: float | str = 0.0
    step: int | str = 0
    created_at: str | None = None


class Media(Answer, frozen=True):
    """One image, text or video of an experiment."""

    id: str = ""
    name: str = ""
    storage_path: str = ""
    cluster_id: str = ""
    mime_type: str = ""
    caption: str = ""
    upload_complete: bool = False
    step: int | str | None = None
    created_at: str | None = None


class Owner(Answer, frozen=True):
    """A user or an organization."""

    id: str = ""
    name: str = ""
    display_name: str = ""
    username: str = ""


class Users(Answer, frozen=True):
    """Users that a search found."""

    users: list[Owner] = []


class Organizations(Answer, frozen=True):
    """The organizations of a user."""

    organizations: list[Owner] = []


class Memberships(Answer, frozen=True):
    """The teamspaces of a user."""

    memberships: list[Teamspace] = []


class StreamPage(Answer, frozen=True):
    """Some streams of a teamspace."""

    metrics_streams: list[Stream] = []


class OfIds(Answer, frozen=True):
    """Summaries by stream."""

    summaries_per_id: dict[str, Summary] = {}


class SummaryAnswer(Answer, frozen=True):
    """Summaries by series."""

    summaries_per_name: dict[str, OfIds] = {}


class Values(Answer, frozen=True):
    """Points of one series of one stream."""

    metrics_values: list[Value] = []


class Ids(Answer, frozen=True):
    """Points by stream."""

    ids_metrics: dict[str, Values] = {}


class MetricsAnswer(Answer, frozen=True):
    """Points by series."""

    named_metrics: dict[str, Ids] = {}


class Artifact(Answer, frozen=True):
    """One file of an experiment."""

    path: str = ""


class ArtifactList(Answer, frozen=True):
    """All of them."""

    logger_artifacts: list[Artifact] = []


class MediaPage(Answer, frozen=True):
    """Some media of an experiment."""

    media: list[Media] = []


class Signed(msgspec.Struct, frozen=True):
    """An address to put a file or a part of one to."""

    url: str
    part_number: int | str = 1
    headers: dict[str, str] | None = None


class Upload(msgspec.Struct, frozen=True):
    """How one file is taken."""

    urls: list[Signed] = []
    upload_id: str = ""
    complete_required: bool = False


class Uploads(msgspec.Struct, frozen=True):
    """How files are taken."""

    results: list[Upload] = []

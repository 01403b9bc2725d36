"""The options of ZenML as target and as source. Credentials come from ZenML's own login or environment variables only."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Final, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec

from shardmig.errors import UsageError

TEMPLATE_FIELDS: Final = ("project_id", "workspace", "project", "sys_name")


class StoreOptions(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """Where ZenML is, whether it is written or read.

    store_url  http(s) server, `sqlite:///…` or `mysql://…`; default: the store that ZenML's own configuration
               ($ZENML_CONFIG_PATH, `zenml login`, $ZENML_STORE_URL) names
    project    ZenML's project; default: the active one
    """

    store_url: str = ""
    project: str = ""


class TargetOptions(StoreOptions, frozen=True, kw_only=True):
    """Where and how to write.

    artifact_store       name of the artifact store for files and series; default: that of the active stack
    name_prefix          put before every model's name
    model_name_template  of {project_id}, {workspace}, {project}, {sys_name}; a part between slashes that names a fact
                         which the run does not have is left out
    artifacts            fields: an artifact for each file field and each string or histogram series, beside the one that
                         holds the whole run. run: only that one
    names                exact: the store tells `lr` from `LR` (SQLite). caseless: it may not (MySQL), so names with
                         anything but lower-case ASCII get a digest. Default: caseless for mysql:// URLs
    artifact_workers     files of one run that go up at the same time
    """

    artifact_store: str = ""
    name_prefix: str = ""
    model_name_template: str = "{project_id}"
    artifacts: Literal["fields", "run"] = "fields"
    names: Literal["", "exact", "caseless"] = ""
    artifact_workers: int = 4

    @property
    def is_caseless(self) -> bool:
        """Must names differ in more than case?"""
        return self.names == "caseless" or (not self.names and urlsplit(self.store_url).scheme.startswith("mysql"))


_Options = TypeVar("_Options", bound=StoreOptions)


def parse_options(texts: Mapping[str, str]) -> TargetOptions:
    """Options of the target from their texts. Raises UsageError for unknown names, bad values and a password in the URL."""
    options = _converted(texts, TargetOptions, "target")
    try:
        fields = [name for _, name, _, _ in Formatter().parse(options.model_name_template) if name is not None]
    except ValueError as error:
        raise UsageError(f"model-name-template: {error}") from error
    if unknown := sorted(set(fields) - set(TEMPLATE_FIELDS)):
        raise UsageError(
            f"model-name-template: unknown field {unknown[0]!r}", hint=f"known: {', '.join(TEMPLATE_FIELDS)}"
        )
    if options.artifact_workers < 1:
        raise UsageError("artifact-workers must be at least 1")
    return options


def parse_source_options(texts: Mapping[str, str]) -> StoreOptions:
    """Options of the source from their texts. Raises UsageError as `parse_options`."""
    return _converted(texts, StoreOptions, "source")


def _converted(texts: Mapping[str, str], kind: type[_Options], role: str) -> _Options:
    try:
        options = msgspec.convert(dict(texts), kind, strict=False)
    except msgspec.ValidationError as error:
        names = ", ".join(field.encode_name for field in msgspec.structs.fields(kind))
        raise UsageError(f"zenml {role}: {error}", hint=f"known options: {names}") from error
    if not options.store_url:
        return options
    parts = urlsplit(options.store_url)
    if parts.password:
        raise UsageError(
            "the store URL holds a password, which would be stored in the plan",
            hint="set $ZENML_STORE_URL instead, or $ZENML_STORE_USERNAME and $ZENML_STORE_PASSWORD",
        )
    if parts.scheme not in ("http", "https", "sqlite", "mysql"):
        raise UsageError(
            f"ZenML has no stores of the kind {parts.scheme or 'path'!r}", hint="known: http, https, sqlite, mysql"
        )
    return options

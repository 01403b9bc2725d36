"""Evaluation datasets with their records.

    MLflow                      field
    id, name, user              sys/id, sys/name, sys/owner
    created, updated            sys/creation_time, sys/modification_time
    last user, computed facts   sys/mlflow/last_updated_by, digest, schema, profile
    tag                         tags/<key>, string
    experiments                 experiments, string_set: their names
    record                      records, string_series: one point a record (JSON: inputs, outputs, expectations, tags, source,
                                id, times, users), in the order of creation; the time is that of creation

A record is found again by its inputs, so writing it twice makes one. What MLflow sets by itself of a record (id, times,
users) is kept in a tag of the record, `shardmig.record`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Any, Final

import numpy as np

from shardmig.adapters.mlflow.merging import CONFLICT
from shardmig.adapters.mlflow.objects.base import (
    REGISTRY,
    SERIES_POINTS,
    TAGS,
    Making,
    Stored,
    Tree,
    json_of,
    scalars,
    tag_fields,
    texts_of,
    times,
)
from shardmig.adapters.mlflow.objects.references import References
from shardmig.adapters.mlflow.objects.stores import IN_PAGE, Stores, batches, pages
from shardmig.adapters.mlflow.refusals import mlflow_errors
from shardmig.adapters.sidecar.provenance import KEY
from shardmig.errors import BadInput, Permanent
from shardmig.records import NO_TIME, Field, Finding, MigrationKey, Points, RunId, Scope, Steps, StringPoints, Texts

RECORDS: Final = "records"
OWN_RECORD: Final = "shardmig.record"
RECORDS_IN_REQUEST: Final = 500
_OWN: Final = frozenset({"sys/id", "sys/creation_time", "sys/owner"})
_VOLATILE: Final = frozenset(
    {"sys/modification_time", *(f"sys/mlflow/{name}" for name in ("last_updated_by", "digest", "schema", "profile"))}
)
_DIGEST: Final = "digest"
"""In OWN_RECORD: of what was written."""
_CONTENT: Final = ("inputs", "outputs", "expectations", "source")
_FACTS: Final = {
    "id": "dataset_record_id",
    "created": "created_time",
    "updated": "last_update_time",
    "created_by": "created_by",
    "updated_by": "last_updated_by",
}


class Datasets:
    """`ObjectClass` of evaluation datasets."""

    scope: Scope = "datasets"
    is_linked = False
    keeps_id = False
    completes = True

    def __init__(self, stores: Stores, references: References) -> None:
        self._stores = stores
        self._references = references

    def all(self) -> Iterator[Stored]:
        """As ObjectClass."""
        found = pages(self._stores.tracking.search_datasets, max_results=IN_PAGE)
        return (self._stored(one, self._linked(one.dataset_id)) for one in found)

    def find(self, key: MigrationKey) -> list[Stored]:
        """As ObjectClass."""
        # MLflow's search for datasets knows no tags with dots (measured, 3.17.2).
        return [one for one in self.all() if one.tags.get(KEY) == key]

    def get(self, id_: str) -> Stored:
        """As ObjectClass."""
        with mlflow_errors(f"dataset {id_}"):
            return self._stored(self._stores.tracking.get_dataset(id_))

    def fields(self, stored: Stored) -> Iterator[Field]:
        """As ObjectClass."""
        dataset = stored.content
        texts = {
            "sys/id": dataset.dataset_id,
            "sys/name": dataset.name,
            "sys/owner": dataset.created_by,
            "sys/mlflow/last_updated_by": dataset.last_updated_by,
            "sys/mlflow/digest": dataset.digest,
            "sys/mlflow/schema": dataset.schema,
            "sys/mlflow/profile": dataset.profile,
        }
        yield from scalars(texts)
        yield from times({"sys/creation_time": dataset.created_time, "sys/modification_time": dataset.last_update_time})
        yield from tag_fields(TAGS, stored.tags)
        if linked := self._experiments_of(dataset.dataset_id):
            yield Field("experiments", "string_set", self._references.names_of(linked))

    def points(self, stored: Stored) -> Iterator[Points]:
        """As ObjectClass."""
        records = sorted(map(_told, self._records(stored.id)), key=lambda one: (one["created"] or 0, one["id"]))
        for start in range(0, len(records), SERIES_POINTS):
            part = records[start : start + SERIES_POINTS]
            yield StringPoints(
                [RECORDS],
                np.array([len(part)], np.int64),
                Steps(np.arange(start, start + len(part), dtype=np.int64)),
                np.array([NO_TIME if one["created"] is None else one["created"] for one in part], np.int64),
                Texts.from_list([json_of(one) for one in part]),
            )

    def trees(self, stored: Stored) -> Iterator[Tree]:  # noqa: ARG002
        """As ObjectClass: none."""
        return iter(())

    def is_volatile(self, path: str) -> bool:
        """As ObjectClass."""
        return path in _VOLATILE

    def is_own(self, path: str) -> bool:
        """As ObjectClass."""
        return path in _OWN

    def make(self, making: Making) -> tuple[Stored, list[Finding]]:
        """As ObjectClass."""
        facts = making.facts
        experiments, findings = self._references.experiments(facts.set("experiments"))
        made = self._stores.tracking.create_dataset(
            name=facts.text("sys/name"), tags=facts.texts(TAGS) | making.tags, experiment_ids=experiments
        )
        for batch in batches(_tables_first(map(_record, texts_of(making.points))), RECORDS_IN_REQUEST):
            self._stores.tracking.upsert_dataset_records(made.dataset_id, batch)
        return self.get(made.dataset_id), findings

    def merge(self, stored: Stored, making: Making) -> tuple[Stored, list[Finding]]:
        """As ObjectClass. A record is told by its inputs; one that was changed here since it came is kept."""
        facts = making.facts
        self.tag(stored, {key: text for key, text in facts.texts(TAGS).items() if stored.tags.get(key) != text})
        experiments, findings = self._references.experiments(facts.set("experiments"))
        linked = self._experiments_of(stored.id)
        if new := [one for one in experiments if one not in linked]:
            self._stores.tracking.add_dataset_to_experiments(stored.id, new)
        held = {_inputs(record.inputs): record for record in self._records(stored.id)}
        chosen = []
        for record in map(_record, texts_of(making.points)):
            here = held.get(_inputs(record["inputs"]))
            if here is None or _is_as_brought(here):
                # Times and users change without the content: MLflow notes each time that a record was upserted.
                if here is None or here.tags[OWN_RECORD] != record["tags"][OWN_RECORD]:
                    chosen.append(record)
            elif _content(_of_record(here)) != _content(record):
                detail = f"the record of inputs {_inputs(record['inputs'])[:60]} was changed here: it was kept"
                findings.append(Finding("loss", CONFLICT, RECORDS, detail=detail))
        for batch in batches(_tables_first(chosen), RECORDS_IN_REQUEST):
            self._stores.tracking.upsert_dataset_records(stored.id, batch)
        return self.get(stored.id), findings

    def link(self, stored: Stored, old: RunId) -> None:
        """As ObjectClass: nothing does."""

    def tag(self, stored: Stored, tags: Mapping[str, str]) -> None:
        """As ObjectClass."""
        self._stores.tracking.set_dataset_tags(stored.id, dict(tags))

    def discard(self, stored: Stored) -> None:
        """As ObjectClass."""
        self._stores.tracking.delete_dataset(stored.id)

    def _stored(self, dataset: Any, linked: Sequence[str] = ()) -> Stored:
        """`linked`: for the revision."""
        tags = dict(dataset.tags or {})
        own = (dataset.name, dataset.digest, dataset.last_update_time, dataset.schema, dataset.profile)
        return Stored(
            id=dataset.dataset_id,
            project=REGISTRY,
            name=RunId(dataset.dataset_id),
            tags=tags,
            content=dataset,
            revision=repr((own, sorted(tags.items()), list(linked))),
            created_ms=dataset.created_time,
        )

    def _linked(self, id_: str) -> list[str]:
        """The experiments that a dataset of a source is shown in, which no search tells."""
        with suppress(Permanent), mlflow_errors(f"dataset {id_}"):
            return [] if self._references.is_target else sorted(self._experiments_of(id_))
        return []  # whoever reads it says why

    def _experiments_of(self, id_: str) -> list[str]:
        return [str(one) for one in self._stores.tracking.get_dataset_experiment_ids(id_)]

    def _records(self, dataset_id: str) -> Iterator[Any]:
        token = None
        while True:
            load = self._stores.tracking._load_dataset_records  # noqa: SLF001 (there is no other way to read them)
            found, token = load(dataset_id, max_results=RECORDS_IN_REQUEST, page_token=token)
            yield from found
            if not token:
                return


def _tables_first(records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """MLflow dies of outputs with names that come after outputs that are one value (measured, 3.17.2)."""
    others = []
    for record in records:
        if isinstance(record["outputs"], dict):
            yield record
        else:
            others.append(record)
    yield from others


def _inputs(inputs: Any) -> str:
    return json_of(inputs, sort_keys=True)


def _of_record(record: Any) -> dict[str, Any]:
    """What a record holds, as it is given to MLflow."""
    source = record.source.to_dict() if record.source is not None else None
    texts = {"inputs": record.inputs, "outputs": record.outputs, "expectations": record.expectations}
    return texts | {"source": source, "tags": dict(record.tags or {})}


def _content(record: Mapping[str, Any]) -> str:
    """A digest of it, but of what shardmig notes itself."""
    tags = {key: text for key, text in (record["tags"] or {}).items() if key != OWN_RECORD}
    told = [record[name] or None for name in ("outputs", "expectations")]
    return blake2b(json.dumps([told, tags], sort_keys=True).encode(), digest_size=8).hexdigest()


def _is_as_brought(record: Any) -> bool:
    """Was it left alone since shardmig wrote it?"""
    own = json.loads((record.tags or {}).get(OWN_RECORD, "{}"))
    return bool(own) and own.get(_DIGEST) == _content(_of_record(record))


def _told(record: Any) -> dict[str, Any]:
    """One record as JSON says it; what MLflow set by itself, as it was in the source."""
    tags = dict(record.tags or {})
    own = tags.pop(OWN_RECORD, None)
    facts = {name: getattr(record, attribute) for name, attribute in _FACTS.items()}
    if own is not None:
        facts |= json.loads(own)
        facts.pop(_DIGEST, None)
    content = {
        "inputs": record.inputs,
        "outputs": record.outputs,
        "expectations": record.expectations,
        "source": record.source.to_dict() if record.source is not None else None,
        "tags": tags,
    }
    return facts | content


def _record(text: str) -> dict[str, Any]:
    """Back from `_told`, for MLflow."""
    try:
        told = json.loads(text)
        content = {name: told[name] for name in _CONTENT} | {"tags": told["tags"]}
        own = {name: told[name] for name in _FACTS} | {_DIGEST: _content(content)}
        return content | {"tags": told["tags"] | {OWN_RECORD: json.dumps(own, sort_keys=True)}}
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"a record cannot be read: {error!r}", field=RECORDS) from error

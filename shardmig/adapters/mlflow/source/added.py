"""What people made of a run that shardmig brought: its manifest does not know it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from shardmig.adapters.base import Want
from shardmig.adapters.mlflow import native
from shardmig.adapters.mlflow.facts import PARENT, RUN_NAME, tag_value
from shardmig.adapters.mlflow.objects.shared import ALSO
from shardmig.adapters.mlflow.store import Experiment, StoredRun
from shardmig.adapters.sidecar.manifest import Manifest
from shardmig.adapters.sidecar.naming import OWN_FOLDER
from shardmig.records import Field
from shardmig.selection import Matcher

_DESCRIPTION: Final = "mlflow.note.content"
_PARENT_FACT: Final = f"{native.OWN_FACTS}parent_run_id"


def brought_artifacts(manifest: Manifest) -> frozenset[str]:
    """The artifacts that a run came with, and the folder of those that shardmig added."""
    return manifest.artifacts | {f"{OWN_FOLDER}/"}


def as_left(
    fields: Iterable[Field], run: StoredRun, experiment: Experiment, manifest: Manifest, parent: str
) -> list[Field]:
    """The fields that came with a run, but what people changed here since as it is now. `parent`: what the parent that it has
    now was called; "" = none."""
    now = {field.path: field for field in native.run_fields(run, experiment)}
    changed = set(_changed(run, experiment, manifest, parent))
    if parent:
        now |= {path: Field(path, "string", parent) for path in (_PARENT_FACT, native.TAGS + PARENT)}
    kept = [field for field in fields if field.path not in changed]
    found = [*kept, *(now[path] for path in changed if path in now)]
    return sorted(found, key=lambda field: (field.path, field.type))


def _changed(run: StoredRun, experiment: Experiment, manifest: Manifest, parent: str) -> Iterator[str]:
    """The paths of facts that are not what the run was brought with. MLflow keeps the end of a run that was begun again."""
    before = native.NativeFacts(manifest.run)
    before.learn(manifest.held)
    own, end_ms = native.OWN_FACTS, before.end_ms(None)
    if before.name != run.name:
        yield from ("sys/name", native.TAGS + RUN_NAME)
    if is_ended_otherwise := before.status != run.status:
        yield from (f"{own}status", "sys/failed", "sys/state")
    if end_ms != run.end_ms and (is_ended_otherwise or end_ms is not None):
        yield from (f"{own}end_time", "sys/running_time")
    if before.is_deleted != run.is_deleted:
        yield "sys/trashed"
    if before.parent_run_id != parent:
        yield from (_PARENT_FACT, native.TAGS + PARENT)
    if (described := before.tag_fields.get(_DESCRIPTION)) and tag_value(described) != run.tags.get(_DESCRIPTION):
        yield "sys/description"
    if not any(tag.startswith(ALSO) for tag in experiment.tags):  # else some of them are another copy's
        for tag, text in before.experiment_tags.items():
            if experiment.tags.get(tag) != text:
                yield native.EXPERIMENT_TAGS + tag


def tag_fields(tags: Mapping[str, str], want: Want) -> list[Field]:
    """Tags as fields, but those that are facts of the run."""
    wants = Matcher(want.selection).wants_field
    added: Iterable[Field] = (
        Field(native.TAGS + key, "string", text) for key, text in tags.items() if not native.is_reserved(key)
    )
    return [field for field in added if wants(field.path, field.type)]


def model_fields(run: StoredRun, called: Callable[[str], str], want: Want) -> list[Field]:
    """The logged models that people linked to a run that was brought. `called`: by MLflow's id what the archive calls one; "" =
    it is gone, as one is that was made anew since."""
    wants = Matcher(want.selection).wants_field
    links = [native.decode_link(text) for tag, text in run.tags.items() if tag.startswith(native.LINK)]
    inputs = {link.id for link in links if link.is_input}
    outputs = {link.id for link in links if link.step is not None}
    found = [(native.MODEL_INPUTS, id_, number) for number, id_ in enumerate(run.model_inputs) if id_ not in inputs]
    found += [(native.MODEL_OUTPUTS, id_, step) for id_, step in run.model_outputs if id_ not in outputs]
    added = (Field(folder + name, "int", number) for folder, id_, number in found if (name := called(id_)))
    return [field for field in added if wants(field.path, field.type)]

"""Which runs have a logged model as input or output. Runs are loaded first: until the model comes, a tag keeps the link.

The tag `shardmig.model.<id in the source>` says how the run uses the model, and what the model is called here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from shardmig.adapters.mlflow import facts
from shardmig.adapters.mlflow.native import LINK, ModelLink, decode_link, encode_link
from shardmig.adapters.mlflow.objects.stores import IN_PAGE, Stores, batches, pages
from shardmig.adapters.sidecar import provenance
from shardmig.records import RunId

_EXPERIMENTS_IN_SEARCH: Final = 1000
_TRIES: Final = 5


class RunLinks:
    """Links between runs and logged models of one MLflow."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def link_model(self, old: RunId, model_id: str) -> None:
        """Link a model that came to the runs that wait for it. `old`: its id in the source. Idempotent."""
        for run in self._stores.search_runs(f"tags.`{LINK}{old}` LIKE '%'"):
            link = decode_link(run.data.tags[f"{LINK}{old}"])
            if run.info.lifecycle_stage != "active" and run.data.tags.get(facts.LIFECYCLE) != facts.DELETED:
                continue  # discarded
            if link.id == model_id:
                delete_again(self._stores, run)
            else:
                self._link(run.info.run_id, old, link, model_id)

    def link_run(self, run_id: str, waiting: Mapping[str, ModelLink]) -> None:
        """Link a run to those of the models that it waits for that are here. Idempotent."""
        for old, link in waiting.items():
            found = next(self._models(old), None)
            if found is not None and link.id != found:
                self._link(run_id, RunId(old), link, found)

    def _models(self, old: str) -> Iterator[str]:
        experiments = [one.experiment_id for one in self._stores.experiments()]
        condition = f"tags.`{provenance.RUN_ID}` = '{old}'"
        for ids in batches(experiments, _EXPERIMENTS_IN_SEARCH):
            search = self._stores.tracking.search_logged_models
            for model in pages(search, experiment_ids=list(ids), filter_string=condition, max_results=IN_PAGE):
                if model.tags.get(provenance.STATE) != provenance.LOADING:
                    yield model.model_id

    def _link(self, run_id: str, old: RunId, link: ModelLink, model_id: str) -> None:
        from mlflow.entities import LoggedModelInput, LoggedModelOutput, RunTag

        tracking = self._stores.tracking

        def log(run: Any) -> None:
            if link.is_input and model_id not in _ids(run.inputs.model_inputs if run.inputs else ()):
                tracking.log_inputs(run_id, [], [LoggedModelInput(model_id)])
            if link.step is not None and model_id not in _ids(run.outputs.model_outputs if run.outputs else ()):
                tracking.log_outputs(run_id, [LoggedModelOutput(model_id, link.step)])
            tracking.set_tag(run_id, RunTag(f"{LINK}{old}", encode_link(msgspec.structs.replace(link, id=model_id))))

        log_to_run(self._stores, run_id, log)


def log_to_run(stores: Stores, run_id: str, log: Callable[[Any], None]) -> None:
    """Call `log` with MLflow's run while that is active: nothing can be logged to a deleted one. A copy that was deleted
    in its source is deleted afterwards, also if who made it active died before it was.

    `log` must be idempotent: it is called again when another worker, that logs to the same run, has deleted it."""
    from mlflow.exceptions import MlflowException

    for tries_left in reversed(range(_TRIES)):
        run = stores.tracking.get_run(run_id)
        is_deleted = run.info.lifecycle_stage == "deleted"
        is_deleted_in_the_end = is_deleted or _is_to_be_deleted(run)
        try:
            if is_deleted:
                stores.tracking.restore_run(run_id)
            log(run)
        except MlflowException:
            if not tries_left or not is_deleted_in_the_end:
                raise
        else:
            return
        finally:
            if is_deleted_in_the_end:
                stores.tracking.delete_run(run_id)


def delete_again(stores: Stores, run: Any) -> None:
    """Delete MLflow's run if it is a copy that was deleted in its source: who logged to it may have died before."""
    if run.info.lifecycle_stage == "active" and _is_to_be_deleted(run):
        stores.tracking.delete_run(run.info.run_id)


def _is_to_be_deleted(run: Any) -> bool:
    tags: Mapping[str, str] = run.data.tags
    return tags.get(facts.LIFECYCLE) == facts.DELETED and tags.get(provenance.STATE) == provenance.COMPLETE


def _ids(models: Iterable[Any]) -> set[str]:
    return {model.model_id for model in models}

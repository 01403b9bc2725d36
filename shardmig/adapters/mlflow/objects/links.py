"""Which runs have a logged model as input or output. Runs are loaded first: until the model comes, a tag keeps the link.

The tag `shardmig.model.<id in the source>` says how the run uses the model, and what the model is called here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from shardmig.adapters.mlflow import facts
from shardmig.adapters.mlflow.native import LINK, ModelLink, decode_link, encode_link
from shardmig.adapters.mlflow.objects.stores import IN_PAGE, Stores, batches, pages
from shardmig.adapters.sidecar import provenance
from shardmig.records import RunId

_EXPERIMENTS_IN_SEARCH: Final = 1000


class RunLinks:
    """Links between runs and logged models of one MLflow."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def link_model(self, old: RunId, model_id: str) -> None:
        """Link a model that came to the runs that wait for it. `old`: its id in the source. Idempotent."""
        from mlflow.entities import ViewType

        experiments = [one.experiment_id for one in self._stores.experiments()]
        for ids in batches(experiments, _EXPERIMENTS_IN_SEARCH):
            search = self._stores.tracking.search_runs
            condition = f"tags.`{LINK}{old}` LIKE '%'"
            for run in pages(
                search,
                experiment_ids=list(ids),
                filter_string=condition,
                run_view_type=ViewType.ALL,
                max_results=IN_PAGE,
                order_by=[],
            ):
                if run.info.lifecycle_stage == "active" or run.data.tags.get(facts.LIFECYCLE) == facts.DELETED:
                    self._link(run.info.run_id, old, decode_link(run.data.tags[f"{LINK}{old}"]), model_id)

    def link_run(self, run_id: str, waiting: Mapping[str, ModelLink]) -> None:
        """Link a run to those of the models that it waits for that are here. Idempotent."""
        for old, link in waiting.items():
            if (found := next(self._models(old), None)) is not None:
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
        run = tracking.get_run(run_id)
        has_input = model_id in _ids(run.inputs.model_inputs if run.inputs else ())
        has_output = model_id in _ids(run.outputs.model_outputs if run.outputs else ())
        done = msgspec.structs.replace(link, id=model_id)
        if link == done:
            return
        with active_run(self._stores, run_id):
            if link.is_input and not has_input:
                tracking.log_inputs(run_id, [], [LoggedModelInput(model_id)])
            if link.step is not None and not has_output:
                tracking.log_outputs(run_id, [LoggedModelOutput(model_id, link.step)])
            tracking.set_tag(run_id, RunTag(f"{LINK}{old}", encode_link(done)))


@contextmanager
def active_run(stores: Stores, run_id: str) -> Iterator[None]:
    """Nothing can be logged to a deleted run: meanwhile it is not."""
    is_deleted = stores.tracking.get_run(run_id).info.lifecycle_stage == "deleted"
    if is_deleted:
        stores.tracking.restore_run(run_id)
    try:
        yield
    finally:
        if is_deleted:
            stores.tracking.delete_run(run_id)


def _ids(models: Iterable[Any]) -> set[str]:
    return {model.model_id for model in models}

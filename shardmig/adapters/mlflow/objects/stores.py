"""MLflow's own stores for what is no run: of a server, or of a database. The same calls for both."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

from shardmig.adapters.mlflow.artifacts import RunArtifacts, artifacts_at
from shardmig.adapters.mlflow.http import HttpClient
from shardmig.adapters.mlflow.objects.remote import remote_store
from shardmig.adapters.mlflow.places import on_this_machine
from shardmig.adapters.mlflow.source.databricks import PERMISSIONS, Databricks, permission_fields
from shardmig.adapters.mlflow.source.limits import Artifact
from shardmig.adapters.mlflow.source.tree import files_below, names_in
from shardmig.adapters.mlflow.source.wanted import Wanted
from shardmig.adapters.wrappers import retrying
from shardmig.errors import MissingExtra, Permanent
from shardmig.records import Field, Finding, Scope

if TYPE_CHECKING:
    from shardmig.adapters.mlflow.database.connection import Database

T = TypeVar("T")

IN_PAGE: Final = 200
EXPERIMENTS_IN_SEARCH: Final = 100
EXPERIMENTS_IN_SEARCH_FOR_RUNS: Final = 1000
NAME_IN_FILTER: Final = re.compile("name = (['\"])(.*?)\\1(?: AND .*)?", re.DOTALL)
"""How the versions of one model, its second group, are asked for."""


class Stores:
    """Opened at their first use. `http` is the tracking server's client, None for a database.

    `lost` collects what cannot be read of the object at hand. Raises MissingExtra where mlflow is not installed.
    """

    links_traces = True
    """Can traces be linked to runs?"""

    def __init__(
        self, uri: str, http: HttpClient | None, wanted: Wanted | None = None, *, may_be_bulk: bool = False
    ) -> None:
        """`wanted`: what is read; None = all. `may_be_bulk`: see `bulk`."""
        self.uri = uri
        self.http = http
        self.wanted = wanted or Wanted()
        self.lost: list[Finding] = []
        self._may_be_bulk = may_be_bulk

    @cached_property
    def bulk(self) -> Database | None:
        """A database to write past MLflow's own store; None: it must not be, or this is none."""
        if self.http is not None or not self._may_be_bulk:
            return None
        from shardmig.adapters.mlflow.database import open_bulk

        return open_bulk(self.uri)[0]

    @cached_property
    def tracking(self) -> Any:
        """Runs, experiments, logged models, traces, datasets: mlflow's AbstractStore."""
        try:
            from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
            from mlflow.tracking._tracking_service.utils import _get_store
        except ModuleNotFoundError as error:
            raise _missing(error) from error
        if self.http is not None:
            from mlflow.store.tracking.rest_store import RestStore

            return remote_store(RestStore, self.uri, self.http)
        open_store: Any = _get_store
        return open_store(self.uri, DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)

    @cached_property
    def registry(self) -> Any:
        """Registered models and prompts: mlflow's AbstractStore of the model registry."""
        try:
            from mlflow.tracking._model_registry.utils import _get_store
        except ModuleNotFoundError as error:
            raise _missing(error) from error
        if self.http is not None:
            from mlflow.store.model_registry.rest_store import RestStore

            return remote_store(RestStore, self.uri, self.http)
        open_store: Any = _get_store
        return open_store(self.uri, self.uri)

    def as_default(self) -> AbstractContextManager[None]:
        """Meanwhile MLflow's own global client talks to these stores: what creates a model version from another object in
        a database asks it (measured, 3.17.2)."""
        if self.http is not None:
            return nullcontext()
        from mlflow.tracking._tracking_service.utils import _use_tracking_uri

        use: Any = _use_tracking_uri
        context: AbstractContextManager[None] = use(self.uri)
        return context

    def artifacts(self, uri: str) -> RunArtifacts:
        """The files below a URI."""
        return artifacts_at(uri, self.http)

    def files(self, uri: str) -> Iterator[Artifact]:
        """What they are, sorted within each folder."""
        return files_below(uri, self.http)

    def names(self, uri: str) -> set[str]:
        """The names of files and folders directly below a URI."""
        return names_in(uri, self.http)

    def is_far(self, uri: str) -> bool:
        """Does it take a request to look there?"""
        return on_this_machine(uri) is None

    def permissions(self, scope: Scope, id_: str) -> Iterator[Field]:
        """Who may do what with an experiment, by its id, or a registered model, by its name; nothing unless it was asked for."""
        if self.http is None or not self.wanted.permissions:
            return
        workspace = Databricks(self.http)
        try:
            told = retrying(lambda: workspace.permissions(scope, id_))
        except Permanent as error:
            self.lost.append(Finding("loss", "permissions-not-read", PERMISSIONS, detail=error.message))
            return
        yield from permission_fields(told)

    def experiments(self) -> Iterator[Any]:
        """Every experiment, deleted ones too."""
        from mlflow.entities import ViewType

        return pages(self.tracking.search_experiments, view_type=ViewType.ALL, max_results=IN_PAGE)

    def search_runs(self, condition: str) -> Iterator[Any]:
        """Every run that meets a condition, deleted ones too."""
        from mlflow.entities import ViewType

        experiments = [one.experiment_id for one in self.experiments()]
        for ids in batches(experiments, EXPERIMENTS_IN_SEARCH_FOR_RUNS):
            yield from pages(
                self.tracking.search_runs,
                experiment_ids=ids,
                filter_string=condition,
                run_view_type=ViewType.ALL,
                max_results=IN_PAGE,
                order_by=[],
            )

    def trace_pages(self, experiments: list[str], condition: str | None) -> Iterator[list[Any]]:
        """What a search for traces in these experiments, EXPERIMENTS_IN_SEARCH at most, finds."""
        token = None
        while True:
            found, token = self.tracking.search_traces(
                locations=experiments, filter_string=condition, max_results=IN_PAGE, page_token=token
            )
            yield list(found)
            if not token:
                return

    def close(self) -> None:
        """As RunStore. A database's connections go back to their pool."""
        for name in ("tracking", "registry"):
            engine = getattr(self.__dict__.get(name), "engine", None)
            if engine is not None:
                engine.dispose()
        if (database := self.__dict__.get("bulk")) is not None:
            database.close()


@contextmanager
def asked_once() -> Iterator[None]:
    """Meanwhile MLflow's own client repeats no request: it would go on for minutes where a server answers 500 to what it
    never can do (measured, 3.17.2: a batch with one trace whose spans are among its artifacts)."""
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES as RETRIES

    before = RETRIES.get_raw()
    RETRIES.set(0)
    try:
        yield
    finally:
        if before is None:
            RETRIES.unset()
        else:
            RETRIES.set(before)


class Page(list[Any]):
    """All that there is, as MLflow's stores give a page."""

    token = None


def pages(search: Callable[..., Any], **arguments: Any) -> Iterator[Any]:
    """All that a paged search of MLflow's finds."""
    token = None
    while True:
        page = search(**arguments, page_token=token)
        yield from page
        if not (token := page.token):
            return


def batches(elements: Iterable[T], size: int) -> Iterator[list[T]]:
    """The elements, so many at a time."""
    rest = iter(elements)
    while batch := list(islice(rest, size)):
        yield batch


def _missing(error: ModuleNotFoundError) -> MissingExtra:
    return MissingExtra(
        f"models, traces, prompts and datasets of MLflow need the package {error.name!r}",
        hint="pip install 'shardmig[mlflow]', or choose --source-option objects=runs",
    )

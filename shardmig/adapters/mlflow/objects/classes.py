"""Which classes of objects there are, and what a user calls them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from shardmig.adapters.mlflow.objects.base import ObjectClass
from shardmig.adapters.mlflow.objects.datasets import Datasets
from shardmig.adapters.mlflow.objects.experiments import Experiments
from shardmig.adapters.mlflow.objects.logged_models import LoggedModels
from shardmig.adapters.mlflow.objects.references import References
from shardmig.adapters.mlflow.objects.registered import Registered
from shardmig.adapters.mlflow.objects.stores import Stores
from shardmig.adapters.mlflow.objects.traces import Traces
from shardmig.records import Scope

_Make = Callable[[Stores, References], ObjectClass]

_CLASSES: Final[dict[Scope, _Make]] = {
    "experiments": Experiments,
    "logged_models": LoggedModels,
    "traces": Traces,
    "datasets": Datasets,
    "registered_models": lambda stores, references: Registered(stores, references, "registered_models"),
    "prompts": lambda stores, references: Registered(stores, references, "prompts"),
}

SCOPES: Final[frozenset[Scope]] = frozenset(_CLASSES)


def classes(stores: Stores, references: References, chosen: Collection[Scope] = SCOPES) -> dict[Scope, ObjectClass]:
    """The chosen classes over these stores."""
    return {scope: make(stores, references) for scope, make in _CLASSES.items() if scope in chosen}

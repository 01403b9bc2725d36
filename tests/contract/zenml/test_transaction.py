"""What several calls write into a local store is one transaction."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardmig.adapters.zenml.opening import open_store
from shardmig.adapters.zenml.options import StoreOptions
from shardmig.adapters.zenml.store import ZenmlStore
from shardmig.errors import TargetConflict

pytestmark = pytest.mark.xdist_group("zenml")


class _Stop(BaseException):
    """As Ctrl-C."""


@pytest.mark.parametrize("kind", [ValueError, _Stop])
def test_what_goes_wrong_in_the_middle_undoes_all_of_it_and_is_told_as_it_is(
    zenml: Path, kind: type[BaseException]
) -> None:
    store = ZenmlStore(lambda: open_store(StoreOptions()))
    model_id = store.model_id("model", "")
    with pytest.raises(kind, match="in the middle"):
        _stop_in_the_middle(store, model_id, kind)
    assert list(store.versions(model_id)) == []
    with store.together():
        store.create_version(model_id, "two", "", [])
        with pytest.raises(TargetConflict):
            store.create_version(model_id, "two", "", [])
        store.create_version(model_id, "three", "", [])
    assert [version.name for version in store.versions(model_id)] == ["two", "three"]
    store.close()


def _stop_in_the_middle(store: ZenmlStore, model_id: str, kind: type[BaseException]) -> None:
    with store.together():
        store.create_version(model_id, "one", "", [])
        raise kind("in the middle")


def test_a_store_may_be_named_by_its_url(zenml: Path) -> None:
    url = f"sqlite:///{zenml}/local_stores/default_zen_store/zenml.db"
    elsewhere = ZenmlStore(lambda: open_store(StoreOptions(store_url=url)))
    elsewhere.model_id("model", "")
    elsewhere.close()
    own = ZenmlStore(lambda: open_store(StoreOptions(), only_read=True))
    assert [name for _, name in own.models()] == ["model"]
    own.close()

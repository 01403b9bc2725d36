"""What several calls write into a local store is one transaction."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from zenml.client import Client

from shardmig.adapters.zenml.entities import NewArtifact
from shardmig.adapters.zenml.opening import open_store
from shardmig.adapters.zenml.options import StoreOptions
from shardmig.adapters.zenml.store import ZenmlStore
from shardmig.errors import TargetConflict, Unavailable, UsageError
from tests.servers.zenml import DATABASE

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


def test_files_that_a_server_registered_before_it_died_get_the_metadata_that_it_did_not_come_to(zenml: Path) -> None:
    """It commits them apart. Without the metadata nobody would find the run again, and the next load would double it."""
    store = ZenmlStore(lambda: open_store(StoreOptions()))
    version_id = store.create_version(store.model_id("model", ""), "one", "", [])
    made = store.add_artifact(version_id, NewArtifact("files", "key", "/somewhere"))
    own = {"shardmig": {"key": "key", "model_version": version_id}}
    assert store.add_artifact(version_id, NewArtifact("files", "key", "/somewhere", own)) == made
    held = store.artifact("files", "key")
    assert held is not None
    assert held.metadata == own
    store.close()


def test_a_listing_that_others_push_out_of_its_pages_is_told(zenml: Path) -> None:
    """Where one of the first page is deleted the next page begins one too late."""
    store = ZenmlStore(lambda: open_store(StoreOptions()), page=3)
    for number in range(5):
        store.model_id(f"model {number}", "")
    listed = store.models()
    first, _ = next(listed)
    Client().delete_model(first)
    with pytest.raises(Unavailable, match="changed while it was listed"):
        list(listed)
    assert len(list(store.models())) == 4
    store.close()


def test_a_store_of_another_release_is_left_as_it_is(zenml: Path) -> None:
    """To open it ZenML would migrate it in place, and the ZenML that it belongs to could not read it any more."""
    with closing(sqlite3.connect(zenml / DATABASE)) as database:
        database.execute("UPDATE alembic_version SET version_num = '0.97.0'")
        database.commit()
    before = (zenml / DATABASE).read_bytes()
    store = ZenmlStore(lambda: open_store(StoreOptions()))
    with pytest.raises(UsageError, match="of another release"):
        store.model_id("model", "")
    store.close()
    assert (zenml / DATABASE).read_bytes() == before


def test_a_store_may_be_named_by_its_url(zenml: Path) -> None:
    url = f"sqlite:///{zenml}/local_stores/default_zen_store/zenml.db"
    elsewhere = ZenmlStore(lambda: open_store(StoreOptions(store_url=url)))
    elsewhere.model_id("model", "")
    elsewhere.close()
    own = ZenmlStore(lambda: open_store(StoreOptions(), only_read=True))
    assert [name for _, name in own.models()] == ["model"]
    own.close()

"""Stores for the contract of ZenML."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.contract.zenml.world import fill
from tests.servers.zenml import copy_store, use_zenml, zenml, zenml_server, zenml_template

__all__ = ["filled_zenml", "zenml", "zenml_server", "zenml_template"]


@pytest.fixture(scope="session")
def filled_zenml(zenml_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filled store's configuration folder, for the whole session. Not to be written."""
    folder = tmp_path_factory.mktemp("zenml-filled")
    copy_store(zenml_template, folder / "zenml")
    before = dict(os.environ)
    try:
        use_zenml(folder / "zenml")
        fill(folder)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return folder / "zenml"

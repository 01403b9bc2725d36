"""Stores of ZenML for tests: real SQLite databases, copied from one that ZenML made (which takes ten seconds)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

DATABASE = Path("local_stores/default_zen_store/zenml.db")
"""Where it lies in ZenML's configuration folder."""


@pytest.fixture(scope="session")
def zenml_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration folder with an initialised store, for the whole session. Not to be written."""
    folder = tmp_path_factory.mktemp("zenml-template")
    before = dict(os.environ)
    try:
        use_zenml(folder)
        from zenml.config.global_config import GlobalConfiguration
        from zenml.zen_stores.base_zen_store import BaseZenStore

        store = BaseZenStore.create_store(GlobalConfiguration().get_store_configuration())
        store.engine.dispose()  # type: ignore[attr-defined]
    finally:
        os.environ.clear()
        os.environ.update(before)
    return folder


@pytest.fixture
def zenml(zenml_template: Path, tmp_path: Path) -> Path:
    """A new configuration folder with a store of its own, which ZenML takes for its own during the test."""
    folder = tmp_path / "zenml"
    copy_store(zenml_template, folder)
    use_zenml(folder)
    return folder


def copy_store(template: Path, folder: Path) -> None:
    """A store like the template's in another folder."""
    (folder / DATABASE).parent.mkdir(parents=True)
    shutil.copy(template / DATABASE, folder / DATABASE)


def use_zenml(folder: Path) -> None:
    """Let ZenML take this folder for its configuration."""
    os.environ |= {
        "ZENML_CONFIG_PATH": str(folder),
        "ZENML_ANALYTICS_OPT_IN": "false",
        "ZENML_LOGGING_VERBOSITY": "NOTSET",
        "ZENML_ENABLE_RICH_TRACEBACK": "false",
    }
    from zenml.config.global_config import GlobalConfiguration

    GlobalConfiguration._reset_instance()

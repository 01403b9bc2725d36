"""Stores of ZenML for tests: real SQLite databases, copied from one that ZenML made (which takes ten seconds), and a server."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from tests.servers.health import wait_until_healthy

DATABASE = Path("local_stores/default_zen_store/zenml.db")
"""Where it lies in ZenML's configuration folder."""
_START_TIMEOUT_S = 120.0


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
    from zenml.client import Client
    from zenml.config.global_config import GlobalConfiguration
    from zenml.stack import stack
    from zenml.utils import source_utils

    source_utils.set_custom_source_root(
        str(Path.cwd())
    )  # else from the main module, which in a worker of xdist has no file
    GlobalConfiguration._reset_instance()
    Client._reset_instance()
    stack._STACK_CACHE.clear()  # by the id, which is the same in all copies of a store


def child_processes() -> ForkServerContext:
    """Processes that start at once, from one without threads that has imported ZenML; each begins with `use_zenml`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["zenml.client", "shardmig.adapters.zenml.target"])
    return context


@pytest.fixture(scope="session")
def zenml_server(zenml_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real ZenML server, for the whole session. It needs `zenml[server]`: in this environment, or in that of
    the interpreter that $ZENML_SERVER_PYTHON names."""
    python = os.environ.get("ZENML_SERVER_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import secure, multipart, tldextract"], capture_output=True).returncode:
        pytest.skip("zenml[server] is not installed; $ZENML_SERVER_PYTHON may name an interpreter that has it")
    folder = tmp_path_factory.mktemp("zenml-server")
    copy_store(zenml_template, folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = [python, "-m", "uvicorn", "zenml.zen_server.zen_server_api:app", "--host", "127.0.0.1"]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)], stdout=log, stderr=log, cwd=folder, env=_server_environment(folder)
        )
        try:
            wait_until_healthy("the ZenML server", port, process, folder / "server.log", _START_TIMEOUT_S)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


def _server_environment(folder: Path) -> dict[str, str]:
    return os.environ | {
        "HOME": str(folder),
        "ZENML_CONFIG_PATH": str(folder),
        "ZENML_STORE_URL": f"sqlite:///{folder / DATABASE}",
        "ZENML_SERVER": "true",
        "ZENML_SERVER_AUTH_SCHEME": "NO_AUTH",
        "ZENML_SERVER_DEPLOYMENT_TYPE": "local",
        "ZENML_ANALYTICS_OPT_IN": "false",
    }

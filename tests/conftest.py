"""What holds for every test: an environment of its own, no network beyond loopback, reproducible examples."""

from __future__ import annotations

import os
import tempfile
import time
import zlib
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.bytecode import keep_bytecode

_LOOPBACK_ONLY = Path(__file__).parent / "loopback_only"
_FOREIGN_SETTINGS = (
    "MLFLOW_",
    "NEPTUNE_",
    "SHARDMIG_",
    "XDG_",
    "WANDB_",
    "COMET_",
    "LIGHTNING_",
    "AWS_",
    "PG",
    "HYPOTHESIS_",
    "RAY_",
)
_TIME_ZONES = ("UTC", "Asia/Tokyo", "America/St_Johns", "Asia/Kathmandu", "Pacific/Apia")

# The same examples in every execution: a failure seen in CI is a failure seen at the desk.
settings.register_profile(
    "shardmig", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shardmig")


def pytest_configure(config: pytest.Config) -> None:
    """Leave the developer's settings behind before anything reads them; server fixtures inherit this environment."""
    home = tempfile.TemporaryDirectory(prefix="shardmig-tests-home-", ignore_cleanup_errors=True)
    config.add_cleanup(home.cleanup)
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        keep_bytecode(Path(home.name, "bytecode"))
    for name in [name for name in os.environ if name.startswith(_FOREIGN_SETTINGS)]:
        del os.environ[name]
    os.environ |= {
        "HOME": home.name,
        "PYTHONPATH": str(_LOOPBACK_ONLY),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "NO_PROXY": "localhost,127.0.0.1",
        "NO_COLOR": "1",
        "COLUMNS": "120",
    }
    _load(_LOOPBACK_ONLY / "sitecustomize.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """At the end every worker shall have something to do: what takes long begins first."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """What a test or a vendor's library sets in the environment ends with the test."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(autouse=True)
def _time_zone(request: pytest.FixtureRequest, _own_environment: None) -> Iterator[None]:
    """Each test has its time zone, always the same one: nothing may depend on where it is executed."""
    os.environ["TZ"] = _TIME_ZONES[zlib.crc32(request.node.name.encode()) % len(_TIME_ZONES)]
    time.tzset()
    yield
    os.environ.pop("TZ", None)
    time.tzset()


def _load(path: Path) -> None:
    spec = spec_from_file_location(f"tests.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(module_from_spec(spec))

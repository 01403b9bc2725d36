"""Settings: flags over environment over file."""

from pathlib import Path

import pytest

from shardmig.config import Settings, usable_cores
from shardmig.errors import UsageError


def test_flags_override_environment_which_overrides_the_file(tmp_path: Path) -> None:
    file = tmp_path / "shardmig.toml"
    file.write_text("workers = 1\nmax_attempts = 5\nchunk_points = 2000\n")
    environ = {"SHARDMIG_WORKERS": "2", "SHARDMIG_MAX_ATTEMPTS": "7"}
    settings = Settings.resolve({"workers": 3, "engine": None}, environ=environ, file=file)
    assert (settings.workers, settings.max_attempts, settings.chunk_points, settings.engine) == (3, 7, 2000, "local")


def test_workers_are_the_usable_cores_by_default() -> None:
    assert Settings.resolve({}, environ={}).slots == usable_cores()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"workers": -1}, "workers must be >= 0"),
        ({"engine": "slurm"}, "Invalid enum value 'slurm'"),
        ({"max_attempts": 0}, "max_attempts >= 1"),
    ],
)
def test_a_wrong_setting_is_named(flags: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Settings.resolve(flags, environ={})


def test_a_setting_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "shardmig.toml"
    file.write_text("wrokers = 1\n")
    with pytest.raises(UsageError, match="wrokers"):
        Settings.resolve({}, environ={}, file=file)


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    file = tmp_path / "shardmig.toml"
    file.write_text("workers = [")
    with pytest.raises(UsageError, match=r"shardmig\.toml"):
        Settings.resolve({}, environ={}, file=file)

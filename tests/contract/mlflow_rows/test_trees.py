"""Artifacts of a database that is copied: every file below a folder, and no folder is passed over in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardmig.adapters.mlflow.rows.files import copy_tree
from shardmig.errors import Permanent, UsageError


def test_a_linked_folder_is_copied_with_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "other disk" / "7" / "artifacts").mkdir(parents=True)
    (tmp_path / "other disk" / "7" / "artifacts" / "model.bin").write_bytes(b"weights")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "7").symlink_to(tmp_path / "other disk" / "7")
    assert copy_tree(str(tmp_path / "old"), str(tmp_path / "new")) == (1, 7)
    assert (tmp_path / "new" / "7" / "artifacts" / "model.bin").read_bytes() == b"weights"


def test_a_link_that_leads_back_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "old" / "7").mkdir(parents=True)
    (tmp_path / "old" / "7" / "up").symlink_to(tmp_path / "old")
    with pytest.raises(UsageError, match="old/7/up is a link"):
        copy_tree(str(tmp_path / "old"), str(tmp_path / "new"))


def test_a_link_to_nothing_is_told_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "gone.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(Permanent, match="gone"):
        copy_tree(str(tmp_path / "old"), str(tmp_path / "new"))

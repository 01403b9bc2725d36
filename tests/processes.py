"""The processes of a migration, as /proc tells of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class _Process(NamedTuple):
    parent: int
    command: bytes


def descendants_of(pid: int) -> set[int]:
    """What a process has started, and what that has started, unless it has ended.
    (Not what a node of Ray has started: it starts and ends its workers when it likes.)"""
    table = dict(_table())
    nodes_of_ray = {one for one, process in table.items() if b"/raylet/raylet" in process.command}
    table = {one: process for one, process in table.items() if process.parent not in nodes_of_ray}
    found = {pid}
    while new := {one for one, process in table.items() if process.parent in found} - found:
        found |= new
    return found - {pid}


def workers_of(pid: int) -> set[int]:
    """The workers of a coordinator: those that it executes, and those that its nursery forks."""
    table = dict(_table())
    nurseries = {
        one for one, process in table.items() if process.parent == pid and b"engines.nursery" in process.command
    }
    executed = {one for one, process in table.items() if process.parent == pid and b"local_worker" in process.command}
    return executed | {one for one, process in table.items() if process.parent in nurseries}


def _table() -> Iterator[tuple[int, _Process]]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (folder / "cmdline").read_bytes()
        except (OSError, ValueError):  # it has ended meanwhile
            continue
        if state not in "ZX":
            yield int(folder.name), _Process(int(parent), command)

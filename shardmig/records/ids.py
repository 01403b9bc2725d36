"""Ids as types, so that one cannot be passed for another."""

from __future__ import annotations

from typing import NewType

ProjectId = NewType("ProjectId", str)
RunId = NewType("RunId", str)
ShardId = NewType("ShardId", str)
MigrationId = NewType("MigrationId", str)
MigrationKey = NewType("MigrationKey", str)
TargetRunId = NewType("TargetRunId", str)

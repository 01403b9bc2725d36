"""Tracking databases to load into."""

from __future__ import annotations

from tests.servers.tracking_databases import sqlite_file, sqlite_template

__all__ = ["sqlite_file", "sqlite_template"]

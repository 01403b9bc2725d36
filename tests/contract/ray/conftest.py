from tests.made_once import demo_project
from tests.servers.tracking_databases import sqlite_template

__all__ = ["demo_project", "sqlite_template"]

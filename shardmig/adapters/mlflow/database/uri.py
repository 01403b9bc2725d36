"""Database URIs: which driver speaks for them, and which ones the bulk path can write."""

from __future__ import annotations

from importlib.util import find_spec

from shardmig.errors import MissingExtra


def driver_uri(tracking_uri: str, *, bulk: bool = False) -> str:
    """The URI with the driver that is installed: MLflow itself takes psycopg2 where it can, `bulk` always psycopg 3.

    Raises MissingExtra for PostgreSQL without any driver.
    """
    scheme, colon, rest = tracking_uri.partition(":")
    dialect, _, driver = scheme.partition("+")
    if dialect not in ("postgres", "postgresql"):
        return tracking_uri
    if bulk or (not driver and find_spec("psycopg2") is None):
        driver = "psycopg"
    if driver == "psycopg" and find_spec("psycopg") is None:
        raise MissingExtra("a PostgreSQL URI needs the package 'psycopg'", hint="pip install 'shardmig[postgres]'")
    return f"postgresql{driver and '+'}{driver}{colon}{rest}"


def is_bulk_dialect(uri: str) -> bool:
    """Does the bulk path speak this database's language?"""
    return uri.partition(":")[0].partition("+")[0] in ("sqlite", "postgresql")

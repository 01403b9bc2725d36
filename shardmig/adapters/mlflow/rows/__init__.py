"""Copies one MLflow tracking database into another row by row: ids, times and version numbers stay as they are.

Both must be at the schema revision of the installed MLflow; others go through the archive. Read from top to bottom:
copying (one copy) → whole (all at once: a SQLite file) → plan (what is copied, and what stands against it) → tables (what
MLflow's tables hold) → mapping (what is rewritten) → ledger (how far it came, in the target itself) → sides (rows out of
and into a database).
"""

"""Compiled modules for all that is started from here, whatever the user's settings are."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def keep_bytecode(folder: Path) -> None:
    """Let every Python write and read it there, as an installed program has it: to compile a vendor's modules takes seconds."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = str(folder)
    sys.dont_write_bytecode = False

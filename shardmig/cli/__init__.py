"""The command line: parses, asks the coordinator or the archive, and speaks. The only package that prints or exits.

flags and groups: every option · asked: what they ask for · moving, models, looking, audit: the commands · speech: stdout, stderr,
errors · exits: the exit codes · app: all of it together.
"""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Entry point of `shardmig` and `python -m shardmig`."""
    from shardmig.cli.app import execute

    code = execute(sys.argv[1:])
    gc.freeze()  # as in engines/local_worker: else it takes a second to end
    sys.exit(code)

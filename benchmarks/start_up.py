"""How long the command line takes to be there, beside an interpreter that does nothing."""

from __future__ import annotations

import resource
import subprocess
import sys
from functools import partial

from benchmarks.workload import Rates, parse_arguments, show

WAYS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "shardmig --help": [sys.executable, "-m", "shardmig", "--help"],
    "shardmig load --help": [sys.executable, "-m", "shardmig", "load", "--help"],
}


def processor_seconds(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    rates = Rates(parse_arguments(__doc__ or "").repeats)
    rates.measure({name: partial(processor_seconds, command) for name, command in WAYS.items()})
    show("Start-up", ("command", "processor time"), [[name, f"{rates.seconds(name):.2f} s"] for name in rates.names()])


if __name__ == "__main__":
    main()

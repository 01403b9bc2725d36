"""Archives of 1,000 to 100,000 runs: seconds to plan, to tell the status and to resume, and the coordinator's memory.

With --full --plot FILE.svg it draws the figure of the docs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.many_runs import write_many
from benchmarks.memory import peak_mb
from benchmarks.workload import environment, figure_in, parse_arguments, scratch, show
from shardmig import codec
from shardmig.migration import MigrationFolder, home_of
from shardmig.records import (
    ArchivePaths,
    AttemptEnded,
    AttemptStarted,
    Counters,
    Plan,
    RunOutcome,
    Shard,
    Started,
    StepNeeds,
    TargetRunId,
    TaskResult,
)

SIZES: Final = {False: (500, 2_000), True: (1_000, 3_000, 10_000, 30_000, 100_000)}
LIMITS: Final = {"plan": 60.0, "resume": 5.0, "memory": 300.0}
"""Of 100,000 runs: seconds, seconds, MB."""

_UNSETTLED_S: Final = 2.5
"""Files that are younger are not remembered from one listing to the next."""


class Measured(NamedTuple):
    """One command: seconds by the clock and of the processor, and the greatest memory of its own process."""

    seconds: float
    processor_s: float
    mb: float

    def __str__(self) -> str:
        return f"{self.seconds:.1f} / {self.processor_s:.1f} s, {self.mb:.0f} MB"


def measured(folder: Path, *words: str, until: Path | None = None) -> Measured:
    """Execute a command to its end, or until it has journaled its first attempt in `until`: then it is killed."""
    command = [sys.executable, "-m", "shardmig", *words]
    end = until.stat().st_size if until is not None else 0
    started = time.perf_counter()
    mb = 0.0
    with subprocess.Popen(
        command, cwd=folder, env=environment(folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, process_group=0
    ) as process:
        is_over = False
        while not is_over and (until is None or len(list(codec.read_frames(until, start=end))) < 2):
            mb = max(mb, peak_mb(process.pid))
            time.sleep(0.01)
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            is_over = ended == process.pid
        took_s = time.perf_counter() - started
        if not is_over:
            os.killpg(process.pid, signal.SIGKILL)
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode and until is None:
            said = process.communicate()[1].decode()
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{said}")
    return Measured(took_s, usage.ru_utime + usage.ru_stime, mb)


def settle_all_but_the_last(plan_file: Path, archive: ArchivePaths) -> Path:
    """Journal a load of the plan as it would stand if it had been killed before its last two shards. Returns the journal."""
    plan: Plan = codec.decode(plan_file.read_bytes(), Plan)
    folder = MigrationFolder(home_of(archive), plan.id)
    folder.create()
    folder.write_plan(plan)
    writer = codec.FrameWriter(folder.journal_file)
    writer.append(codec.encode(Started(1, plan.fingerprint, 2, "local")))
    for phase in plan.phases:
        for shard in plan.shards if phase == "survey" else plan.shards[:-2]:
            result = TaskResult(
                shard=shard.id, phase=phase, attempt=1, runs=_brought(shard, phase == "load"), started_ms=1, ended_ms=2
            )
            writer.append(codec.encode(AttemptStarted(1, phase, shard.id, 1)))
            writer.append(codec.encode(AttemptEnded(2, result, phase, shard.id, 1)))
    writer.sync()
    writer.close()
    return folder.journal_file


def _brought(shard: Shard, is_load: bool) -> list[RunOutcome]:
    return [
        RunOutcome(
            run=run,
            state="done",
            target_id=TargetRunId(f"{hash((shard.id, number)) & (1 << 128) - 1:032x}") if is_load else None,
            digest=run.fingerprint,
            counters=Counters(runs=1, fields=6, points=run.weight),
            steps=StepNeeds(1, "0", str(run.weight)),
        )
        for number, run in enumerate(shard.runs)
    ]


def measure(folder: Path, runs: int) -> dict[str, Measured]:
    """Every command once on an archive of so many runs."""
    archive = write_many(folder, runs)
    time.sleep(_UNSETTLED_S)
    where = ("-d", archive.data, "-f", archive.files)
    target = f"sqlite:///{folder / 'mlflow.db'}"
    load = ("--target", "mlflow", "--mlflow-tracking-uri", target, "--step-multiplier", "1", *where)
    plan = measured(folder, "plan", *load, "--out", "plan.msgpack")
    again = measured(folder, "plan", *load, "--out", "plan.msgpack")
    journal = settle_all_but_the_last(folder / "plan.msgpack", archive)
    status = measured(folder, "status", *where)
    resume = measured(folder, "load", *load, "--no-progress", until=journal)
    return {"plan": plan, "plan again": again, "status": status, "resume": resume}


def draw(file: Path, sizes: tuple[int, ...], found: list[dict[str, Measured]]) -> None:
    """Seconds over runs, both on scales of powers, with what linear growth would be."""
    with figure_in(file, 2, 9) as (seconds, memory):
        for name in found[0]:
            seconds.loglog(sizes, [one[name].processor_s for one in found], marker="o", label=name)
        last = found[-1]["plan"].processor_s
        seconds.loglog(sizes, [last * size / sizes[-1] for size in sizes], "k:", label="linear")
        seconds.set(xlabel="runs", ylabel="seconds", title="of the processor, start-up included")
        seconds.legend()
        memory.semilogx(sizes, [max(one[name].mb for name in one) for one in found], marker="o")
        memory.axhline(LIMITS["memory"], color="k", linestyle=":")
        memory.set(xlabel="runs", ylabel="MB", title="greatest memory of the coordinator", ylim=(0, None))


def _more(parser: ArgumentParser) -> None:
    parser.add_argument("--plot", type=Path, help="write the figure, an SVG file")
    parser.add_argument("--runs", type=int, nargs="+", help="instead of the usual sizes")


def main() -> None:
    """Measure, show, and draw."""
    arguments = parse_arguments(__doc__ or "", _more)
    sizes = tuple(arguments.runs or SIZES[arguments.full])
    found = []
    for runs in sizes:
        with scratch() as folder:
            found.append(measure(folder, runs))
    names = list(found[0])
    show(
        "Many small runs: by the clock / of the processor, greatest memory of the command's own process",
        ("runs", *names),
        [[f"{runs:,}", *(str(one[name]) for name in names)] for runs, one in zip(sizes, found, strict=True)],
    )
    if arguments.plot is not None:
        draw(arguments.plot, sizes, found)


if __name__ == "__main__":
    main()

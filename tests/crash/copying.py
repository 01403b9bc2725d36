"""A copy of every object of MLflow into a database that somebody else has filled already."""

from __future__ import annotations

import shutil
import sys
import threading
from pathlib import Path
from typing import NamedTuple

from mlflow import MlflowClient

from tests.contract.mlflow_source import comparer
from tests.contract.mlflow_source.marks import doubled_or_half
from tests.contract.mlflow_source.objects_comparer import Told, told, told_differences
from tests.crash.faulty import FaultyCommand

THEIRS = "of somebody else"


def fill_with_others(uri: str) -> None:
    """What is in the target already: a run, a model, a prompt, and an experiment that the source has as well."""
    client = MlflowClient(uri)
    experiment = client.create_experiment("objects: ünï", tags={"team": "another"})
    run = client.create_run(experiment, start_time=1_600_000_000_000, run_name=THEIRS).info.run_id
    client.log_metric(run, "loss", 0.5, timestamp=1_600_000_000_000, step=1)
    client.set_terminated(run, end_time=1_600_000_001_000)
    client.create_registered_model(THEIRS, {"team": "another"}, "described")
    client.create_model_version(THEIRS, "s3://bucket/of/theirs", run)
    client.register_prompt("of-somebody-else", "Say {{what}}")
    for linking in threading.enumerate():  # MLflow notes the prompt's experiment in a thread of its own
        if linking.name.startswith("link_prompt"):
            linking.join()


class Copied(NamedTuple):
    """What a copy left, told through MLflow's own client."""

    objects: Told
    wrong: list[str]

    def differences_from(self, expected: Copied) -> list[str]:
        """One line each."""
        return [*told_differences(expected.objects, self.objects), *(set(self.wrong) ^ set(expected.wrong))]


class CopyOfObjects(FaultyCommand):
    """One process does all of it, so that a kill ends everything at once. The source lies outside what is counted."""

    def __init__(self, root: Path, source: Path, target: Path, faults: Path) -> None:
        root.mkdir()
        super().__init__(root, faults)
        self._source = Path(shutil.copy(source, root.with_name(root.name + ".source.db")))
        self.database = Path(shutil.copy(target, self.root / "mlflow.db"))
        self.uri = f"sqlite:///{self.database}"
        """Of the target. Who puts a server before it says so here."""

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "shardmig", "migrate", "--source", "mlflow", f"sqlite:///{self._source}"),
            *("--data-path", str(self.root / "data"), "--files-path", str(self.root / "files")),
            *("--target", "mlflow", "--mlflow-tracking-uri", self.uri),
            *("--include-archived-runs", "--engine", "inline", "--no-progress"),
        ]

    def content(self) -> Copied:
        """What the target holds now, and what it has less, twice, half or otherwise than the source."""
        wrong = comparer.differences(f"sqlite:///{self._source}", self.uri)
        wrong += [*doubled_or_half(self.uri), *(f"left over: {name}" for name in self.left_over())]
        return Copied(told(self.uri), wrong)

"""SIGKILL of a copy between MLflows at an I/O step or at a write to a server, twice in a row, into a target that is not
empty: no object is doubled, none half.

Executes CRASH_POINTS steps and CRASH_KILLS writes, samples; scripts/crash_campaign executes every one.
"""

from __future__ import annotations

import itertools
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from mlflow import MlflowClient

from tests.contract.mlflow_source.filled import filled_objects, filled_once
from tests.crash.copying import THEIRS, Copied, CopyOfObjects, fill_with_others
from tests.crash.faulty import Fault, Steps
from tests.crash.killing_server import KilledAt, KillingServer
from tests.made_once import made_once
from tests.servers.http import answering
from tests.servers.mlflow import mlflow_server

__all__ = ["filled_objects"]

POINTS = int(os.environ.get("CRASH_POINTS", "3"))
KILLS_IN_CI = [KilledAt(22, arrives=False), KilledAt(1, arrives=True, part="runs/restore")]
"""One for many, and one while a model is linked to a run that was deleted: it is active for a moment."""
EVERY_KILL = [KilledAt(1 + kill // 2, bool(kill % 2)) for kill in range(int(os.environ.get("CRASH_KILLS", "0")))]
SOURCE_NOWHERE = "model dangling: version 3: "
"""Its run is nowhere, not even in the source: a server takes no such source, a database does."""

MakeCopy = Callable[[], CopyOfObjects]


@pytest.fixture(scope="session")
def new_copy(
    filled_objects: Path, sqlite_template: Path, faults: Path, tmp_path_factory: pytest.TempPathFactory
) -> MakeCopy:
    """Makes one that has not begun."""
    filled = filled_once(tmp_path_factory, "mlflow-of-others", sqlite_template, fill_with_others)
    folder, numbers = tmp_path_factory.mktemp("copies"), itertools.count()
    return lambda: CopyOfObjects(folder / f"{next(numbers)}", filled_objects, filled, faults)


class Undisturbed(NamedTuple):
    """A copy that nothing disturbed: where it is, what it left, and its I/O steps."""

    uri: str
    copied: Copied
    steps: Steps


@pytest.fixture(scope="session")
def undisturbed_copy(new_copy: MakeCopy, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Made once. Not to be written."""

    def make(folder: Path) -> None:
        copy = new_copy()
        ended = copy.execute(Fault("coordinator", step=0))
        assert ended.returncode == 0, ended.stderr
        (folder / "learnt").write_bytes(pickle.dumps(Undisturbed(copy.uri, copy.content(), copy.steps())))

    noted = made_once(tmp_path_factory, "undisturbed-copy", make) / "learnt"
    learnt: Undisturbed = pickle.loads(noted.read_bytes())
    return learnt


def test_a_copy_leaves_alone_what_somebody_else_has(undisturbed_copy: Undisturbed) -> None:
    client = MlflowClient(undisturbed_copy.uri)
    assert client.get_registered_model(THEIRS).description == "described"
    experiment = client.get_experiment_by_name("objects: ünï")
    assert experiment is not None
    [theirs] = client.search_runs([experiment.experiment_id], f'attributes.run_name = "{THEIRS}"')
    assert theirs.data.metrics == {"loss": 0.5}
    assert len(client.search_runs([experiment.experiment_id])) > 1
    assert experiment.tags["team"] == "another"
    assert undisturbed_copy.copied.wrong == [
        "experiment objects: ünï: tags {'team': 'ü'} are {'team': 'another'}",
        f"run not copied: {THEIRS}: is only in the target",
        "one has no key",
    ]


@pytest.mark.parametrize("point", range(POINTS))
def test_a_copy_killed_twice_in_a_row_is_made_good_by_the_same_command(
    new_copy: MakeCopy, undisturbed_copy: Undisturbed, point: int
) -> None:
    steps = undisturbed_copy.steps
    sample = steps.sample(POINTS)
    if point >= len(sample):
        pytest.skip(f"there are {len(sample)} steps")
    copy = new_copy()
    left = len(steps) - sample[point]
    for step in (sample[point], left // 3 + 1):
        killed = copy.execute(Fault("coordinator", step))
        assert (killed.returncode, copy.mark.exists()) == (-signal.SIGKILL, True), killed.stderr
        copy.mark.unlink()
    again = copy.execute()
    assert again.returncode == 0, again.stderr
    assert copy.content().differences_from(undisturbed_copy.copied) == []


@pytest.fixture
def copy_to_server(new_copy: MakeCopy) -> Iterator[tuple[CopyOfObjects, KillingServer]]:
    """One that has not begun, into a server that is not empty."""
    copy = new_copy()
    with mlflow_server(copy.root, copy.database, workers=1) as behind, answering(KillingServer(behind)) as server:
        copy.uri = server.url
        yield copy, server


@pytest.mark.server
@pytest.mark.xdist_group("mlflow-server")
@pytest.mark.parametrize("kill", EVERY_KILL or KILLS_IN_CI, ids=repr)
def test_a_copy_to_a_server_killed_twice_in_a_row_is_made_good_by_the_same_command(
    copy_to_server: tuple[CopyOfObjects, KillingServer], undisturbed_copy: Undisturbed, kill: KilledAt
) -> None:
    copy, server = copy_to_server
    code, said = server.execute(copy.command(), copy.root, kill)
    if code == 0 and kill in EVERY_KILL:
        pytest.skip(f"there are {server.writes} writes")
    assert code == -signal.SIGKILL, said
    again = kill._replace(write=1 + kill.write % 7, arrives=not kill.arrives)
    code, said = server.execute(copy.command(), copy.root, again)
    assert code == (-signal.SIGKILL if server.writes >= again.write else 0), said
    code, said = server.execute(copy.command(), copy.root, None)
    assert code == 0, said
    differences = copy.content().differences_from(undisturbed_copy.copied)
    assert [line for line in differences if not line.startswith(SOURCE_NOWHERE)] == []

"""The plan is a partition of the selected runs, the same every time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardmig import planner
from shardmig.errors import UsageError
from shardmig.planner import Request
from shardmig.records import AdapterSpec, ArchivePaths, ProjectId, RunId, RunRef, Selection

run_refs = st.lists(
    st.builds(
        lambda project, number, weight, parent: RunRef(
            project=ProjectId(project),
            id=RunId(f"R-{number}"),
            weight=weight,
            parent=RunId(f"R-{parent}") if parent is not None else None,
        ),
        st.sampled_from(["ws/a", "ws/b"]),
        st.integers(0, 200),
        st.integers(0, 10**8),
        st.none() | st.integers(0, 200),
    ),
    max_size=150,
    unique_by=lambda run: (run.project, run.id),
)


def request(**changes: object) -> Request:
    return Request(
        phases=("export",),
        source=AdapterSpec("archive", {"data": "/x"}),
        archive=ArchivePaths("/a", "/b"),
        **changes,  # type: ignore[arg-type]
    )


@given(run_refs)
def test_every_run_is_in_exactly_one_shard(runs: list[RunRef]) -> None:
    shards = list(planner.cut(runs))
    planned = [run for shard in shards for run in shard.runs]
    assert sorted(map(hash, map(str, planned))) == sorted(map(hash, map(str, runs)))
    assert len({shard.id for shard in shards}) == len(shards)
    assert all(0 < len(shard.runs) <= planner.MAX_SHARD_RUNS for shard in shards)


@given(run_refs)
def test_a_parent_is_never_deeper_than_its_child(runs: list[RunRef]) -> None:
    depth = {(run.project, run.id): shard.depth for shard in planner.cut(runs) for run in shard.runs}
    cyclic = _in_cycles(runs)
    for run in runs:
        if run.parent and (run.project, run.parent) in depth and run not in cyclic:
            assert depth[run.project, run.parent] < depth[run.project, run.id]


@given(run_refs)
def test_what_nothing_was_forked_from_is_at_the_last_depth(runs: list[RunRef]) -> None:
    """Then all wait for few."""
    parents = {(run.project, run.parent) for run in runs}
    depth = {(run.project, run.id): shard.depth for shard in planner.cut(runs) for run in shard.runs}
    assert all(depth[key] == max(depth.values()) for key in depth if key not in parents)


@given(run_refs)
def test_a_shard_holds_runs_of_one_project(runs: list[RunRef]) -> None:
    assert all(len({run.project for run in shard.runs}) == 1 for shard in planner.cut(runs))


@given(run_refs, st.randoms())
def test_the_order_of_listing_does_not_change_the_shards(runs: list[RunRef], random: object) -> None:
    shuffled = list(runs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    if not _in_cycles(runs):
        assert list(planner.cut(runs)) == list(planner.cut(shuffled))


@given(st.integers(1, 100))
def test_traces_share_shards_where_as_many_runs_have_one_each(count: int) -> None:
    project = ProjectId("ws/a")
    runs = [RunRef(project=project, id=RunId(f"R-{number}")) for number in range(count)]
    traces = [RunRef(project=project, id=RunId(f"tr-{number}"), scope="traces") for number in range(count)]
    assert len(list(planner.cut(runs))) >= min(count, 50)
    assert len(list(planner.cut(traces))) == -(-count // 16)


def test_the_same_request_is_the_same_migration_and_another_is_another() -> None:
    assert planner.migration_id(request()) == planner.migration_id(request())
    assert planner.migration_id(request()) != planner.migration_id(request(selection=Selection(runs="x")))
    assert planner.migration_id(request(update=True)) == planner.migration_id(request())


def test_a_run_listed_twice_is_refused() -> None:
    run = RunRef(project=ProjectId("ws/a"), id=RunId("R-1"))
    with pytest.raises(UsageError, match="ws/a/R-1 twice"):
        planner.freeze(request(), [run, run], created_ms=0)


def test_limit_takes_the_first_runs_of_the_listing() -> None:
    runs = [RunRef(project=ProjectId("ws/a"), id=RunId(f"R-{number}")) for number in range(5)]
    plan = planner.freeze(request(selection=Selection(limit=2)), runs, created_ms=0)
    assert [run.id for shard in plan.shards for run in shard.runs] == ["R-0", "R-1"]


def _in_cycles(runs: list[RunRef]) -> list[RunRef]:
    by_key = {(run.project, run.id): run for run in runs}
    found = []
    for run in runs:
        seen = set()
        current: RunRef | None = run
        while current is not None and (current.project, current.id) not in seen:
            seen.add((current.project, current.id))
            current = by_key.get((current.project, current.parent)) if current.parent else None
        if current is not None:
            found.append(run)
    return found

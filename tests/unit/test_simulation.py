"""The simulated fleet, small: planner, schedule and budget keep its workers busy."""

from __future__ import annotations

import pytest

from benchmarks.simulation import WORLDS, Fleet, World


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_the_makespan_is_near_the_shortest_possible_one(world: World) -> None:
    assert Fleet(world, 8_000, 8).execute().ratio <= 1.1


def test_a_budget_is_what_holds_up_the_fleet_and_not_more_than_it_must() -> None:
    free, held = WORLDS[0], WORLDS[3]
    assert held.requests_per_s
    assert Fleet(held, 2_000, 4).execute().makespan_s > 1.3 * Fleet(free, 2_000, 4).execute().makespan_s

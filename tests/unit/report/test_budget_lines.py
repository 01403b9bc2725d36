"""What people are told of budgets."""

from __future__ import annotations

import io

from rich.console import Console

from shardmig.adapters.budget import Allowance, Standing
from shardmig.report import budget


def test_each_budget_is_a_line_that_says_how_it_stands_and_who_waits() -> None:
    standing = Standing(
        name="wandb https://here",
        allowance=Allowance(requests_per_s=20, points_per_min=100_000, connections=8),
        points_last_min=90_000,
        pause_s=30.0,
        connections_held=3,
        waiting=["load of s1 (host 1.1)", "load of s1 (host 1.2)", "load of s2 (host 2.1)"],
    )
    out = io.StringIO()
    console = Console(file=out, width=1000)
    for line in budget.shown(budget.of_systems([standing], ["archive", "wandb"])):
        console.print(line)
    assert out.getvalue().strip() == (
        "budget of wandb https://here: 20 requests/s and 100,000 points/min; 90,000 points in the last minute; "
        "3 of 8 connections taken; all pause for 30 s, as the server asked; waiting: load of s1 (2), load of s2"
    )
    assert budget.of_systems([standing], ["mlflow"]) == []


def test_a_server_without_limits_that_nobody_waits_for_is_not_worth_a_line() -> None:
    free = Standing(
        name="mlflow http://here", allowance=Allowance(), points_last_min=0, pause_s=0, connections_held=0, waiting=[]
    )
    assert list(budget.shown([free])) == []

"""What shardmig's own tags say in the target of a copy: of what a comparer that asks by name cannot see twice."""

from __future__ import annotations

from collections import Counter

from mlflow import MlflowClient
from mlflow.entities import ViewType

KEY, STATE = "shardmig.key", "shardmig.state"
ENDED = {"complete", "complete with spans"}


def doubled_or_half(uri: str) -> list[str]:
    """A line for each key that more than one living thing has, and for each living thing that was not finished or has no
    key."""
    client = MlflowClient(uri)
    store = client._tracking_client.store
    experiments = [one.experiment_id for one in client.search_experiments(ViewType.ALL, max_results=1000)]
    tags = [one.tags for one in store.search_logged_models(experiments, max_results=100)]
    tags += [one.tags for one in store.search_datasets()]
    tags += [one.info.tags for one in client.search_traces(locations=experiments, include_spans=False)]
    tags += [one.data.tags for one in client.search_runs(experiments, max_results=10_000)]
    ours = [one for one in tags if KEY in one]
    times = Counter(one[KEY] for one in ours)
    lines = [f"{key} is there {count} times" for key, count in times.items() if count > 1]
    lines += ["one has no key" for one in tags if KEY not in one]
    return lines + [f"{one[KEY]} is {one.get(STATE)}" for one in ours if one.get(STATE) not in ENDED]

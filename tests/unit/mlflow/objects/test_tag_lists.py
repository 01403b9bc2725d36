"""Which keys an object waits for is told by tags that every database takes."""

from __future__ import annotations

import pytest

from shardmig.adapters.mlflow.objects.tag_lists import waiting_for, waiting_tags
from shardmig.records import MigrationKey


def keys(count: int, first: int = 0) -> list[MigrationKey]:
    return [MigrationKey(f"{number:032x}") for number in range(first, first + count)]


@pytest.mark.parametrize("count", [0, 1, 90, 91, 152, 1000])
def test_keys_survive_each_once_as_tags_of_bounded_length(count: int) -> None:
    tags = waiting_tags([*keys(count), *keys(count)], {})
    assert all(0 < len(text) <= 3000 for text in tags.values())
    assert waiting_for({"other": "tag", **tags}) == keys(count)


def test_one_tag_of_an_earlier_shardmig_is_read_and_replaced() -> None:
    old = {"shardmig.waits": " ".join(keys(150))}
    assert waiting_for(old) == keys(150)
    assert waiting_for(old | waiting_tags(keys(100, 20), old)) == keys(100, 20)


@pytest.mark.parametrize("before", [waiting_tags(keys(300), {}), {"shardmig.waits": " ".join(keys(300))}])
def test_who_is_cut_between_the_tags_forgets_no_key_that_is_still_waited_for(before: dict[str, str]) -> None:
    still = keys(40, 50) + keys(150, 150)
    tags = dict(before)
    for key, text in waiting_tags(still, before).items():
        tags[key] = text
        assert set(still) <= set(waiting_for(tags)) <= set(keys(300))
    assert waiting_for(tags) == still
    assert waiting_for(tags | waiting_tags([], tags)) == []

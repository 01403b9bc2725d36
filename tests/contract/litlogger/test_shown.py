"""What people see of a run in Lightning beside its numbers, and that it changes nothing of what is read back."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from tests.contract.litlogger.runs import opened, sample
from tests.servers.lightning.server import Lightning

pytestmark = pytest.mark.xdist_group("lightning")


def test_pictures_are_media_at_their_steps_and_a_histogram_series_is_one_picture(
    lightning: Lightning, tmp_path: Path
) -> None:
    run = sample(tmp_path)
    target = opened()
    run.written(target)
    [held] = lightning.store.dump().values()
    *pictures, heatmap = sorted(held["media"], key=lambda one: (one[0] == "histograms", one))
    image = "MEDIA_TYPE_IMAGE"
    assert pictures == [
        ("pictures", "0", image, "pictures/step_0.png", b"\x89PNG\0"),
        ("pictures", "7", image, "pictures/step_7.png", b"\x89PNG\7"),
    ]
    assert heatmap[:4] == ("histograms", "None", image, "histograms: steps 0 to 1, values 0 to 5")
    with Image.open(io.BytesIO(heatmap[4])) as picture:
        assert picture.size == (512, 256)
    assert run.is_equal_in(target)


def test_what_is_not_shown_is_told_and_is_there_all_the_same(lightning: Lightning, tmp_path: Path) -> None:
    run = sample(tmp_path)
    target = opened(most_media="2")
    told = {(one.kind, one.code, one.field, one.count) for one in run.written(target).findings}
    assert ("note", "not-shown", "histograms", 1) in told
    [held] = lightning.store.dump().values()
    assert len(held["media"]) == 2
    assert run.is_equal_in(target)


def test_media_that_lightning_refuses_are_told_and_cost_nothing_else(lightning: Lightning, tmp_path: Path) -> None:
    run = sample(tmp_path)
    lightning.faults.plan("/media", "400", 3)
    target = opened()
    told = {(one.code, one.field, one.count) for one in run.written(target).findings}
    assert {("not-shown", "histograms", 1), ("not-shown", "pictures", 2)} <= told
    assert run.is_equal_in(target)

"""A run that is killed at twenty moments: nothing lost, nothing twice, all the same."""

from __future__ import annotations

import multiprocessing
import random
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from bright import coco_of, halves_in, same_results, save_noise

from napari_medseg._types import InputError, finish
from napari_medseg.batch import BatchSettings, read_ledger, segment_batch
from napari_medseg.instances import ObjectConfig

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext
    from pathlib import Path

KILLS = 20

IMAGES = 10

SETTINGS = BatchSettings(
    "otsu",
    objects=ObjectConfig(min_size=4),
    formats=("csv", "coco", "geojson", "roi", "ome-zarr"),
    probabilities=True,
)


def run(images: Path, out: Path) -> None:
    """Segment the folder in a process of its own."""
    finish(segment_batch([images], out, SETTINGS))


@pytest.fixture
def context() -> BaseContext:
    """Processes that begin at once: a server forks them that has imported all."""
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def noted_as_done(out: Path) -> dict[str, int]:
    """Return when the labels were written that are noted; all files must be whole."""
    written = {}
    with suppress(InputError), read_ledger(out) as ledger:  # killed before its ledger
        for row in ledger.rows("done"):
            assert all((out / name).exists() for name in row.files), row.name
            written[row.name] = (out / row.files[0]).stat().st_mtime_ns
    return written


def assert_each_once(out: Path) -> None:
    """Look for each image in ledger, tables and COCO."""
    names = [f"{index:02d}" for index in range(IMAGES)]
    with read_ledger(out) as ledger:
        assert [row.name for row in ledger.rows("done")] == names
        objects = {row.name: row.objects for row in ledger.rows()}
        assert sum(ledger.counts().values()) == IMAGES
    table = pd.read_csv(out / "images.csv", dtype={"image": str})
    assert dict(zip(table["image"], table["objects"], strict=True)) == objects
    assert len(table) == IMAGES
    rows = pd.read_csv(out / "objects.csv", dtype={"image": str})
    assert not rows.duplicated(["image", "label"]).any()
    assert Counter(rows["image"]) == Counter(objects)
    coco = coco_of(out)
    assert [image["file_name"] for image in coco["images"]] == [
        f"{name}.tif" for name in names
    ]
    owners = Counter(each["image_id"] for each in coco["annotations"])
    assert sorted(owners.values()) == sorted(objects.values())
    assert len({each["id"] for each in coco["annotations"]}) == len(rows)


def test_a_run_that_is_killed_at_twenty_moments(
    tmp_path: Path, context: BaseContext
) -> None:
    images = save_noise(tmp_path / "images", IMAGES, 40)
    whole = tmp_path / "whole"
    started = time.monotonic()
    run(images, whole)
    seconds = time.monotonic() - started
    draw, kills, folders = random.Random(0), 0, 0
    while kills < KILLS:
        out, done = tmp_path / f"killed {folders}", dict[str, int]()
        folders += 1
        while True:
            process = context.Process(target=run, args=(images, out))
            process.start()
            process.join(draw.uniform(0, seconds) if kills < KILLS else None)
            if process.exitcode is not None:
                assert process.exitcode == 0
                break
            process.kill()
            process.join()
            kills += 1
            # what was noted once is never done again
            noted = noted_as_done(out)
            assert done.items() <= noted.items()
            done = noted
        assert done.items() <= noted_as_done(out).items()
        assert halves_in(out) == []
        assert same_results(whole, out)
        assert_each_once(out)

"""A real cluster of Dask on this computer."""

from __future__ import annotations

import socket
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest
from bright import (
    STUMBLE,
    halves_in,
    names,
    open_bright,
    open_deadly,
    open_halfway,
    same_results,
    save,
    save_squares,
)

from napari_medseg._types import InputError, finish
from napari_medseg.batch import BatchSettings, read_ledger, segment_batch
from napari_medseg.instances import ObjectConfig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from distributed import LocalCluster

pytestmark = pytest.mark.filterwarnings(
    # what Dask and tornado leave open when workers are killed is not ours
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::DeprecationWarning:distributed",
    "ignore::DeprecationWarning:tornado",
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two workers, each a process; one that dies is replaced."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=50,
    ) as cluster:
        yield cluster


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return save_squares(tmp_path / "images", 40)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "labels"


def test_a_cluster_gives_the_same_as_this_process(
    cluster: LocalCluster, images: Path, out: Path, tmp_path: Path
) -> None:
    settings = BatchSettings(
        "otsu",
        objects=ObjectConfig(min_size=4),
        formats=("csv", "coco", "geojson", "roi", "ome-zarr"),
        probabilities=True,
    )
    (images / "bad.tif").write_bytes(b"")
    here = tmp_path / "here"
    finish(segment_batch([images], here, settings))
    address = cluster.scheduler_address
    report = finish(segment_batch([images], out, settings, cluster=address))
    assert (len(report.done), names(report.failed)) == (40, ["bad.tif"])
    assert same_results(here, out)
    # the same ledger: what the cluster did is not done again here
    again = finish(segment_batch([images], out, settings))
    assert (again.done, len(again.skipped)) == ((), 40)


def test_a_worker_that_is_killed_is_made_up_for(
    cluster: LocalCluster, images: Path, out: Path, tmp_path: Path
) -> None:
    settings = BatchSettings("bright 100 0.1", formats=("csv", "coco", "geojson"))
    here, quick = tmp_path / "here", replace(settings, model="bright")
    finish(segment_batch([images], here, quick, opener=open_bright))
    job = segment_batch(
        [images],
        out,
        settings,
        cluster=cluster.scheduler_address,
        opener=open_bright,
    )
    while next(job).step < 5:
        pass
    psutil.Process(next(iter(cluster.workers.values())).pid).kill()
    report = finish(job)
    assert (len(report.done), report.failed) == (40, {})
    assert same_results(here, out)
    with read_ledger(out) as ledger:
        assert ledger.counts()["done"] == 40


def test_what_a_killed_worker_left_half_done_is_cleared(
    cluster: LocalCluster, tmp_path: Path, out: Path
) -> None:
    images = save_squares(tmp_path / "few")
    save(images / "b.tif", np.full((20, 30), STUMBLE, np.uint8))
    # Dask itself gives the image to another worker
    settings = BatchSettings(f"halfway {out}", formats=("csv", "geojson"))
    address = cluster.scheduler_address
    report = finish(
        segment_batch([images], out, settings, cluster=address, opener=open_halfway)
    )
    assert (tmp_path / "died").exists()
    assert (len(report.done), report.failed) == (3, {})
    assert halves_in(out) == []


def test_an_image_that_kills_worker_after_worker_fails_alone(
    cluster: LocalCluster, tmp_path: Path, out: Path
) -> None:
    images = save_squares(tmp_path / "few")
    save(images / "b.tif", np.full((20, 30), STUMBLE, np.uint8))
    cluster.scheduler.allowed_failures = 0
    report = finish(
        segment_batch(
            [images],
            out,
            BatchSettings("deadly"),
            cluster=cluster.scheduler_address,
            opener=open_deadly,
        )
    )
    assert names(report.done) == ["a.tif", "c.tif"]
    ((name, reason),) = report.failed.items()
    assert name.endswith("b.tif")
    assert "ended, most likely for want of memory" in reason


def test_nobody_answers(
    images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("napari_medseg.batch.cluster.PATIENCE", 0.5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for address in (f"tcp://127.0.0.1:{port}", "nonsense://x"):
        with pytest.raises(InputError, match=f"No Dask scheduler answers at {address}"):
            finish(segment_batch([images], out, BatchSettings("otsu"), cluster=address))
    assert not out.exists()


def test_dask_is_not_installed(
    images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    job = segment_batch([images], out, BatchSettings("otsu"), cluster="tcp://x:1")
    with pytest.raises(InputError, match=r"pip install .*napari-medseg\[cluster\]"):
        finish(job)
    assert not out.exists()

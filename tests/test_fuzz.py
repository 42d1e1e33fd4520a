"""Damaged files of every format are read, or get a sentence; nothing else happens."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from fuzzing import KINDS, Damage, damaged, read, seeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("bioio")

NAMES = (
    "plain.tif tiled.tif lzw.tif colour.tif big.tif bits.tif float.tif jpeg.tif "
    "zstd.tif stack.ome.tif imagej.tif grey.png deep.png alpha.png palette.png "
    "bits.png colour.jpg colour.bmp grey.bmp array.npy archive.npy v2.zarr v3.zarr "
    "ome.zarr rois.zip POLYGON.roi POINT.roi oval.roi cells.geojson model.medseg "
    "cells.czi cells.lif cells.nd2"
).split()

DAMAGES = st.lists(
    st.builds(
        Damage,
        st.integers(0, KINDS - 1),
        st.one_of(st.integers(0, 200), st.integers(0, 100_000)),
        st.integers(0, 255),
    ),
    max_size=4,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return seeds(tmp_path_factory.mktemp("seeds"))


def test_every_format_is_here(files: dict[str, bytes]) -> None:
    assert sorted(files) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_whole_files_are_read(
    name: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    told = read(name, files[name], [], tmp_path)
    # a zip of arrays is no .npy, and a JPEG or colours are no annotation
    expected = name not in ("archive.npy", "colour.jpg") and "alpha" not in name
    expected = expected and not name.startswith("colour")
    assert (told == "read") is expected, told


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_are_read_or_get_a_sentence(
    name: str, files: dict[str, bytes]
) -> None:
    # few examples, always the same ones; benchmarks/fuzz.py tries many
    @settings(
        max_examples=15,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(DAMAGES)
    def check(damages: list[Damage]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            read(name, files[name], damages, Path(folder))

    check()


def test_damage_is_what_it_says() -> None:
    data = bytes(range(40, 60))
    assert damaged(data, []) == data
    assert damaged(data, [Damage(0, 2, 7)]) == data[:2] + b"\x07" + data[3:]
    assert damaged(data, [Damage(2, 1, 1)])[1:5] == b"\x01\0\0\0"
    assert damaged(data, [Damage(5, 5, 0)]) == data[:5]
    assert len(damaged(data, [Damage(6, 0, 3), Damage(7, 0, 1)])) == len(data) - 2
    assert damaged(b"a1b", [Damage(8, 0, 5)]) == b"a65534b"

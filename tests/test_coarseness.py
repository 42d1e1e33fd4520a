"""How thick objects are, and how coarsely a network then looks at them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_medseg.io.pairs import Pair, Pairs
from napari_medseg.training import coarseness
from napari_medseg.training.coarseness import fitting_reduction, thickness

if TYPE_CHECKING:
    from napari_medseg.io.pairs import AnnotationKind

Mask = NDArray[np.int32]


def pairs_of(*masks: Mask, kind: AnnotationKind = "dense") -> Pairs:
    values = tuple(sorted({int(value) for mask in masks for value in np.unique(mask)}))
    images = [
        Pair(f"{index}", np.zeros((1, *mask.shape), np.float32), mask)
        for index, mask in enumerate(masks)
    ]
    return Pairs(tuple(images), kind, values if kind != "instances" else (0, 1))


def strip(width: int, size: int = 256) -> Mask:
    mask = np.zeros((size, size), np.int32)
    mask[100 : 100 + width] = 1
    return mask


def disc(radius: float, size: int = 256) -> Mask:
    y, x = np.mgrid[:size, :size] - size / 2
    return (np.hypot(y, x) < radius).astype(np.int32)


@pytest.mark.parametrize("width", [1, 2, 9, 40])
def test_a_strip_is_as_thick_as_it_is_wide(width: int) -> None:
    assert thickness(pairs_of(strip(width))) == pytest.approx(width, abs=1.01)


@pytest.mark.parametrize("radius", [12, 60])
def test_a_disc_is_two_thirds_of_its_diameter_thick(radius: int) -> None:
    assert thickness(pairs_of(disc(radius))) == pytest.approx(4 * radius / 3, rel=0.05)


def test_the_thinnest_class_counts_and_the_median_image() -> None:
    both = strip(60)
    both[20:26] = 2
    assert thickness(pairs_of(both)) == pytest.approx(6, abs=1.01)
    three = pairs_of(strip(10), strip(12), strip(90))
    assert thickness(three) == pytest.approx(12, abs=1.01)


def test_numbered_objects_that_touch_are_measured_apart() -> None:
    cells = np.zeros((256, 256), np.int32)
    for number in range(4):
        cells[:, 60 + 20 * number : 80 + 20 * number] = number + 1
    apart = thickness(pairs_of(cells, kind="instances"))
    together = thickness(pairs_of((cells > 0).astype(np.int32)))
    assert apart == pytest.approx(20, abs=1.01)
    assert together == pytest.approx(80, abs=1.01)


def test_thin_gaps_between_crowded_objects_count_too() -> None:
    crowd = np.ones((1024, 1024), np.int32)
    crowd[::100] = crowd[:, ::100] = 0
    crowd[1::100] = crowd[:, 1::100] = 0
    found = thickness(pairs_of(crowd))
    assert found is not None and found < 4
    assert fitting_reduction(pairs_of(crowd)) == 1


@pytest.mark.parametrize(("number", "measured"), [(3, 3), (5, 4), (40, 4)])
def test_of_large_images_a_few_are_measured(
    number: int, measured: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[float] = []

    def depth(labels: Mask) -> NDArray[np.float64]:
        looked.append(float(labels.max()))
        return np.ones(labels.shape)

    monkeypatch.setattr(coarseness, "MEASURED", 2 * 256**2)
    monkeypatch.setattr(coarseness, "_depth", depth)
    thickness(pairs_of(*[strip(9) for _ in range(number)]))
    assert len(looked) == measured


def test_without_any_object_nothing_is_known() -> None:
    nothing = pairs_of(np.zeros((300, 300), np.int32))
    assert thickness(nothing) is None
    assert fitting_reduction(nothing) == 1
    everything = pairs_of(np.ones((300, 300), np.int32))
    assert thickness(everything) == 600


@pytest.mark.parametrize(
    ("mask", "wanted"),
    [
        (strip(9, 1024), 1),
        (strip(30, 1024), 2),
        (strip(60, 1024), 5),
        (strip(300, 2048), 8),
        (strip(60, 300), 2),  # a smaller image is not seen with less than 128 pixels
        (strip(60, 120), 1),
    ],
)
def test_thick_objects_are_seen_coarsely_and_thin_ones_are_not(
    mask: Mask, wanted: int
) -> None:
    assert fitting_reduction(pairs_of(mask)) == wanted


def test_strokes_do_not_tell_how_large_objects_are() -> None:
    assert fitting_reduction(pairs_of(strip(60, 1024), kind="sparse")) == 1

"""The data sets of the benchmarks: what is foreground, and what may be tuned on.

The images are laid out as ``DIR/<set>/images`` and ``DIR/<set>/masks``. A draw of k
images comes from the pool; the test images are the same for every draw, and no group
(patient, block of a volume) is in both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg.io.images import read_annotation, read_image
from napari_medseg.io.pairs import Pair, Pairs, gather
from napari_medseg.training.pack import is_held_out

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_medseg._types import LabelArray

TEST_IMAGES = 16
"""Test images a set, at most."""


@dataclass(frozen=True)
class DataSet:
    """A data set.

    Attributes
    ----------
    folder : str
        Its folder.
    prefix : str
        Only files whose names start so.
    held_out : float
        Share of the groups that are for testing; for the sets that `nano` was trained
        on, the share that was held out from it.
    seen : bool
        Whether `nano` was trained on the other images.
    values : tuple of int
        Mask values that are foreground; empty for all but 0.
    instances : bool
        Whether each mask value is an object.
    channel : int or None
        The one channel that is used.
    group : str
        Pattern whose first group names patient or well; empty where every image is
        its own group.
    volume : bool
        Whether the images are neighbouring slices: the last ones are for testing.
    """

    folder: str
    prefix: str = ""
    held_out: float = 0.3
    seen: bool = False
    values: tuple[int, ...] = ()
    instances: bool = False
    channel: int | None = None
    group: str = ""
    volume: bool = False

    def paths(self, data: Path) -> tuple[list[Path], list[Path]]:
        """Return the images to draw from, and those to test on."""
        found = sorted((data / self.folder / "images").glob(f"{self.prefix}*"))
        if self.volume:
            count = max(4, round(self.held_out * len(found)))
            return found[:-count], found[-count:]
        apart = [is_held_out(self._group(path), self.held_out) for path in found]
        pool = [path for path, out in zip(found, apart, strict=True) if not out]
        test = [path for path, out in zip(found, apart, strict=True) if out]
        order = np.random.default_rng(0).permutation(len(test))[:TEST_IMAGES]
        return pool, [test[index] for index in sorted(order)]

    def _group(self, path: Path) -> str:
        matched = re.match(self.group, path.stem) if self.group else None
        return matched.group(1) if matched else path.stem

    def draw(self, data: Path, count: int, seed: int) -> Pairs:
        """Draw images with something on them from the pool."""
        pool, _ = self.paths(data)
        if self.volume:
            # evenly through the block, as somebody would annotate a volume
            shift = np.random.default_rng(seed).uniform()
            places = (np.arange(count) + shift) * len(pool) / count
            return self.pairs([pool[int(place) % len(pool)] for place in places])
        order = np.random.default_rng(seed).permutation(len(pool))
        chosen: list[Pair] = []
        for index in order:
            pair = self.pair(pool[index])
            if pair.annotation.any():
                chosen.append(pair)
            if len(chosen) == count:
                break
        return gather(chosen, annotation="instances" if self.instances else "dense")

    def test(self, data: Path) -> Pairs:
        """Return the test images."""
        return self.pairs(self.paths(data)[1])

    def pairs(self, paths: Sequence[Path]) -> Pairs:
        """Read images and masks."""
        kind = "instances" if self.instances else "dense"
        return gather([self.pair(path) for path in paths], annotation=kind)

    def pair(self, path: Path) -> Pair:
        """Read one image and its mask."""
        file = read_image(path)
        image = file.plane()
        if self.channel is not None:
            image = image[self.channel : self.channel + 1]
        mask = next((path.parent.parent / "masks").glob(f"{path.stem}.*"))
        labels = self.foreground(read_annotation(mask).labels)
        return Pair(path.stem, image, labels, rgb=file.rgb)

    def foreground(self, labels: LabelArray) -> LabelArray:
        """Return the objects, or 1 where a pixel is of a wanted class."""
        if self.instances:
            return labels
        wanted = np.isin(labels, self.values) if self.values else labels > 0
        return wanted.astype(np.int32)


SETS = {
    "fluo": DataSet("dsb2018_nuclei", "fluo_", 0.25, seen=True, instances=True),
    "histo": DataSet("dsb2018_nuclei", "histo_", 0.25, seen=True, instances=True),
    "phase": DataSet("usiigaci_phase_contrast", "", 0.5, seen=True, instances=True),
    "outline": DataSet("bubil_multiannotator", "", 0.25, seen=True),
    "membrane": DataSet("isbi2012_em_membrane", volume=True),
    "mitochondria": DataSet("vnc_sstem_multiclass", values=(2,), volume=True),
    "heart": DataSet("acdc_cardiac_mri_scribbles", group=r"(patient\d+)"),
    "worms": DataSet("bbbc010_worms_bf_gfp", instances=True, channel=1),
    "lungs": DataSet("shenzhen_cxr_lungs"),
    "ulcer": DataSet("foot_ulcer", "fuseg_"),
}
"""Every set by the name it has in the tables."""

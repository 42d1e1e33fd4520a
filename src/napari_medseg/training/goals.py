"""What is learned from annotated images: classes of pixels, or objects apart."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy import ndimage
from skimage.segmentation import find_boundaries

from napari_medseg import matching
from napari_medseg._types import InputError
from napari_medseg.instances import ObjectConfig, find_objects
from napari_medseg.io.pair_set import IGNORED
from napari_medseg.precision_recall import Ranking
from napari_medseg.training.scoring import Score, score_image

if TYPE_CHECKING:
    from napari_medseg._types import FloatArray, LabelArray
    from napari_medseg.io.pairs import Pairs
    from napari_medseg.training.views import Example

INTERIOR, BORDER = 1, 2
"""Values of the parts of an object; 0 is background."""

DEEPEST_SHARE = 0.5
"""Pixels this deep, as a share of their object's depth, are interior in any case."""


class Goal(Protocol):
    """What a network is to learn from pairs, and how it is measured."""

    pairs: Pairs

    @property
    def classes(self) -> int:
        """Outputs of the network, background included."""
        ...

    def target(self, index: int, grain: float) -> LabelArray:
        """Return what to learn from a pair, ``int32 (Y, X)``, -1 where nothing.

        Parameters
        ----------
        index : int
            The pair.
        grain : float
            Pixels of the image per pixel of the network's output.

        Returns
        -------
        ndarray
            The output that is wanted of each pixel.
        """
        ...

    def labels(self, probabilities: FloatArray) -> LabelArray:
        """Return what a user is shown of class probabilities ``float32 (K, Y, X)``."""
        ...

    def score(self, index: int, example: Example, probabilities: FloatArray) -> Score:
        """Compare class probabilities ``float32 (K, Y, X)`` with the annotation.

        Parameters
        ----------
        index : int
            The pair.
        example : Example
            The pair as an example, with its target.
        probabilities : ndarray
            Of the network; or of SAM without prompts: background and object.

        Returns
        -------
        Score
            How well it was segmented.
        """
        ...


class ClassGoal:
    """Learn the classes of the annotation.

    Parameters
    ----------
    pairs : Pairs
        Annotated images.
    """

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs

    @property
    def classes(self) -> int:
        """Number of classes, background included."""
        return self.pairs.classes

    def target(self, index: int, grain: float) -> LabelArray:
        """Return the classes; see `Goal.target`."""
        return self.pairs.targets(index)

    def labels(self, probabilities: FloatArray) -> LabelArray:
        """Return the likeliest classes."""
        likeliest: LabelArray = probabilities.argmax(axis=0).astype(np.int32)
        return likeliest

    def score(self, index: int, example: Example, probabilities: FloatArray) -> Score:
        """Compare classes; see `Goal.score`."""
        return score_image(example, self.labels(probabilities))


class RankedGoal(ClassGoal):
    """Learn one class that is rare, measured by how well its pixels are ranked."""

    def score(self, index: int, example: Example, probabilities: FloatArray) -> Score:
        """Add the area under precision and recall, where the class is shown."""
        found = super().score(index, example, probabilities)
        ranking = Ranking()
        ranking.add(probabilities[1], example.target == 1, example.target != IGNORED)
        aupr = ranking.aupr
        return found if np.isnan(aupr) else replace(found, aupr=aupr)


class ObjectGoal:
    """Learn interior and border of each object.

    Parameters
    ----------
    pairs : Pairs
        Annotated images, in which each object is drawn whole. Without ids of objects,
        touching foreground pixels are one object.
    border : float
        Width of the border inside an object, in pixels of the network's output.

    Raises
    ------
    InputError
        The annotations are scribbles, or have several classes.
    """

    classes = 3

    def __init__(self, pairs: Pairs, border: float) -> None:
        if pairs.annotation_kind == "sparse" or pairs.classes != 2:
            raise InputError(
                "Objects are told apart by masks in which each object is drawn whole "
                "and has an id of its own; these are scribbles, or several classes. "
                "Choose the method ptsam, or say --annotation instances."
            )
        self.pairs = pairs
        self.border = border

    def target(self, index: int, grain: float) -> LabelArray:
        """Return the parts of the objects; see `Goal.target`."""
        parts = parts_of(self.objects(index), self.border * grain)
        parts[self.pairs.targets(index) == IGNORED] = IGNORED
        return parts

    def objects(self, index: int) -> LabelArray:
        """Return the ids of the objects of a pair, 0 background."""
        inside = self.pairs.targets(index) == 1
        if self.pairs.annotation_kind == "instances":
            return np.where(inside, self.pairs[index].annotation, 0).astype(np.int32)
        found: LabelArray = ndimage.label(inside, np.ones((3, 3)))[0].astype(np.int32)
        return found

    def labels(self, probabilities: FloatArray) -> LabelArray:
        """Return the objects."""
        foreground = (1.0 - probabilities[0]).astype(np.float32)
        interior = probabilities[1] if len(probabilities) == self.classes else None
        return find_objects(foreground, ObjectConfig(), interior)

    def score(self, index: int, example: Example, probabilities: FloatArray) -> Score:
        """Compare foreground and objects; see `Goal.score`."""
        known = example.target != IGNORED
        found = self.labels(probabilities)
        truth = self.objects(index)
        quality = matching.panoptic_quality(
            np.where(known, found, 0).astype(np.int32), truth
        )
        whole = np.where(known, truth > 0, IGNORED).astype(np.int32)
        pixels = score_image(
            type(example)(example.name, example.image, whole),
            (probabilities[0] < 0.5).astype(np.int32),
        )
        pq = 1.0 if np.isnan(quality.pq) else quality.pq
        return Score(pixels.name, pixels.dice, pixels.iou, pixels.blank, float(pq))


def parts_of(ids: LabelArray, border: float) -> LabelArray:
    """Part objects into interior and border.

    Parameters
    ----------
    ids : ndarray
        ``int32 (Y, X)``, 0 background, each object an id.
    border : float
        Width of the border inside each object, in pixels. An object too thin for it
        has an interior all the same: the deeper half of its pixels, or all of them
        where none lies deeper than another.

    Returns
    -------
    ndarray
        ``int32 (Y, X)``: 0 background, 1 interior, 2 border.
    """
    inside = ids > 0
    # objects that touch have a border between them too
    edge = find_boundaries(ids, mode="inner", connectivity=2)  # type: ignore[no-untyped-call]
    framed = np.pad(inside & ~edge, 1, constant_values=True)
    depth = ndimage.distance_transform_edt(framed)[1:-1, 1:-1] * inside
    deepest = np.zeros(int(ids.max(initial=0)) + 1)
    np.maximum.at(deepest, ids.ravel(), depth.ravel())
    enough = np.minimum(border, DEEPEST_SHARE * deepest[ids])
    deep = (depth > enough) | (deepest[ids] == 0)
    parts: LabelArray = np.where(deep, INTERIOR, BORDER).astype(np.int32)
    parts[~inside] = 0
    return parts

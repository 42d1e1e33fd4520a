"""A generated image with what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_medseg._types import LabelArray


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A generated image and the objects in it.

    Attributes
    ----------
    image : ndarray
        ``uint8 (C, Y, X)``; C is 1 (grey) or 3 (red, green, blue).
    instances : ndarray
        ``int32 (Y, X)``; 0 is background, each object has an id of 1 to N.
    kinds : ndarray
        ``int32 (Y, X)``; 0 is background, 1 to K the kind of object at a pixel.
        Positive exactly where ``instances`` is.
    kind_names : tuple of str
        The K names; kind ``k`` is ``kind_names[k - 1]``. No two are alike.
    """

    image: NDArray[np.uint8]
    instances: LabelArray
    kinds: LabelArray
    kind_names: tuple[str, ...]

    def objects_of(self, kind: int) -> LabelArray:
        """Return the ids of the objects of one kind.

        Parameters
        ----------
        kind : int
            1 to K.

        Returns
        -------
        ndarray
            ``int32 (N,)``, ascending.
        """
        return np.unique(self.instances[self.kinds == kind]).astype(np.int32)


def tidy(
    instances: LabelArray,
    kinds: LabelArray,
    names: tuple[str, ...],
    smallest: int,
) -> tuple[LabelArray, LabelArray, tuple[str, ...]]:
    """Drop slivers and absent kinds and number the rest without gaps.

    Later objects cover earlier ones, so that a few pixels may be all that is left
    of an object.

    Parameters
    ----------
    instances, kinds : ndarray
        ``int32 (Y, X)``.
    names : tuple of str
        A name for each kind.
    smallest : int
        Objects of fewer pixels become background.

    Returns
    -------
    instances, kinds : ndarray
        ``int32 (Y, X)``.
    names : tuple of str
        The names of the kinds that are present.
    """
    keep = np.bincount(instances.ravel()) >= smallest
    keep[0] = False
    instances = _renumber(instances, keep)
    kinds = np.where(instances > 0, kinds, 0)
    present = np.bincount(kinds.ravel(), minlength=len(names) + 1) > 0
    present[0] = False
    kept = tuple(name for name, here in zip(names, present[1:], strict=True) if here)
    return instances, _renumber(kinds, present), kept


def _renumber(labels: LabelArray, keep: NDArray[np.bool_]) -> LabelArray:
    """Return labels with the kept ones numbered from 1 and the others 0."""
    table = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    renumbered: LabelArray = table[labels]
    return renumbered

"""How coarsely a network should look: by how thick the annotated objects are.

A network from scratch learns a large object sooner from an image of fewer pixels, and
a thin one not at all. Thickness is four times the mean distance of an object's pixels
from its edge: the width of a strip, and two thirds of the diameter of a disc. It needs
no objects apart, so that a network of membranes has the thickness of a membrane. The
background counts as well: gaps between crowded objects are to be seen, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from skimage.segmentation import find_boundaries

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_medseg._types import LabelArray
    from napari_medseg.io.pairs import Pairs

ENOUGH = 12.0
"""Thickness, in pixels of the network's input, that is enough to learn an object by."""

SMALLEST = 128
"""No image is seen with fewer pixels than these along its longer side."""

MOST = 8
"""Images are seen no coarser than by this."""

LOOKED_AT = (4, 16)
"""Images whose annotation is measured: at least, if there are so many, and at most."""

MEASURED = 2**24
"""Pixels that are measured in all, where that leaves enough images."""


def fitting_reduction(pairs: Pairs) -> int:
    """Return how many pixels of the images a pixel of the input should stand for.

    Parameters
    ----------
    pairs : Pairs
        Annotated images.

    Returns
    -------
    int
        1 where any class or the gaps between objects are thin, where images are small,
        and for scribbles, which do not tell how large objects are.
    """
    if pairs.annotation_kind == "sparse":
        return 1
    found = thickness(pairs)
    if found is None:
        return 1
    sides = [max(pair.annotation.shape) for pair in pairs]
    most = min(MOST, int(np.median(sides)) // SMALLEST)
    return max(1, min(most, int(found / ENOUGH)))


def thickness(pairs: Pairs) -> float | None:
    """Return the median thickness, in pixels, of the thinnest of all classes.

    Parameters
    ----------
    pairs : Pairs
        Annotated images; where objects are numbered, they are measured apart.

    Returns
    -------
    float or None
        Of a few images, background included; None where no object is annotated.
    """
    pixels = np.mean([pair.annotation.size for pair in pairs])
    count = min(len(pairs), int(np.clip(MEASURED / pixels, *LOOKED_AT)))
    by_class: dict[int, list[float]] = {}
    for index in np.linspace(0, len(pairs) - 1, count).round().astype(int).tolist():
        classes = pairs.targets(index)
        apart = pairs.annotation_kind == "instances"
        if not (classes > 0).any():
            continue
        depth = _depth(pairs[index].annotation if apart else classes)
        for kind in np.unique(classes[classes >= 0]).tolist():
            mean = float(depth[classes == kind].mean())
            by_class.setdefault(kind, []).append(4.0 * mean)
    medians = [float(np.median(values)) for values in by_class.values()]
    return min(medians, default=None)


def _depth(labels: LabelArray) -> NDArray[np.float64]:
    """Return how far each pixel lies from where its label ends, inside the image."""
    edge = find_boundaries(labels, mode="thick", connectivity=1)  # type: ignore[no-untyped-call]
    if not edge.any():
        return np.full(labels.shape, max(labels.shape) / 2.0)
    # both sides of an outline are edge; from the middle of a pixel it is half a pixel
    depth: NDArray[np.float64] = ndimage.distance_transform_edt(~edge) + 0.5
    return depth

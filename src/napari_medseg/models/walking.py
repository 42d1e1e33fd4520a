"""Where a random walk over an image ends: on the object, or beside it.

A random walker with a prior (Grady, "Multilabel random walker image segmentation using
prior models", CVPR 2005): each pixel asks with what probability a walk that begins
there ends on the object. A walk crosses an edge of the image seldom, may end anywhere
by what was thought of that place before, and ends for sure where somebody clicked. With
the graph's Laplacian L and the prior p, that is the minimum of xᵀLx + γ‖x − p‖², held
to 0 or 1 at the clicks: (L + γI) x = γp, a sparse system that is solved at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import cg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_medseg._types import FloatArray

    Doubles: TypeAlias = NDArray[np.float64]

STEEPNESS = 1.0
"""How much less a walk crosses an edge of mean contrast: by a factor of e for 1."""

PASSING = 1e-4
"""What crosses any edge, however steep."""

HELD = 1e3
"""The weight of a click."""

EXACT, MOST = 0.01, 200
"""So far pixels may be from solving the system, in the mean; rounds at most."""

Hold: TypeAlias = "tuple[int, int, bool]"
"""Row and column of a click, and whether it is on the object."""


def walk(
    picture: FloatArray, prior: FloatArray, trust: float, holds: Sequence[Hold]
) -> FloatArray:
    """Return how probably each pixel belongs to the object.

    Parameters
    ----------
    picture : ndarray
        ``float32 (C, Y, X)``, whose edges a walk avoids.
    prior : ndarray
        ``float32 (Y, X)`` in [0, 1], what was thought before.
    trust : float
        The weight of the prior, γ, where 1 is that of two like neighbours.
    holds : sequence of tuple
        Pixels of which it is known.

    Returns
    -------
    ndarray
        ``float32 (Y, X)`` in [0, 1].
    """
    down, across = _passages(picture)
    shape = prior.shape
    weight = np.full(shape, trust)
    start = prior.astype(np.float64)
    for row, column, belongs in holds:
        weight[row, column] = HELD
        start[row, column] = float(belongs)
    diagonal = weight + _degrees(down, across)
    found, _ = cg(
        _system(diagonal, down, across),
        (weight * start).ravel(),
        x0=start.ravel(),
        rtol=0.0,
        atol=EXACT * trust * start.size**0.5,
        maxiter=MOST,
        M=sparse.diags_array(1 / diagonal.ravel()),
    )
    probabilities: FloatArray = found.reshape(shape).clip(0, 1).astype(np.float32)
    return probabilities


def _passages(picture: FloatArray) -> tuple[Doubles, Doubles]:
    """Return how easily a walk goes a pixel down, and a pixel across."""
    contrasts = [
        np.square(np.diff(picture, axis=axis), dtype=np.float64).sum(axis=0)
        for axis in (1, 2)
    ]
    pairs = sum(each.size for each in contrasts)
    mean = sum(each.sum() for each in contrasts) / max(pairs, 1)
    down, across = (
        np.exp(-STEEPNESS * each / (mean or 1.0)) + PASSING for each in contrasts
    )
    return down, across


def _degrees(down: Doubles, across: Doubles) -> Doubles:
    """Return the sum of each pixel's passages."""
    rows = np.pad(down, [(0, 1), (0, 0)]) + np.pad(down, [(1, 0), (0, 0)])
    columns = np.pad(across, [(0, 0), (0, 1)]) + np.pad(across, [(0, 0), (1, 0)])
    total: Doubles = rows + columns
    return total


def _system(diagonal: Doubles, down: Doubles, across: Doubles) -> sparse.dia_array:
    """Return the matrix of the system, of which five diagonals are not 0."""
    # the last pixel of a row has no neighbour in the next
    beside = -np.pad(across, [(0, 0), (0, 1)]).ravel()[:-1]
    # of one column the pixel below is the next one, and nothing is beside
    neighbours = {1: beside, diagonal.shape[1]: -down.ravel()}
    return sparse.diags_array(
        [diagonal.ravel(), *neighbours.values(), *neighbours.values()],
        offsets=[0, *neighbours, *(-far for far in neighbours)],
        shape=(diagonal.size, diagonal.size),
    )

"""What a kind of object looks like, and the canvas it is painted on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari_medseg._types import FloatArray, LabelArray
    from napari_medseg.samples._shapes import Shape

PROFILES = ("flat", "dome", "rim", "hollow", "spots", "shaded")


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """The appearance that the objects of one kind share.

    Attributes
    ----------
    level : float
        Brightness over the background's; negative is darker.
    jitter : float
        Spread of the brightness from object to object, relative to ``level``.
    profile : str
        One of `PROFILES`: how the brightness runs from the outline inwards.
    rim : float
        Thickness of the outline of ``rim`` and ``hollow``, in pixels.
    core : float
        Brightness inside that outline, relative to ``level``.
    edge : float
        Width of the edge in pixels; 1 is sharp.
    cover : float
        1 hides what lies below, 0 adds to it.
    texture : ndarray
        ``float32 (Y * X,)``, of standard deviation 1.
    grain : float
        Strength of the texture.
    """

    level: float
    jitter: float
    profile: str
    rim: float
    core: float
    edge: float
    cover: float
    texture: FloatArray
    grain: float


@dataclass(slots=True, eq=False)
class Canvas:
    """An image in the making; all its fields are flattened.

    Attributes
    ----------
    size : int
        Side of the image.
    signal : ndarray
        ``float32 (Y * X,)``, brightness; the background's is about 0.
    instances, kinds : ndarray
        ``int32 (Y * X,)``.
    paints : ndarray
        ``int32 (Y * X,)``, the stain of each pixel; unlike ``kinds`` it also
        tells things that are not labelled from the background.
    solid : ndarray
        ``bool (Y * X,)``, where a further object would overlap one.
    count : int
        The highest id so far.
    faintest : float
        Contrast of the labelled kind that is hardest to see.
    """

    size: int
    signal: FloatArray
    instances: LabelArray = field(init=False)
    kinds: LabelArray = field(init=False)
    paints: LabelArray = field(init=False)
    solid: np.ndarray[tuple[int], np.dtype[np.bool_]] = field(init=False)
    count: int = 0
    faintest: float = np.inf

    def __post_init__(self) -> None:
        pixels = self.size**2
        self.instances = np.zeros(pixels, np.int32)
        self.kinds = np.zeros(pixels, np.int32)
        self.paints = np.zeros(pixels, np.int32)
        self.solid = np.zeros(pixels, np.bool_)

    def free(self, shape: Shape, overlap: float, gap: float = 0.0) -> bool:
        """Tell whether a shape would hide little enough of what is there.

        Parameters
        ----------
        shape : Shape
            What is to be painted.
        overlap : float
            Part of the shape that may lie on other objects, 0 to 1.
        gap : float
            Clearance in pixels, at most the margin of a shape.

        Returns
        -------
        bool
        """
        inside = shape.index[shape.depth > -gap]
        if not inside.size:
            return False
        return overlap >= 1 or float(self.solid[inside].mean()) <= overlap

    def lay(
        self,
        rng: np.random.Generator,
        shape: Shape,
        look: Look,
        kind: int,
        paint: int,
        *,
        solid: bool = True,
    ) -> None:
        """Paint an object on top of all that is there.

        Parameters
        ----------
        rng : numpy.random.Generator
            Source of all chance.
        shape : Shape
            Its pixels.
        look : Look
            Its appearance.
        kind : int
            Its kind; 0 paints something that is not labelled.
        paint : int
            Its stain.
        solid : bool
            Whether later objects should avoid it.
        """
        alpha = np.clip(shape.depth / look.edge + 0.5, 0, 1)
        below = self.signal[shape.index]
        value = shade(rng, shape, look, self.size)
        self.signal[shape.index] = below + alpha * (value - look.cover * below)
        inside = shape.index[shape.depth > 0]
        self.paints[inside] = paint
        if kind:
            self.count += 1
            self.instances[inside] = self.count
            self.kinds[inside] = kind
            if solid:
                self.solid[inside] = True


def shade(rng: np.random.Generator, shape: Shape, look: Look, size: int) -> FloatArray:
    """Return the brightness of each pixel of an object.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all chance.
    shape : Shape
        Its pixels.
    look : Look
        Its appearance.
    size : int
        Side of the image.

    Returns
    -------
    ndarray
        ``float32 (P,)``.
    """
    level = look.level * float(np.clip(1 + look.jitter * rng.standard_normal(), 0.3, 2))
    profile = _profile(rng, shape, look, size)
    value: FloatArray = level * profile + look.grain * look.texture[shape.index]
    return value


def _profile(
    rng: np.random.Generator, shape: Shape, look: Look, size: int
) -> FloatArray | float:
    """Return the course of brightness over an object, about 0 to 1."""
    depth = np.maximum(shape.depth, 0)
    if look.profile == "dome":
        inward = np.minimum(depth / shape.radius, 1)
        dome: FloatArray = 0.25 + 0.75 * np.sqrt(inward * (2 - inward))
        return dome
    if look.profile in ("rim", "hollow"):
        near = np.exp(-((depth / look.rim) ** 2)).astype(np.float32)
        rim: FloatArray = look.core + (1 - look.core) * near
        return rim
    if look.profile == "spots":
        return _spots(rng, shape, look, size)
    if look.profile == "shaded":
        row, column = shape.index // size, shape.index % size
        way = rng.uniform(0, 2 * np.pi)
        slope = np.sin(way) * (row - row.mean())
        slope += np.cos(way) * (column - column.mean())
        shaded: FloatArray = (1 + 0.6 * slope / (np.abs(slope).max() + 1)).astype(
            np.float32
        )
        return shaded
    return 1.0


def _spots(rng: np.random.Generator, shape: Shape, look: Look, size: int) -> FloatArray:
    """Return an even brightness with spots, as of nucleoli or a nucleus."""
    value: FloatArray = np.full(shape.index.shape, look.core, np.float32)
    deep = np.flatnonzero(shape.depth > shape.radius * 0.35)
    if not deep.size:
        return value
    count = int(rng.integers(1, 5))
    row = (shape.index // size).astype(np.float32)
    column = (shape.index % size).astype(np.float32)
    spread = shape.radius * rng.uniform(0.25, 0.7) / np.sqrt(count)
    for at in rng.choice(deep, count):
        square = (row - row[at]) ** 2 + (column - column[at]) ** 2
        value += (1 - look.core) * np.exp(-square / (2 * spread**2 + 0.3))
    return value

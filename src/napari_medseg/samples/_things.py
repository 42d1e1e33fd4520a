"""The kinds of things: how many there are, where they lie, what shape they have.

Each function paints the objects of one kind on a canvas.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_medseg.samples._shapes import MARGIN, Shape, blob, curve, rod, stroke
from napari_medseg.samples._style import VISIBLE, Style, draw_look

if TYPE_CHECKING:
    from napari_medseg._types import FloatArray
    from napari_medseg.samples._canvas import Canvas, Look
    from napari_medseg.samples._noise import NoiseMaker

BLOB_PROFILES = ("flat", "flat", "dome", "rim", "spots", "shaded")


@dataclass(slots=True, eq=False)
class Easel:
    """What every painter needs.

    Attributes
    ----------
    rng : numpy.random.Generator
        Source of all chance.
    noise : NoiseMaker
        Draws textures.
    canvas : Canvas
        Is painted on.
    style : Style
        The way of imaging.
    ground : float
        Strength of the texture of the background.
    filled : bool
        Whether something other than background lies below.
    looks : list of tuple of str and Look
        Sort and appearance of the kinds so far, save those that fill the image.
    forms : dict of str to int
        For each sort of thing the seed that its last sizes were drawn from.
    """

    rng: np.random.Generator
    noise: NoiseMaker
    canvas: Canvas
    style: Style
    ground: float
    filled: bool = False
    looks: list[tuple[str, Look]] = field(default_factory=list)
    forms: dict[str, int] = field(default_factory=dict)

    @property
    def unit(self) -> float:
        """Pixels of this image to one of an image of 256 pixels a side."""
        return self.noise.unit

    def look(
        self, sort: str, radius: float, *profiles: str, counted: bool = True
    ) -> Look:
        """Return an appearance, new or that of a kind of another sort.

        Kinds that look alike are told apart by their shape only, kinds of one
        sort by their appearance.

        Parameters
        ----------
        sort : str
            The sort of thing.
        radius : float
            Half the width of the things in pixels.
        *profiles : str
            The courses of brightness that suit it.
        counted : bool
            Whether the kind is labelled, and so has to be visible.

        Returns
        -------
        Look
        """
        rng = self.rng
        others = [look for other, look in self.looks if other != sort]
        if others and rng.random() < 0.35:
            look = others[int(rng.integers(len(others)))]
            if look.profile not in profiles:
                look = replace(look, profile=profiles[0], core=0.1)
        else:
            look = self._new_look(sort, profiles)
        if self.filled and rng.random() < 0.8:
            # seen against whatever lies below
            look = replace(look, cover=0.0)
        if counted:
            self.looks.append((sort, look))
            look = self._made_visible(look, radius)
            self.see(look)
        return look

    def _made_visible(self, look: Look, radius: float) -> Look:
        """Return a look strong enough for things so small, seen through the blur."""
        if look.profile == "hollow":
            # a rim thinner than the blur would vanish
            rim = max(look.rim, self.style.blur[1] * self.unit)
            look = replace(look, rim=rim)
            radius = min(radius, rim)
        small = float(np.clip(6 * self.unit / radius, 1, 3))
        level = max(abs(look.level), VISIBLE * self.ground * small)
        level *= min(1 + (self.style.blur[1] * self.unit / radius) ** 2, 4)
        return replace(
            look,
            level=float(np.copysign(level, look.level)),
            grain=look.grain / small,
        )

    def fill(self, look: Look) -> None:
        """Note that a kind fills the image and is the ground of later ones."""
        self.filled = True
        self.ground = max(self.ground, 0.8 * look.grain)

    def see(self, look: Look) -> None:
        """Note how faint a labelled kind is."""
        seen = max(abs(look.level), 0.7 * look.grain)
        self.canvas.faintest = min(self.canvas.faintest, seen)

    def _new_look(self, sort: str, profiles: tuple[str, ...]) -> Look:
        """Return an appearance unlike those of earlier kinds of a sort."""
        same = [look for other, look in self.looks if other == sort]
        for _ in range(5):
            look = draw_look(self.rng, self.noise, self.style, self.ground, profiles)
            if not any(_alike(look, other) for other in same):
                break
        return look

    def form(self, sort: str) -> np.random.Generator:
        """Return the source of the sizes of a kind, new or that of an earlier one.

        Parameters
        ----------
        sort : str
            The sort of thing.

        Returns
        -------
        numpy.random.Generator
        """
        fresh = int(self.rng.integers(2**32))
        seed = self.forms.get(sort, fresh)
        if self.rng.random() < 0.5:
            seed = fresh
        self.forms[sort] = seed
        return np.random.default_rng(seed)

    def places(self, count: int) -> FloatArray:
        """Return places to put objects: scattered, in clusters or in rough rows.

        Parameters
        ----------
        count : int
            How many, about.

        Returns
        -------
        ndarray
            ``float32 (N, 2)``, rows and columns.
        """
        rng, size = self.rng, self.canvas.size
        chance = rng.random()
        if chance < 0.12:
            side = max(1, round(count**0.5))
            grid = np.mgrid[:side, :side].reshape(2, -1).T + 0.5
            where = (grid + rng.normal(0, rng.uniform(0.1, 0.4), grid.shape)) / side
        elif chance < 0.4:
            hubs = rng.uniform(0.1, 0.9, (int(rng.integers(1, 5)), 2))
            near = hubs[rng.integers(0, len(hubs), count)]
            where = near + rng.uniform(0.06, 0.2) * rng.standard_normal((count, 2))
        else:
            where = rng.uniform(-0.02, 1.02, (count, 2))
        places: FloatArray = (where * size).astype(np.float32)
        return places


def _alike(one: Look, other: Look) -> bool:
    """Tell whether two appearances are hard to tell apart."""
    most = max(abs(one.level), abs(other.level))
    return one.profile == other.profile and abs(one.level - other.level) < 0.4 * most


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a random number whose logarithm is evenly spread.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all chance.
    low, high : float
        Its bounds, both positive.

    Returns
    -------
    float
    """
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _number(easel: Easel, area: float, low: float, high: float, most: int) -> int:
    """Return how many objects of an area cover a random part of the image."""
    part = between(easel.rng, low, high)
    return int(np.clip(part * easel.canvas.size**2 / area, 1, most))


def _overlap(easel: Easel) -> float:
    """Return how much of an object may lie on others; mostly nothing."""
    return float(easel.rng.choice([0.0, 0.0, 0.1, 0.3, 1.0]))


def paint_blobs(easel: Easel, kind: int, paint: int, *, hollow: bool) -> None:
    """Paint round, elliptic or uneven blobs, filled or as rings.

    Parameters
    ----------
    easel : Easel
        Canvas and chance.
    kind, paint : int
        Label and stain.
    hollow : bool
        Whether the blobs are rings round the bare background.
    """
    rng, size = easel.rng, easel.canvas.size
    sort = "ring" if hollow else "blob"
    form = easel.form(sort)
    radius = between(form, 5 if hollow else 3.5, 34) * easel.unit
    look = easel.look(sort, radius, *(("hollow",) if hollow else BLOB_PROFILES))
    spread = form.uniform(0.03, 0.35)
    stretch = 1 + form.choice([0.1, 0.4, 1.2])
    wobble = float(form.choice([0.0, 0.05, 0.1, 0.16]))
    overlap, gap = _overlap(easel), float(rng.choice([0.0, 1.0, MARGIN]))
    count = _number(easel, np.pi * radius**2, 0.03, 0.9, 130)
    for row, column in easel.places(count):
        own = max(radius * float(np.exp(spread * rng.standard_normal())), 2.5)
        own = min(own, 2 * radius)
        longer = float(rng.uniform(1, stretch))
        shape = blob(rng, (row, column), own, longer, wobble, size)
        if easel.canvas.free(shape, overlap, gap if overlap == 0 else 0.0):
            easel.canvas.lay(rng, shape, look, kind, paint)


def paint_rods(easel: Easel, kind: int, paint: int) -> None:
    """Paint rods, straight or bent, lying any way or all one way.

    Parameters
    ----------
    easel : Easel
        Canvas and chance.
    kind, paint : int
        Label and stain.
    """
    rng, size = easel.rng, easel.canvas.size
    form = easel.form("rod")
    width = between(form, 3, 12) * easel.unit
    profiles = ("flat", "flat", "dome", "rim", "spots", "hollow")
    look = easel.look("rod", width / 2, *profiles)
    length = width * between(form, 2.5, 9)
    bend = float(form.choice([0.0, 0.05, 0.2]))
    waist = float(form.choice([0.0, 0.0, 0.4]))
    fan = float(rng.choice([0.15, np.pi, np.pi]))
    way, overlap = rng.uniform(0, np.pi), _overlap(easel)
    count = _number(easel, width * length, 0.02, 0.4, 70)
    for row, column in easel.places(count):
        own = length * float(np.clip(1 + 0.3 * rng.standard_normal(), 0.4, 1.8))
        shape = rod(
            way + rng.uniform(-fan, fan),
            (row, column),
            own,
            width * float(rng.uniform(0.85, 1.15)),
            bend * float(rng.uniform(-1, 1)),
            waist * float(rng.random()),
            size,
        )
        if easel.canvas.free(shape, overlap):
            easel.canvas.lay(rng, shape, look, kind, paint)


def paint_filaments(easel: Easel, kind: int, paint: int) -> None:
    """Paint thin curved lines, or a few thick ones, as of worms.

    Parameters
    ----------
    easel : Easel
        Canvas and chance.
    kind, paint : int
        Label and stain.
    """
    rng, size = easel.rng, easel.canvas.size
    worms = rng.random() < 0.3
    width = between(rng, *((6, 16) if worms else (1.8, 5))) * easel.unit
    look = easel.look("filament", width / 2, "flat", "flat", "dome", "rim")
    length = float(rng.uniform(60, 140) if worms else rng.uniform(60, 330))
    curl = float(rng.choice([0.2, 0.6, 1.3]))
    taper = float(rng.uniform(0, 0.9))
    count = int(rng.integers(2, 9) if worms else rng.integers(2, 16))
    overlap = float(rng.choice([0.05, 1.0]))
    for row, column in easel.places(count):
        own = length * easel.unit * float(rng.uniform(0.6, 1.3))
        points = curve(rng, (row, column), own, curl / easel.unit)
        # the place is the middle of the line
        points += np.asarray([row, column], np.float32) - points[len(points) // 2]
        shape = stroke(points, width, taper, size)
        if easel.canvas.free(shape, overlap):
            easel.canvas.lay(rng, shape, look, kind, paint, solid=worms)


def paint_spots(easel: Easel, kind: int, paint: int) -> None:
    """Paint small spots: granules, vesicles, dirt.

    Parameters
    ----------
    easel : Easel
        Canvas and chance.
    kind, paint : int
        Label and stain; kind 0 is dirt that is not labelled.
    """
    rng, size = easel.rng, easel.canvas.size
    radius = between(rng, 1.3, 3.2) * easel.unit
    if kind:
        radius = max(radius, 1.8)
    look = easel.look("spot", radius, "flat", "dome", counted=kind > 0)
    for row, column in easel.places(int(between(rng, 6, 70))):
        own = radius * float(rng.uniform(0.75, 1.3))
        shape = blob(rng, (row, column), own, float(rng.uniform(1, 1.5)), 0.0, size)
        if easel.canvas.free(shape, 0.0 if kind else 1.0):
            easel.canvas.lay(rng, shape, look, kind, paint)


def paint_regions(easel: Easel, kind: int, paint: int) -> None:
    """Paint large areas with an uneven outline, told by their texture.

    Parameters
    ----------
    easel : Easel
        Canvas and chance.
    kind, paint : int
        Label and stain.
    """
    rng, canvas = easel.rng, easel.canvas
    look = draw_look(rng, easel.noise, easel.style, easel.ground, ("flat",))
    if rng.random() < 0.5:
        # told from the background by texture, not by brightness
        grain = max(float(rng.uniform(0.2, 0.45)), 2 * easel.ground)
        look = replace(look, level=0.1 * look.level, grain=grain)
    easel.see(look)
    height_map = easel.noise.smooth(between(rng, 70, 200) * easel.unit)
    height_map += 0.04 * float(rng.random()) * easel.noise.texture()
    height = float(np.quantile(height_map[::4, ::4], rng.uniform(0.35, 0.85)))
    pieces, count = ndimage.label(height_map > height)
    depth = (height_map - height).ravel() * np.float32(12 * easel.unit)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    for piece in range(1, count + 1):
        if sizes[piece] < 0.002 * canvas.size**2:
            continue
        index = np.flatnonzero(pieces.ravel() == piece)
        shape = Shape(index, depth[index], 12 * easel.unit)
        canvas.lay(rng, shape, look, kind, paint, solid=False)
    easel.fill(look)

"""Views: windows of annotated images, randomly changed, with their targets.

A view depends on the seed and its own number alone. Where the encoder is frozen, the
views are embedded once and training runs on the decoder; otherwise a step makes its
views anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from napari_medseg.models.framing import Box, resize
from napari_medseg.models.sam import standardise
from napari_medseg.models.style import FALLING, along_curves
from napari_medseg.training.supervised import LabelledBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_medseg._types import FloatArray, LabelArray
    from napari_medseg.models.framing import Framing

ZOOM = (0.8, 1.25)
"""Range of magnifications of a changed view."""


@dataclass(frozen=True)
class Example:
    """A training image, normalised, with the class of each pixel.

    Attributes
    ----------
    name : str
        Name of the image.
    image : ndarray
        ``float32 (C, Y, X)`` in [0, 1].
    target : ndarray
        ``int32 (Y, X)``: 0 background, 1… classes, -1 not annotated.
    number : int
        Its place among the images.
    """

    name: str
    image: FloatArray
    target: LabelArray
    number: int = 0


class View(NamedTuple):
    """One window as the network takes it, with its target.

    Attributes
    ----------
    inputs : Tensor
        ``float32 (C, S, S)``, standardised and padded, or its embedding.
    shares : Tensor
        ``float16 (K, s, s)``.
    weight : Tensor
        ``float16 (s, s)``.
    number : int
        Place of the image among the images.
    place : Tensor
        ``float32 (2, 3)``: where the output lies in the image, as torch's
        ``affine_grid`` takes it, so that maps of the image can follow the view.
    """

    inputs: Tensor
    shares: Tensor
    weight: Tensor
    number: int
    place: Tensor


@dataclass(frozen=True)
class ViewConfig:
    """How views are made.

    Attributes
    ----------
    framing : Framing
        The windows.
    classes : int
        Number of classes, background included.
    shrink : int
        Pixels of the input per pixel of the model's output.
    seed : int
        Of the changes.
    augmentation : str
        Which changes: ``all``; ``turns`` alone; or ``none`` but the place.
    curves : float
        With ``all``, how often the shades of a changed view follow a random curve.
    """

    framing: Framing
    classes: int
    shrink: int
    seed: int
    augmentation: str = "all"
    curves: float = 0.0


def plain_views(example: Example, config: ViewConfig) -> list[View]:
    """Return the windows that cover an image, unchanged.

    Parameters
    ----------
    example : Example
        The image.
    config : ViewConfig
        How views are made.

    Returns
    -------
    list of View
        One for each box of ``config.framing``.
    """
    shape = (example.target.shape[0], example.target.shape[1])
    return [
        _view(example, box, config, _place(box, shape, 0, mirror=False))
        for box in config.framing.boxes(shape)
    ]


def changed_view(
    example: Example,
    number: int,
    config: ViewConfig,
    centre: tuple[int, int] | None = None,
) -> View:
    """Return a randomly placed window, turned, magnified and brightened.

    Parameters
    ----------
    example : Example
        The image.
    number : int
        The same number gives the same view.
    config : ViewConfig
        How views are made.
    centre : tuple of int, optional
        Row and column of a pixel that shall lie near the middle of the window.

    Returns
    -------
    View
        Window and target, changed alike.
    """
    rng = np.random.default_rng((config.seed, number))
    framing = config.framing
    every, turning = config.augmentation == "all", config.augmentation != "none"
    zoom = float(np.exp(rng.uniform(*np.log(ZOOM)))) if every else 1.0
    tile = max(8, round(framing.tile / zoom))
    closer = replace(framing, tile=tile)
    height, width = (min(tile, length) for length in example.target.shape)
    top, left = (
        int(rng.integers(length - side + 1))
        for length, side in zip(example.target.shape, (height, width), strict=True)
    )
    if centre is not None:
        top, left = (
            int(np.clip(at - side // 2 + _jitter(side, rng), 0, length - side))
            for at, side, length in zip(
                centre, (height, width), example.target.shape, strict=True
            )
        )
    box = Box(top, left, top + height, left + width)
    rows, columns = box.slices
    turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
    if not turning:
        turns, mirror = 0, False
    image = _turn(example.image[:, rows, columns], turns, mirror)
    target = _turn(example.target[rows, columns], turns, mirror)
    whole = Box(0, 0, target.shape[0], target.shape[1])
    if every:
        image = _shaded(_brighten(image, rng), rng, config.curves)
    piece = replace(example, image=image, target=target)
    shape = (example.target.shape[0], example.target.shape[1])
    place = _place(box, shape, turns, mirror=mirror)
    return _view(piece, whole, replace(config, framing=closer), place)


def _jitter(side: int, rng: np.random.Generator) -> int:
    """Return how far a window may lie beside its centre: a quarter of its side."""
    return int(rng.integers(-(side // 4), side // 4 + 1))


def _place(
    box: Box, shape: tuple[int, int], turns: int, *, mirror: bool
) -> NDArray[np.float32]:
    """Return the affine map from a turned and mirrored box to the image it is of.

    Both run from -1 to 1 between their edges, across first, as in ``affine_grid``.
    """
    height, width = box.shape
    scale = np.diag([width / shape[1], height / shape[0], 1.0])
    scale[0, 2] = (box.left + box.right) / shape[1] - 1.0
    scale[1, 2] = (box.top + box.bottom) / shape[0] - 1.0
    # what stands at (x, y) after a quarter turn stood at (-y, x) before
    turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    flip = np.diag([-1.0 if mirror else 1.0, 1.0, 1.0])
    whole = scale @ np.linalg.matrix_power(turn, turns) @ flip
    result: NDArray[np.float32] = whole[:2].astype(np.float32)
    return result


def _turn(array: NDArray[Any], turns: int, mirror: bool) -> NDArray[Any]:
    """Turn by quarters, and mirror."""
    turned = np.rot90(array, turns, axes=(-2, -1))
    return np.ascontiguousarray(turned[..., ::-1] if mirror else turned)


def _brighten(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Change gamma, contrast and brightness a little, and add a little noise."""
    gamma = float(np.exp(rng.uniform(-0.25, 0.25)))
    gain, shift = rng.uniform(0.85, 1.15), rng.uniform(-0.05, 0.05)
    noise = rng.normal(0.0, rng.uniform(0.0, 0.03), image.shape[1:])
    changed = (image**gamma - 0.5) * gain + 0.5 + shift + noise
    result: FloatArray = changed.clip(0, 1).astype(np.float32)
    return result


def _shaded(image: FloatArray, rng: np.random.Generator, applied: float) -> FloatArray:
    """Send the shades along a random curve now and then, as `Shades` does."""
    chosen, falls = rng.random(2) < (applied, FALLING)
    if not chosen:
        return image
    controls = torch.from_numpy(rng.random((1, 2, 2), dtype=np.float32))
    turned = torch.from_numpy(1 - image if falls else image)
    shaded: FloatArray = along_curves(turned[None], controls)[0].numpy()
    return shaded


def _view(
    example: Example, box: Box, config: ViewConfig, place: NDArray[np.float32]
) -> View:
    """Cut a window and average its target down to the output's resolution.

    ``place`` is where the box lies in the image; the margin beyond it is added here.
    """
    framing = config.framing
    rows, columns = box.slices
    content = torch.from_numpy(np.ascontiguousarray(example.image[:, rows, columns]))
    shape = framing.scaled(box.shape)
    inputs = framing.pad(standardise(resize(content[None], shape)))[0]
    maps = _maps(example.target[rows, columns], config.classes, shape)
    shares, weight = _split(functional.avg_pool2d(framing.pad(maps), config.shrink)[0])
    # the content ends before the padded window does
    down, across = framing.size / shape[0], framing.size / shape[1]
    grown = np.array([[across, 0, across - 1], [0, down, down - 1], [0, 0, 1.0]])
    lies = torch.from_numpy((place @ grown).astype(np.float32))
    return View(inputs, shares.half(), weight.half(), example.number, lies)


def whole_labels(example: Example, config: ViewConfig) -> tuple[Tensor, Tensor]:
    """Return an image's labels as one map, as fine as the model's output.

    Parameters
    ----------
    example : Example
        The image.
    config : ViewConfig
        How views are made.

    Returns
    -------
    shares : Tensor
        ``float32 (K, h, w)``, the share of each class.
    weight : Tensor
        ``float32 (h, w)``, the share that is annotated.
    """
    grain = config.shrink / config.framing.scale
    height, width = (max(1, round(side / grain)) for side in example.target.shape)
    return _split(_maps(example.target, config.classes, (height, width))[0])


def _maps(target: LabelArray, classes: int, shape: tuple[int, int]) -> Tensor:
    """Return ``(1, K + 1, h, w)``: where each class is, and where any is known."""
    values = torch.from_numpy(np.ascontiguousarray(target))
    known = values >= 0
    onehot = functional.one_hot(values.clamp(min=0).long(), classes)
    maps = onehot.permute(2, 0, 1).float() * known
    return resize(torch.cat([maps, known[None].float()])[None], shape).clamp(0, 1)


def _split(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return the shares of the classes in what is known, and how much is known."""
    weight = maps[-1]
    shares = maps[:-1] / weight.clamp(min=1e-6)
    shares[0] = torch.where(weight > 0, shares[0], 1.0)
    return shares, weight


class Turns:
    """An endless order in which all are met once before any is met again.

    Parameters
    ----------
    domains : sequence of int
        The domain of each; several take turns, so that each is met as often.
    seed : tuple of int
        Of the order.
    """

    def __init__(self, domains: Sequence[int], seed: tuple[int, ...]) -> None:
        kinds = sorted(set(domains))
        self.members = [
            [index for index, domain in enumerate(domains) if domain == kind]
            for kind in kinds
        ]
        self.seed = seed

    def __call__(self, place: int) -> int:
        """Return which one stands at a place."""
        turn, kind = divmod(place, len(self.members))
        members = self.members[kind]
        round_, index = divmod(turn, len(members))
        # the first domain draws as it would alone
        seed = (*self.seed, round_, kind) if kind else (*self.seed, round_)
        return members[
            int(np.random.default_rng(seed).permutation(len(members))[index])
        ]


class KeptViews:
    """Batches out of views that were made, and embedded, beforehand.

    Every view is seen once before any is seen again.

    Parameters
    ----------
    views : sequence of View
        At least one.
    batch : int
        Views a step.
    seed : int
        Of their order.
    domains : sequence of int, optional
        The domain of each; views of several come in turns.
    """

    def __init__(
        self,
        views: Sequence[View],
        batch: int,
        seed: int,
        domains: Sequence[int] | None = None,
    ) -> None:
        self.views = views
        self.batch = min(batch, len(views))
        self.turns = Turns(domains or [0] * len(views), (seed,))

    def __call__(self, step: int) -> LabelledBatch:
        """Return the batch of a step."""
        places = range(step * self.batch, (step + 1) * self.batch)
        return stack([self.views[self.turns(place)] for place in places])


class FreshViews:
    """Batches of views that are made for their step.

    Parameters
    ----------
    examples : sequence of Example
        The training images.
    config : ViewConfig
        How views are made.
    batch : int
        Views a step.
    domains : sequence of int, optional
        The domain of each image; views of several come in turns.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        config: ViewConfig,
        batch: int,
        domains: Sequence[int] | None = None,
    ) -> None:
        self.examples = examples
        self.config = config
        self.batch = batch
        self.turns = Turns(domains or [0] * len(examples), (config.seed, 1))

    def __call__(self, step: int) -> LabelledBatch:
        """Return the batch of a step."""
        places = range(step * self.batch, (step + 1) * self.batch)
        return stack(
            [
                changed_view(self.examples[self.turns(place)], place, self.config)
                for place in places
            ]
        )


def stack(views: Sequence[View]) -> LabelledBatch:
    """Put views into a batch, in float32."""
    inputs, shares, weight, numbers, places = zip(*views, strict=True)
    return LabelledBatch(
        torch.stack(inputs).float(),
        torch.stack(shares).float(),
        torch.stack(weight).float(),
        torch.tensor(numbers),
        torch.stack(places),
    )

"""Annotated images, described once: what every result is compared with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg._types import InputError, Progress
from napari_medseg.quality.accuracy import Reference
from napari_medseg.quality.looks import Looker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_medseg._types import FloatArray, Job
    from napari_medseg.io.pairs import Pairs
    from napari_medseg.quality.settings import QualitySettings

WINDOWS = 4
"""Windows of an annotated image, at most."""

FEWEST_IMAGES = 10
"""With fewer annotated images, results are only ranked."""


@dataclass(frozen=True, eq=False)
class Annotated:
    """Annotated images as results are compared with them.

    Attributes
    ----------
    pairs : Pairs
        The images.
    looker : Looker
        Describes images like these.
    windows : tuple of tuple of Reference
        The windows of each image.
    classes : int
        Number of classes of the results, background included.
    """

    pairs: Pairs
    looker: Looker
    windows: tuple[tuple[Reference, ...], ...]
    classes: int

    @property
    def references(self) -> list[Reference]:
        """All windows with something drawn on them.

        Of the others every result that finds nothing there has a perfect score.
        """
        every = [window for windows in self.windows for window in windows]
        return [window for window in every if (window.labels > 0).any()]

    @property
    def whole(self) -> bool:
        """Whether the class of every pixel is known: no scribbles."""
        return all(
            (window.labels >= 0).all() for windows in self.windows for window in windows
        )

    @property
    def summaries(self) -> FloatArray:
        """What each image is like, ``float32 (N, E)``."""
        return np.stack(
            [
                np.mean([window.look.summary for window in windows], axis=0)
                for windows in self.windows
            ]
        ).astype(np.float32)


def reference_folders(images: Path, masks: Path | None = None) -> tuple[Path, Path]:
    """Return where annotated images and their masks are.

    Parameters
    ----------
    images : Path
        A folder with the folders ``images`` and ``masks``; or a folder of images.
    masks : Path, optional
        The folder of masks. Default: in ``images``, beside them or in ``masks``.

    Returns
    -------
    tuple of Path
        What `napari_medseg.io.pairs.read_pairs` takes.
    """
    if masks is not None:
        return images, masks
    inside = images / "images", images / "masks"
    return inside if all(each.is_dir() for each in inside) else (images, images)


def describe_references(
    pairs: Pairs,
    classes: int,
    settings: QualitySettings,
    class_values: Sequence[int] = (),
) -> Job[Annotated]:
    """Describe annotated images.

    Parameters
    ----------
    pairs : Pairs
        The images.
    classes : int
        Number of classes of the results to judge, background included.
    settings : QualitySettings
        Which SAM, and where.
    class_values : sequence of int
        The mask value of each class of the model, where it is known. Default: the
        values of the masks in their order.

    Yields
    ------
    Progress
        One an image.

    Returns
    -------
    Annotated
        To compare with.

    Raises
    ------
    InputError
        The masks have other classes than the results, or nothing is on them.
    WeightsError
        The SAM is not there.
    """
    fitted = _of_classes(pairs, classes, class_values)
    looker = Looker.for_pairs(pairs, settings)
    windows = []
    for index, pair in enumerate(fitted):
        yield Progress(index, len(fitted), f"looking at reference {pair.name}")
        targets = fitted.targets(index)
        if classes == 2:
            targets = np.minimum(targets, 1)
        windows.append(
            tuple(
                Reference(fingerprint(pair.image), look, look.cells(targets))
                for look in looker.looks(pair.image, WINDOWS)
            )
        )
    result = Annotated(fitted, looker, tuple(windows), classes)
    if not result.references:
        raise InputError(
            "Nothing is drawn on the reference masks, so results cannot be compared "
            "with them. Give annotated images that show what the model looks for."
        )
    return result


def fingerprint(image: FloatArray) -> str:
    """Return what tells an image from every other."""
    pixels = np.ascontiguousarray(image, np.float32)
    shape = repr(pixels.shape).encode()
    return hashlib.sha256(shape + pixels.tobytes()).hexdigest()


def _of_classes(pairs: Pairs, classes: int, values: Sequence[int]) -> Pairs:
    """Return pairs whose classes are those of the model."""
    if classes == 2 or (pairs.classes == classes and not values):
        return pairs
    known = tuple(values)
    if len(known) == classes and set(pairs.class_values) <= {*known, 0}:
        changed = tuple(replace(pair, class_values=known) for pair in pairs)
        return replace(pairs, pairs=changed, class_values=known)
    if pairs.classes == classes:
        return pairs
    raise InputError(
        f"The model has {classes - 1} classes besides the background, but the "
        f"reference masks have {pairs.classes - 1}. Give masks with the same classes "
        "as those the model was trained on."
    )

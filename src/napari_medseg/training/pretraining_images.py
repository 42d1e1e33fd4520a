"""Images without labels: read from a folder, cut into windows with superpixels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from napari_medseg._types import InputError, Progress
from napari_medseg.io.images import image_files, read_image
from napari_medseg.io.normalise import Normalisation, normalise
from napari_medseg.models.framing import resize
from napari_medseg.training.supercl import WindowBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_medseg._types import Job, LabelArray
    from napari_medseg.io.channel_choice import ChannelChoice
    from napari_medseg.io.image_file import ImageFile


@dataclass(frozen=True)
class Plain:
    """An image, or a slice of a stack, without labels.

    Attributes
    ----------
    name : str
        Name of the file.
    image : ndarray
        ``uint8 (C, Y, X)``, normalised, in the resolution of the network's input: a
        quarter of the memory of floats, as a folder of them is held at once.
    position : float
        Height of a slice in its stack, 0 to 1; NaN for what is no slice.
    """

    name: str
    image: NDArray[np.uint8]
    position: float


class Unlabelled(NamedTuple):
    """The images of a folder.

    Attributes
    ----------
    images : list of Plain
        At least one.
    normalisation : Normalisation
        Of all of them.
    digest : str
        SHA-256 over the images as they are seen.
    problems : tuple of str
        What was left out, and why.
    """

    images: list[Plain]
    normalisation: Normalisation
    digest: str
    problems: tuple[str, ...]


def read_unlabelled(
    folder: Path,
    reduction: int,
    choose: Callable[[int, bool], Normalisation],
    channels: ChannelChoice,
) -> Job[Unlabelled]:
    """Read all images of a folder and of the folders in it.

    Parameters
    ----------
    folder : Path
        The folder.
    reduction : int
        Pixels of the image per pixel of the result.
    choose : callable
        Gives the normalisation, of the number of channels and of whether they are
        red, green and blue.
    channels : ChannelChoice
        Which channels of the images are used.

    Yields
    ------
    Progress
        One a file.

    Returns
    -------
    Unlabelled
        The images; files that cannot be read are left out.

    Raises
    ------
    InputError
        There is no image, or images differ in their channels.
    """
    files = image_files(folder, recursive=True)
    images: list[Plain] = []
    problems: list[str] = []
    first: ImageFile | None = None
    normalisation: Normalisation | None = None
    digest = hashlib.sha256()
    for index, path in enumerate(files):
        yield Progress(index, len(files), "reading the images")
        try:
            file = channels.of(read_image(path))
            planes = [plane for _, plane in file.slices()]
        except InputError as error:
            problems.append(str(error))
            continue
        if first is None or normalisation is None:
            first, normalisation = file, choose(file.channels, file.rgb)
        if (file.channels, file.rgb) != (first.channels, first.rgb):
            raise InputError(
                f"{path} has {_channels(file)}, and {first.path} {_channels(first)}. "
                "Pretrain on images of one kind; move the others elsewhere."
            )
        for height, plane in enumerate(planes):
            image = _as_seen(normalise(plane, normalisation), reduction)
            position = height / (len(planes) - 1) if len(planes) > 1 else np.nan
            images.append(Plain(path.name, image, position))
            digest.update(repr(image.shape).encode() + image.tobytes())
    if normalisation is None:
        told = f": {problems[0]}" if problems else "."
        raise InputError(f"There is no image to learn from in {folder}{told}")
    return Unlabelled(images, normalisation, digest.hexdigest(), tuple(problems))


def _channels(file: ImageFile) -> str:
    colours = " (red, green, blue)" if file.rgb else ""
    return f"{file.channels} channel{'s' * (file.channels != 1)}{colours}"


def _as_seen(image: NDArray[np.float32], reduction: int) -> NDArray[np.uint8]:
    """Reduce a normalised image and keep 256 levels of it."""
    shape = tuple(max(1, round(side / reduction)) for side in image.shape[1:])
    small = resize(torch.from_numpy(image)[None], (shape[0], shape[1]))[0]
    result: NDArray[np.uint8] = (small.clamp(0, 1) * 255).round().byte().numpy()
    return result


class Windows:
    """Batches of windows at random places.

    Every image is seen once before any is seen again. A batch depends on the seed
    and the number of its step alone.

    Parameters
    ----------
    images : sequence of Plain
        At least one.
    superpixels : sequence of ndarray
        ``int32 (Y, X)`` of each.
    side : int
        Side of a window; smaller images are mirrored at their edges.
    batch : int
        Windows a step.
    seed : int
        Of order and places.
    """

    def __init__(
        self,
        images: Sequence[Plain],
        superpixels: Sequence[LabelArray],
        side: int,
        batch: int,
        seed: int,
    ) -> None:
        self.images = images
        self.superpixels = superpixels
        self.side = side
        self.batch = batch
        self.seed = seed

    def __call__(self, step: int) -> WindowBatch:
        """Return the batch of a step."""
        windows, maps, positions = zip(*self._drawn(step), strict=True)
        images = torch.from_numpy(np.stack(windows)).float() / 255.0
        labels = torch.from_numpy(np.stack(maps)).long()
        return WindowBatch(images, labels, torch.tensor(positions, dtype=torch.float32))

    def _drawn(
        self, step: int
    ) -> Iterator[tuple[NDArray[np.uint8], LabelArray, float]]:
        count = len(self.images)
        for place in range(step * self.batch, (step + 1) * self.batch):
            round_, index = divmod(place, count)
            order = np.random.default_rng((self.seed, 1, round_)).permutation(count)
            chosen = int(order[index])
            rng = np.random.default_rng((self.seed, 2, place))
            image, labels = self.images[chosen].image, self.superpixels[chosen]
            corner = [
                int(rng.integers(max(1, length - self.side + 1)))
                for length in labels.shape
            ]
            rows, columns = (slice(start, start + self.side) for start in corner)
            cut, map_ = image[:, rows, columns], labels[rows, columns]
            missing = [(0, self.side - length) for length in map_.shape]
            yield (
                np.pad(cut, [(0, 0), *missing], "symmetric"),
                np.pad(map_, missing, "symmetric"),
                self.images[chosen].position,
            )

"""The words every room of the package shares: progress, predictions, errors.

Standard library and numpy only: the viewer's process, the command line and the
compute process all import this module.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FloatArray = np.ndarray[Any, np.dtype[np.float32]]
"""A ``float32`` array, such as an image ``(C, Y, X)`` inside the core."""

LabelArray = np.ndarray[Any, np.dtype[np.int32]]
"""An ``int32`` array of labels ``(Y, X)``."""

T = TypeVar("T")


class MedsegError(Exception):
    """Base of every error of this package.

    The message is a sentence for a biologist: which file, what is wrong, what to
    do. It is shown as it stands, without a traceback.
    """


class InputError(MedsegError):
    """A file, folder or argument that the user gave cannot be used."""


class RedoError(InputError):
    """Results of another model or other settings are there; ``redo`` replaces them."""


class OverwriteError(InputError):
    """Files are in the way that no run is known to have written; see ``overwrite``."""


class ModelFileError(MedsegError):
    """A ``.medseg`` model file is damaged, unsafe or from a later version."""


class WeightsError(MedsegError):
    """Weights are missing, damaged, of the wrong kind or could not be fetched."""


class JobError(MedsegError):
    """A job failed for a reason that is not in the input (memory, the device)."""


@dataclass(frozen=True, slots=True)
class Progress:
    """One report of a running job.

    Attributes
    ----------
    step : int
        Steps done so far.
    total : int or None
        Steps in all, or None where that is not known.
    message : str
        What is being done, in words.
    metrics : mapping of str to float
        Figures of this step, such as ``loss`` or held-out ``dice``.
    preview : ndarray or None
        Something to look at while waiting, such as a probability map ``(Y, X)``.
    """

    step: int
    total: int | None
    message: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    preview: NDArray[Any] | None = None


Job = Generator[Progress, None, T]
"""A job: a generator that yields `Progress` and returns its result.

Closing it (``job.close()``) cancels the work at the next step.
"""


def finish(job: Job[T]) -> T:
    """Run a job to its end and return its result.

    Parameters
    ----------
    job : generator
        A job that yields `Progress`.

    Returns
    -------
    object
        What the job returns.
    """
    while True:
        try:
            next(job)
        except StopIteration as done:
            result: T = done.value
            return result


@dataclass(frozen=True, slots=True)
class LabelClass:
    """A class of a segmentation: its name and its colour.

    Attributes
    ----------
    name : str
        Name shown to the user, such as ``nucleus``.
    colour : str
        ``#rrggbb``.
    """

    name: str
    colour: str


CLASS_COLOURS = (
    "#00000000",
    "#e69f00",
    "#56b4e9",
    "#009e73",
    "#f0e442",
    "#0072b2",
    "#d55e00",
    "#cc79a7",
)
"""Background, then the colours of Okabe and Ito, told apart by everybody."""


def default_classes(count: int) -> tuple[LabelClass, ...]:
    """Return names and colours for ``count`` classes, background first.

    Parameters
    ----------
    count : int
        Number of classes, background included.

    Returns
    -------
    tuple of LabelClass
        ``background`` and ``object``, or ``background``, ``class 1``, ….
    """
    names = (
        ["background", "object"]
        if count == 2
        else ["background", *(f"class {index}" for index in range(1, count))]
    )
    foreground = CLASS_COLOURS[1:]
    colours = [CLASS_COLOURS[0]] + [
        foreground[index % len(foreground)] for index in range(count - 1)
    ]
    return tuple(LabelClass(*pair) for pair in zip(names, colours, strict=True))


class Pixels(Protocol):
    """The pixels of one 2D image, in memory or not: parts of it are read on demand."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns."""
        ...

    def region(self, rows: slice, columns: slice) -> FloatArray:
        """Read a part, ``float32 (C, y, x)``."""
        ...

    def sample(self) -> FloatArray:
        """Read every n-th row and column, about 4 million pixels at most."""
        ...


class AnySegmenter(Protocol):
    """A segmenter: anything that turns an image into a prediction."""

    @property
    def classes(self) -> tuple[LabelClass, ...]:
        """The classes, background first."""
        ...

    @property
    def identity(self) -> str:
        """What tells it from every other segmenter, as a short text or a hash."""
        ...

    def predict(self, image: FloatArray) -> Prediction:
        """Segment an image ``float32 (C, Y, X)``."""
        ...


@runtime_checkable
class BandSegmenter(AnySegmenter, Protocol):
    """A segmenter that can do images that do not fit into memory."""

    def bands(self, pixels: Pixels) -> Iterator[Prediction]:
        """Segment an image from the top to the bottom, some rows at a time.

        The bands put together are the prediction of the whole image.
        """
        ...


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a segmenter says of one image.

    Attributes
    ----------
    probabilities : ndarray
        ``float32 (K, Y, X)``, class probabilities; class 0 is background.
    classes : tuple of LabelClass
        The K classes.
    note : str
        What the user should know of how it came about (memory ran out, say); mostly
        empty.
    interior : ndarray or None
        ``float32 (Y, X)``, the probability that a pixel lies inside an object, away
        from its border; None from segmenters that do not tell objects apart.
    objects : ndarray or None
        ``int32 (Y, X)``, from segmenters that find objects one by one, each with an id
        from 1; the probabilities are then 1 on them and 0 elsewhere.
    stack : ndarray or None
        ``float32 (K, Y, X)``, of classes that may overlap: the probability of each by
        itself; of background, that there is none. `probabilities` are then what gives
        one label a pixel.
    masks : ndarray or None
        ``bool (K - 1, Y, X)``, of classes that may overlap: where each is found, by a
        threshold of its own; without background.
    """

    probabilities: FloatArray
    classes: tuple[LabelClass, ...]
    note: str = ""
    interior: FloatArray | None = None
    objects: LabelArray | None = None
    stack: FloatArray | None = None
    masks: NDArray[np.bool_] | None = None

    @property
    def labels(self) -> LabelArray:
        """The most probable class of each pixel, ``int32 (Y, X)``."""
        labels: LabelArray = np.argmax(self.probabilities, axis=0).astype(np.int32)
        return labels

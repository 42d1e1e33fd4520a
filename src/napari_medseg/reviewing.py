"""Quality without labels, by the names of folders and models.

`napari_medseg.quality` knows no model file; here a model, its earlier states and its
classes are brought to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_medseg._types import Progress
from napari_medseg.earlier import states_of
from napari_medseg.inference import open_segmenter
from napari_medseg.io.channel_choice import ALL, ChannelChoice
from napari_medseg.io.pairs import Pairs, as_annotation, read_pairs
from napari_medseg.quality.estimating import Estimate, Prepared, estimate, prepare
from napari_medseg.quality.references import reference_folders
from napari_medseg.remembered import annotated_values, channel_choice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_medseg._types import AnySegmenter, Job
    from napari_medseg.quality.settings import QualitySettings


@dataclass(frozen=True)
class References:
    """Where annotated images are, and what their masks hold.

    Attributes
    ----------
    images : Path
        A folder with ``images`` and ``masks`` in it, or a folder of images.
    masks : Path or None
        The folder of masks, where it is not in ``images``.
    annotation : str
        ``auto``, ``dense``, ``sparse`` or ``instances``.
    ignore : int or None
        Mask value of unlabelled pixels.
    """

    images: Path
    masks: Path | None = None
    annotation: str = "auto"
    ignore: int | None = None

    def read(self, channels: ChannelChoice = ALL) -> Pairs:
        """Read them.

        Parameters
        ----------
        channels : ChannelChoice
            Which channels of the images are seen.

        Raises
        ------
        InputError
            They cannot be read, or the kind of annotation is not known.
        """
        kind = as_annotation(self.annotation)
        images, masks = reference_folders(Path(self.images), self.masks)
        return read_pairs(
            images, masks, annotation=kind, ignore=self.ignore, channels=channels
        )


def prepare_for(
    segmenter: AnySegmenter,
    references: References,
    settings: QualitySettings,
    channels: ChannelChoice,
) -> Job[Prepared]:
    """Prepare to judge the results of a model.

    Parameters
    ----------
    segmenter : AnySegmenter
        The model; earlier states in its file give the masks of known quality.
    references : References
        Annotated images.
    settings : QualitySettings
        How quality is predicted.
    channels : ChannelChoice
        Which channels of images the model sees.

    Yields
    ------
    Progress
        What is being done.

    Returns
    -------
    Prepared
        To judge results by.

    Raises
    ------
    InputError
        The references cannot be read, or do not fit the model.
    WeightsError
        The SAM that describes images is not there.
    """
    yield Progress(0, None, "reading references")
    pairs = references.read(channels)
    values = annotated_values(segmenter)
    states = states_of(segmenter)
    classes = len(segmenter.classes)
    return (yield from prepare(pairs, classes, settings, states, values))


def estimate_folder(
    images: Path | Sequence[Path],
    model: str,
    references: References,
    settings: QualitySettings,
    *,
    count: int = 0,
    base: str | None = None,
    channels: Sequence[int] = (),
) -> Job[Estimate]:
    """Segment images without annotations, and predict how good the results are.

    Parameters
    ----------
    images : Path or sequence of Path
        A folder, an image, or several.
    model : str
        A ``.medseg`` file, or a name that ``models list`` shows.
    references : References
        Annotated images.
    settings : QualitySettings
        How quality is predicted.
    count : int
        How many images to name that should be annotated next.
    base : str, optional
        Checkpoint of the SAM that the model was tuned on.
    channels : sequence of int
        Channels of the images, and of the references, that the model sees, from 0;
        none for those that it learned.

    Yields
    ------
    Progress
        What is being done.

    Returns
    -------
    Estimate
        The worst first.

    Raises
    ------
    InputError
        There is no image, or the references cannot be used.
    ModelFileError, WeightsError
        The model cannot be opened.
    """
    yield Progress(0, None, "loading the model")
    segmenter = open_segmenter(model, settings.device, base)
    choice = channel_choice(segmenter, channels)
    prepared = yield from prepare_for(segmenter, references, settings, choice)
    return (yield from estimate(images, segmenter, prepared, count, choice))

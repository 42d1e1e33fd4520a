"""What a model remembers of the images that it was trained on; torch is not needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_medseg.io.channel_choice import ChannelChoice
from napari_medseg.io.model_file import ModelCard, ModelFile

if TYPE_CHECKING:
    from collections.abc import Sequence


def annotated_values(segmenter: object) -> tuple[int, ...]:
    """Return the values that a model's classes had in the masks it was trained on.

    Parameters
    ----------
    segmenter : AnySegmenter
        Any segmenter.

    Returns
    -------
    tuple of int
        Background first; empty where there is no model file, or it does not tell.
    """
    model_file = _file_of(segmenter)
    return _numbers(model_file.card, "class_values") if model_file else ()


def trained_channels(card: ModelCard) -> tuple[int, ...]:
    """Return the channels of its images that a model was trained on.

    Parameters
    ----------
    card : ModelCard
        The model's card.

    Returns
    -------
    tuple of int
        From 0; empty where nobody chose, or the card does not tell.
    """
    return _numbers(card, "channels")


def channel_choice(segmenter: object, chosen: Sequence[int] = ()) -> ChannelChoice:
    """Return which channels of image files a segmenter sees.

    Parameters
    ----------
    segmenter : AnySegmenter
        Any segmenter.
    chosen : sequence of int
        Channels that a person chose, from 0; empty for no choice.

    Returns
    -------
    ChannelChoice
        Also those that the model was trained on, and how many it looks at.

    Raises
    ------
    InputError
        A channel below 0 was chosen.
    """
    model_file = _file_of(segmenter)
    if model_file is None:
        return ChannelChoice(tuple(chosen))
    # all models of one a class see the same
    one = getattr(segmenter, "segmenters", [segmenter])[0]
    needed = max(one.normalisation.channels) + 1
    return ChannelChoice(tuple(chosen), trained_channels(model_file.card), needed)


def _file_of(segmenter: object) -> ModelFile | None:
    """Return the file of a segmenter that has one."""
    found = getattr(segmenter, "model_file", None)
    return found if isinstance(found, ModelFile) else None


def _numbers(card: ModelCard, name: str) -> tuple[int, ...]:
    """Return whole numbers of a card, which anybody may have written."""
    found = card.provenance.get(name)
    whole = isinstance(found, list) and all(
        type(each) is int and each >= 0 for each in found
    )
    return tuple(found) if isinstance(found, list) and whole else ()

"""Going on from a tuned model: its prompts are where a training begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_medseg._types import InputError
from napari_medseg.io import model_file
from napari_medseg.models import bundled
from napari_medseg.models.comparison import Comparison
from napari_medseg.models.prompts import STATISTICS, fineness_of
from napari_medseg.models.registry import SPECIALISTS

if TYPE_CHECKING:
    from torch import nn

    from napari_medseg._types import FloatArray
    from napari_medseg.models.backbone import Backbone

MAY_BE_KNOWN = (
    "The training went on from another model. If that was tuned on some of these "
    "images, the held-out score is too good; measure on images that neither has seen."
)
"""What a report says of held-out images that the model before may have seen."""


@dataclass(frozen=True, eq=False)
class Start:
    """Prompts to begin with.

    Attributes
    ----------
    title, digest : str
        The model that they are of.
    decoder : ndarray
        ``float32 (sets, count, 256)``.
    encoder : ndarray or None
        ``float32 (blocks, count, D)``, where it has encoder prompts.
    statistics : ndarray or None
        ``float32 (2, 256)``, where its prompts are compared with the embedding.
    fineness : int
        How finely they are.
    """

    title: str
    digest: str
    decoder: FloatArray
    encoder: FloatArray | None
    statistics: FloatArray | None = None
    fineness: int = 1

    @property
    def comparison(self) -> Comparison | None:
        """What compares its prompts with the embedding, as it was there."""
        if self.statistics is None:
            return None
        return Comparison.of(self.statistics, self.fineness)

    @property
    def compared(self) -> str:
        """How its prompts are compared, as the settings have it."""
        if self.statistics is None:
            return "none"
        return "embedding" if self.fineness == 1 else "fine"

    def fill(self, prompts: nn.Parameter, encoder_prompts: list[nn.Parameter]) -> None:
        """Copy the prompts into fresh ones.

        Parameters
        ----------
        prompts : Parameter
            ``(sets, count, 256)``.
        encoder_prompts : list of Parameter
            ``(count, D)`` of each block; empty where there are none.

        Raises
        ------
        InputError
            The shapes are others: the settings ask for other prompts or classes.
        """
        encoder = [] if self.encoder is None else list(self.encoder)
        given = [self.decoder, *encoder]
        wanted = [prompts, *encoder_prompts]
        shapes = [tuple(item.shape) for item in given]
        if shapes != [tuple(item.shape) for item in wanted]:
            sets, count = self.decoder.shape[:2]
            inside = "no" if not encoder else str(len(encoder[0]))
            raise InputError(
                f"The model to go on from ({self.title}) has {sets} sets of {count} "
                f"prompts and {inside} encoder prompts; these images and settings ask "
                f"for {prompts.shape[0]} sets of {prompts.shape[1]}. Annotate the same "
                "classes and choose the same numbers of prompts, or begin afresh."
            )
        with torch.no_grad():
            for parameter, values in zip(wanted, given, strict=True):
                parameter.copy_(torch.from_numpy(np.array(values, np.float32)))


def read_start(name: str, method: str, backbone: Backbone) -> Start:
    """Read the model that a training goes on from.

    Parameters
    ----------
    name : str
        A model file, or a name of the shelf.
    method : str
        The method of the training: ``ptsam`` or ``ptsam-objects``.
    backbone : Backbone
        The SAM that is tuned.

    Returns
    -------
    Start
        Its prompts.

    Raises
    ------
    ModelFileError
        The file is missing or damaged.
    InputError
        It is a model of another kind, or was tuned on another SAM.
    """
    shelf = SPECIALISTS.get(name)
    path = bundled.find(shelf.file) if shelf is not None else Path(name)
    found = model_file.load(path)
    card = found.card
    if card.kind != method:
        raise InputError(
            f"{name} was made by the method {card.kind}, and this is {method}. Choose "
            "that method, or begin afresh."
        )
    if card.base.get("sha256") != backbone.digest:
        raise InputError(
            f"{name} was tuned on {card.base.get('title')}, not on {backbone.title} "
            "with the weights that are here. Choose that SAM, or begin afresh."
        )
    return Start(
        card.title,
        model_file.digest(found),
        found.tensors["decoder_prompts"],
        found.tensors.get("encoder_prompts"),
        found.tensors.get(STATISTICS),
        fineness_of(card),
    )

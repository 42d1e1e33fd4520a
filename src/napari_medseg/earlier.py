"""A tuned model as it was earlier in its training: of known and different quality."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_medseg._types import AnySegmenter, ModelFileError
from napari_medseg.inference import Segmenter
from napari_medseg.io.model_file import states_in
from napari_medseg.models.embeddings import EmbeddingCache, signature
from napari_medseg.models.prompts import PromptedSam

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_medseg._types import FloatArray, LabelClass, Prediction

KEPT_BYTES = 256 * 1024**2
"""Embeddings that are kept while one state after the other sees an image."""


@dataclass(frozen=True, eq=False)
class EarlierState:
    """A segmenter with the prompts that it had earlier.

    Attributes
    ----------
    segmenter : Segmenter
        Shared by all states; only one may be used at a time.
    prompts : mapping of str to ndarray
        What the prompts were, by the names of the model file.
    """

    segmenter: Segmenter
    prompts: Mapping[str, NDArray[Any]]

    @property
    def classes(self) -> tuple[LabelClass, ...]:
        """The classes, background first."""
        return self.segmenter.classes

    @property
    def identity(self) -> str:
        """What tells it from every other segmenter."""
        first = np.ascontiguousarray(self.prompts["decoder_prompts"]).tobytes()
        return f"{self.segmenter.identity} {hash(first)}"

    def predict(self, image: FloatArray) -> Prediction:
        """Segment an image ``float32 (C, Y, X)``."""
        network = self.segmenter.network
        inner = network.whole if isinstance(network, _Remembering) else network
        if not isinstance(inner, PromptedSam):
            raise TypeError("only prompted networks have earlier states")
        with _with_prompts(inner, self.prompts):
            return self.segmenter.predict(image)


def states_of(segmenter: AnySegmenter) -> tuple[AnySegmenter, ...]:
    """Return the earlier states in a segmenter's model file, and the segmenter.

    Parameters
    ----------
    segmenter : AnySegmenter
        Any; only tuned models can have earlier states.

    Returns
    -------
    tuple of AnySegmenter
        The earliest first; empty where the file holds none. They share one network,
        so use one at a time; an image that all of them segment is embedded once.

    Raises
    ------
    ModelFileError
        The states do not fit the model.
    """
    if not isinstance(segmenter, Segmenter):
        return ()
    network = segmenter.network
    found = states_in(segmenter.model_file)
    if not found or not isinstance(network, PromptedSam):
        return ()
    for prompts in found:
        if any(
            prompts[name].shape != segmenter.model_file.tensors[name].shape
            for name in prompts
        ):
            raise ModelFileError(
                "The earlier states in the model file do not fit it; the file is "
                "damaged or was made by another program. Ask for it again."
            )
    shared = copy.copy(segmenter)
    if not network.encoder_prompts:
        shared.network = _Remembering(network)
    return (*(EarlierState(shared, prompts) for prompts in found), shared)


class _Remembering:
    """A network that embeds the same window once.

    Parameters
    ----------
    whole : PromptedSam
        Without prompts in its encoder.
    """

    def __init__(self, whole: PromptedSam) -> None:
        self.whole = whole
        self._kept = EmbeddingCache(memory_bytes=KEPT_BYTES)

    def __call__(self, windows: Tensor) -> Tensor:
        """Map windows to logits."""
        self.whole.to(windows.device)
        found = [self._embedding(window) for window in windows]
        logits: Tensor = self.whole.decoder(torch.stack(found).to(windows.device))
        return logits

    def _embedding(self, window: Tensor) -> Tensor:
        """Embed a window, or remember what its embedding was."""
        key = signature(window.cpu(), "", window.dtype)

        def compute() -> Tensor:
            return self.whole.embed(window[None])[0]

        return self._kept.get(key, compute)


@contextmanager
def _with_prompts(
    network: PromptedSam, prompts: Mapping[str, NDArray[Any]]
) -> Iterator[None]:
    """Let a network have other prompts for a while."""
    places = [network.decoder.prompts, *network.encoder_prompts]
    others = [prompts["decoder_prompts"], *prompts.get("encoder_prompts", ())]
    kept = [place.detach().clone() for place in places]
    try:
        with torch.no_grad():
            for place, values in zip(places, others, strict=True):
                place.copy_(torch.from_numpy(np.array(values, np.float32)))
        yield
    finally:
        with torch.no_grad():
            for place, values in zip(places, kept, strict=True):
                place.copy_(values)

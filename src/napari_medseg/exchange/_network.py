"""A model as one TorchScript network, with an example and a cover."""

from __future__ import annotations

import math
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from napari_medseg._types import JobError, ModelFileError
from napari_medseg.io.normalise import Normalisation, normalise
from napari_medseg.models.framing import resize
from napari_medseg.models.sam import standardise
from napari_medseg.samples import two_kinds_scene

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_medseg._types import FloatArray
    from napari_medseg.inference import Segmenter
    from napari_medseg.models.framing import Framing

TOLERANCE = 1e-3
"""Most that a probability of the exported network may differ from the model's."""

COVER = 256
"""Longest side of each half of the cover image, in pixels."""


class ExportedNetwork(nn.Module):
    """A model as one network: a window of the image in, class probabilities out.

    Parameters
    ----------
    network : Module
        Maps windows as `Framing.window` makes them to class logits.
    framing : Framing
        The windows.
    """

    def __init__(self, network: nn.Module, framing: Framing) -> None:
        super().__init__()
        self.network = network
        self.tile = framing.tile
        self.size = framing.size

    def forward(self, images: Tensor) -> Tensor:
        """Segment windows.

        Parameters
        ----------
        images : Tensor
            ``(B, C, tile, tile)`` in [0, 1].

        Returns
        -------
        Tensor
            ``(B, K, tile, tile)``, class probabilities.
        """
        inner, outer = (self.size, self.size), (self.tile, self.tile)
        logits = self.network(standardise(resize(images, inner)))
        # by way of the working size, as in Framing.unwindow
        return resize(resize(logits.float(), inner), outer).softmax(dim=1)


def write_network(segmenter: Segmenter, folder: Path) -> None:
    """Write the network as TorchScript, with an image to try it on and a cover.

    Parameters
    ----------
    segmenter : Segmenter
        The model, on the processor.
    folder : Path
        Gets ``weights.pt``, ``test_input.npy``, ``test_output.npy``, ``cover.png``.

    Raises
    ------
    ModelFileError
        The model is no network.
    JobError
        The traced network does something else than the model.
    """
    if not isinstance(segmenter.network, nn.Module):
        raise ModelFileError(
            f"A model of the kind {segmenter.model_file.card.kind!r} cannot be "
            "exported: it is not a network."
        )
    network = ExportedNetwork(segmenter.network, segmenter.plan.framing).eval()
    channels = len(segmenter.normalisation.channels)
    image = example_image(segmenter.plan.framing.tile, channels)
    inputs = torch.from_numpy(_prepared(image, segmenter.normalisation))[None]
    with torch.no_grad():
        wanted = network(inputs)
        traced = _traced(network, torch.zeros_like(inputs), folder / "weights.pt")
        found = traced(inputs)
    difference = float((found - wanted).abs().max())
    if not difference <= TOLERANCE:
        raise JobError(
            "The exported network does not do what the model does: probabilities "
            f"differ by up to {difference:.3g}. Nothing was written; please report it."
        )
    np.save(folder / "test_input.npy", image[None])
    np.save(folder / "test_output.npy", wanted.numpy())
    _write_cover(image, wanted[0].numpy(), folder / "cover.png")


def example_image(tile: int, channels: int = 3) -> FloatArray:
    """Return a generated image ``float32 (C, tile, tile)``, grey levels 0 to 255."""
    scene = two_kinds_scene(np.random.default_rng(0), tile)
    image: FloatArray = np.repeat(scene.image[:1].astype(np.float32), channels, axis=0)
    return image


def _prepared(image: FloatArray, usual: Normalisation) -> FloatArray:
    """Scale an image whose channels are the model's inputs already."""
    channels = tuple(range(len(usual.channels)))
    own = Normalisation(channels, usual.lower, usual.upper, usual.joint)
    return normalise(image, own)


def _traced(network: nn.Module, example: Tensor, path: Path) -> nn.Module:
    """Write a network as TorchScript and return what another program would load."""
    with tracing():
        # its own check would run everything once more; the caller's is stricter
        traced = torch.jit.trace(network, example, check_trace=False)
        torch.jit.save(torch.jit.freeze(traced), str(path))
        loaded: nn.Module = torch.jit.load(str(path))
    return loaded


@contextmanager
def tracing() -> Iterator[None]:
    """Silence what torch says of TorchScript, and nothing else.

    A trace holds for one size of the input, which is what is wanted here. TorchScript
    is deprecated in favour of formats that BioImage.IO does not know.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=TracerWarning)
        # a FutureWarning or a DeprecationWarning, by the version of torch
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated")
        yield


def _write_cover(image: FloatArray, probabilities: FloatArray, path: Path) -> None:
    """Write the example image beside what the model finds on it."""
    import imageio.v3 as imageio

    step = math.ceil(image.shape[1] / COVER)
    halves = [image[0] / 255, 1 - probabilities[0]]
    picture = np.hstack([half[::step, ::step] for half in halves])
    imageio.imwrite(path, (picture.clip(0, 1) * 255).astype(np.uint8))

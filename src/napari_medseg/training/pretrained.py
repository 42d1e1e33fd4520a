"""Networks that begin with an encoder that was pretrained without labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from napari_medseg._types import InputError
from napari_medseg.io import encoder_file
from napari_medseg.models.registry import SAMS

if TYPE_CHECKING:
    from napari_medseg.io.encoder_file import EncoderFile
    from napari_medseg.models.networks import Network


@dataclass(frozen=True, eq=False)
class Pretrained:
    """An encoder to begin with.

    Attributes
    ----------
    name : str
        Name of the file.
    file : EncoderFile
        Its weights.
    digest : str
        SHA-256 over them and the card.
    """

    name: str
    file: EncoderFile
    digest: str

    def fill(self, network: Network, channels: int) -> None:
        """Copy the encoder into a fresh network.

        Parameters
        ----------
        network : Network
            Of the kind that was pretrained.
        channels : int
            Channels of the images.

        Raises
        ------
        InputError
            It was pretrained on images with other channels, or the weights are not
            those of this network.
        """
        if channels != self.file.card.channels:
            raise InputError(
                f"{self.name} was pretrained on images with "
                f"{self.file.card.channels} channels, and these have {channels}. "
                "Pretrain on images of this kind, or leave the file out."
            )
        wanted = encoder_state(network)
        shapes = {name: tuple(item.shape) for name, item in wanted.items()}
        found = {name: tuple(item.shape) for name, item in self.file.tensors.items()}
        if shapes != found:
            raise InputError(
                f"The weights in {self.name} are not those of this network: it has "
                "another width, or they were made by another version. Choose the "
                "width that is usual, or pretrain again."
            )
        with torch.no_grad():
            for name, item in wanted.items():
                item.copy_(torch.from_numpy(self.file.tensors[name]))

    @property
    def origin(self) -> dict[str, Any]:
        """What the card of a model says of it."""
        return {"pretrained": {"title": self.file.card.title, "digest": self.digest}}


def encoder_state(network: Network) -> dict[str, torch.Tensor]:
    """Return the weights and statistics of a network's encoder, by name."""
    return {
        name: item
        for name, item in network.state_dict().items()
        if name.split(".", 1)[0] in network.encoder
    }


def read_pretrained(name: str, network: str) -> Pretrained:
    """Read the encoder that a network begins with.

    Parameters
    ----------
    name : str
        A file of ``napari-medseg pretrain``.
    network : str
        Name of the network that is trained.

    Returns
    -------
    Pretrained
        The encoder.

    Raises
    ------
    ModelFileError
        The file is missing, damaged or of another kind.
    InputError
        It holds the encoder of another network.
    """
    path = Path(name)
    found = encoder_file.load(path)
    kind = found.card.kind
    if kind in SAMS:
        raise InputError(
            f"{name} is a SAM that was pretrained. Give it with --sam to a method "
            "that tunes a SAM, such as ptsam."
        )
    if kind != network:
        raise InputError(
            f"{name} holds an encoder of {kind}, and this trains {network}. Choose "
            "that method, or pretrain this network."
        )
    return Pretrained(path.name, found, found.digest)

"""Networks that begin with an encoder that was pretrained, without labels or elsewhere.

What is published for colours is fitted to other channels as segmentation-models-pytorch
does it: one channel gets the sum of the three kernels, several get them in turn, scaled
so that their sum stays as large.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch

from napari_medseg._types import InputError, WeightsError
from napari_medseg.io import encoder_file
from napari_medseg.models.registry import SAMS

if TYPE_CHECKING:
    from napari_medseg.io.encoder_file import EncoderFile
    from napari_medseg.models.imagenet import ImageNetWeights
    from napari_medseg.models.networks import Network
    from napari_medseg.training.network_training import NetworkTraining

C = TypeVar("C", bound="NetworkTraining")


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
    def reduction(self) -> int | None:
        """Pixels of an image per pixel of what it saw; None where none is known."""
        known = self.file.card.config.get("reduction")
        return known if isinstance(known, int) and known > 0 else None

    @property
    def origin(self) -> dict[str, Any]:
        """What the card of a model says of it."""
        return {"pretrained": {"title": self.file.card.title, "digest": self.digest}}


@dataclass(frozen=True, eq=False)
class Published:
    """Weights from ImageNet to begin with.

    Attributes
    ----------
    weights : ImageNetWeights
        The encoder.
    """

    weights: ImageNetWeights
    name = ""
    reduction: ClassVar[int | None] = None

    @property
    def digest(self) -> str:
        """SHA-256 of their file."""
        return self.weights.digest

    def fill(self, network: Network, channels: int) -> None:
        """Copy the encoder into a fresh network.

        Parameters
        ----------
        network : Network
            With one encoder, of this kind.
        channels : int
            Channels of the images.

        Raises
        ------
        InputError
            The weights are not those of this network.
        """
        (part,) = network.encoder
        for name, item in encoder_state(network).items():
            found = self.weights.state.get(name.removeprefix(f"{part}."))
            if found is not None and found.ndim == 4 and found.shape[1:2] == (3,):
                found = fitted(found, channels)
            if found is None or found.shape != item.shape:
                raise InputError(
                    f"ImageNet's weights of {self.weights.backbone} do not fit this "
                    "network. Update segmentation-models-pytorch, or train with "
                    "--encoder-weights none."
                )
            with torch.no_grad():
                item.copy_(found)

    @property
    def origin(self) -> dict[str, Any]:
        """What the card of a model says of them."""
        source, digest = self.weights.source, self.weights.digest
        return {"encoder_weights": {"source": source, "sha256": digest}}


def fitted(kernels: torch.Tensor, channels: int) -> torch.Tensor:
    """Return first kernels for other than three channels.

    Parameters
    ----------
    kernels : Tensor
        ``(N, 3, k, k)``.
    channels : int
        How many are wanted.

    Returns
    -------
    Tensor
        ``(N, channels, k, k)``; the same for three.
    """
    if channels == 1:
        return kernels.sum(dim=1, keepdim=True)
    turns = torch.arange(channels) % 3
    return kernels[:, turns] * (3.0 / channels)


def read_published(config: NetworkTraining) -> Published | None:
    """Return the published weights that a training begins with, where it asks for any.

    Parameters
    ----------
    config : NetworkTraining
        Settings of any network.

    Returns
    -------
    Published or None
        None where none are asked for, or an encoder file is given.

    Raises
    ------
    WeightsError
        They cannot be had.
    """
    if config.pretrained or getattr(config, "encoder_weights", "none") == "none":
        return None
    from napari_medseg.models.imagenet import imagenet_weights

    return Published(imagenet_weights(config.backbone))  # type: ignore[attr-defined]


def settled(config: C) -> tuple[C, str]:
    """Return settings without published weights where those cannot be had.

    Parameters
    ----------
    config : NetworkTraining
        Settings of any network.

    Returns
    -------
    config : NetworkTraining
        The same, or with ``encoder_weights`` of ``none``, so that a replay has none
        either.
    note : str
        What the user should know; empty where all is as asked for.
    """
    try:
        read_published(config)
    except WeightsError as error:
        without: Any = replace(config, encoder_weights="none")  # type: ignore[call-arg]
        return without, (
            f"{error} The network was trained from scratch, which needs more images "
            "and steps; train again where there is a network."
        )
    return config, ""


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

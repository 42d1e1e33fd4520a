"""Networks that are trained whole: what each of them promises, and how one is built.

The promise is kept by every network of `NETWORKS` and checked by one test:
any number of channels and classes, any size of the input from the smallest on, in any
precision.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from napari_medseg._config import config_class, from_dict
from napari_medseg._types import InputError, ModelFileError
from napari_medseg.models.methods import METHODS, NETWORKS, PARTS
from napari_medseg.models.naming import unknown

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor

    from napari_medseg.io.model_file import ModelCard, ModelFile


class Network(nn.Module):
    """A network that is trained whole: windows in, class logits out.

    Its ``forward`` maps ``(B, in_channels, H, W)``, standardised, to logits
    ``(B, classes, H / shrink, W / shrink)``, rounded up, for H and W from `smallest`
    on. Weights are drawn from torch's generator when it is made.

    Attributes
    ----------
    shrink : int
        Pixels of the input per pixel of the output, along each side.
    smallest : int
        Shortest side of an input.
    settings : tuple of str
        Fields of the method's config that shape the network, beyond channels and
        classes.
    restyled : tuple of str
        Modules whose outputs ``(B, C, H, W)`` may get another style in training for
        other domains; none where the network does that itself.
    encoder : tuple of str
        Names of the parts that give `features`; what is pretrained without labels is
        they alone. Empty for a network that cannot be pretrained.
    """

    shrink: ClassVar[int] = 1
    smallest: ClassVar[int] = 32
    settings: ClassVar[tuple[str, ...]] = ()
    restyled: ClassVar[tuple[str, ...]] = ()
    encoder: ClassVar[tuple[str, ...]] = ()

    def features(self, images: Tensor) -> dict[int, Tensor]:
        """Return what the encoder says of windows, finer and coarser.

        Parameters
        ----------
        images : Tensor
            ``(B, in_channels, H, W)``, standardised.

        Returns
        -------
        dict of int to Tensor
            By stride, the finest first: ``(B, C, H / stride, W / stride)``, for H and
            W that the coarsest stride divides.
        """
        raise NotImplementedError

    @classmethod
    def build(cls, in_channels: int, classes: int, **settings: Any) -> Self:
        """Return the network with fresh weights.

        Parameters
        ----------
        in_channels : int
            Channels of the images.
        classes : int
            Outputs, background included.
        **settings
            The config's values of what `settings` names.

        Returns
        -------
        Network
            In training mode.
        """
        raise NotImplementedError

    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of all outputs that are trained, that of use first.

        Parameters
        ----------
        images : Tensor
            As ``forward`` takes them.

        Returns
        -------
        tuple of Tensor
            Each as ``forward`` gives it; just that one where there are no others.
        """
        return (self(images),)


def outputs_of(model: nn.Module, inputs: Tensor) -> tuple[Tensor, ...]:
    """Return the logits of all outputs that are trained, whatever the model is.

    Parameters
    ----------
    model : Module
        A `Network`, which may have several, or any other, which has one.
    inputs : Tensor
        What it takes.

    Returns
    -------
    tuple of Tensor
        ``(B, classes, h, w)`` each, ``float32``, that of use first.
    """
    found = model.outputs(inputs) if isinstance(model, Network) else (model(inputs),)
    return tuple(logits.float() for logits in found)


def network_class(name: str) -> type[Network]:
    """Import a network.

    Parameters
    ----------
    name : str
        A name of `NETWORKS`.

    Returns
    -------
    type
        Its class.

    Raises
    ------
    InputError
        There is no network of that name.
    """
    entry = NETWORKS.get(name)
    if entry is None:
        raise unknown("network", name, NETWORKS)
    module, kind = entry.home
    found: type[Network] = getattr(import_module(module), kind)
    return found


def from_model_file(model_file: ModelFile, base: str | None = None) -> Network:
    """Build the network of a model file, with its weights.

    Parameters
    ----------
    model_file : ModelFile
        Card and weights.
    base : str, optional
        Not used: nothing lies underneath.

    Returns
    -------
    Network
        Frozen, in evaluation mode.

    Raises
    ------
    ModelFileError
        The card asks for a network that cannot be, or the weights have not the names
        and shapes that it asks for.
    """
    card = model_file.card
    method = METHODS[card.kind]
    kind = network_class(method.trains)
    channels = len(card.normalisation.get("channels", ()))
    classes = PARTS if method.parts else len(card.classes)
    settings = _settings_of(card, kind)
    # without memory first: a small file may ask for a network of any size
    with torch.device("meta"):
        wanted = _shapes(kind.build(channels, classes, **settings))
    if wanted != {name: item.shape for name, item in model_file.tensors.items()}:
        raise ModelFileError(
            "The model file's weights do not fit its card; the file is damaged or was "
            "made by another program. Ask for it again."
        )
    network = kind.build(channels, classes, **settings)
    state = {name: torch.from_numpy(item) for name, item in model_file.tensors.items()}
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def _settings_of(card: ModelCard, kind: type[Network]) -> dict[str, Any]:
    """Return what shapes a network, as far as the method's own config allows it."""
    given = {name: card.config[name] for name in kind.settings if name in card.config}
    method = METHODS[card.kind]
    try:
        config = from_dict(config_class(method.config), given, "its card")
    except InputError as error:
        raise ModelFileError(
            f"The model file cannot be used: {error} It is damaged or was made by "
            "another program; ask for it again."
        ) from error
    return {name: getattr(config, name) for name in kind.settings}


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a network."""
    return {name: tuple(item.shape) for name, item in network.state_dict().items()}

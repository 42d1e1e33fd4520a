"""A channel that is added to a UNETR, which stays as it is.

After PEMMA (Saadi et al., arXiv 2404.13704; Saeed et al., arXiv 2504.13645): a network
that was trained on some channels gains one more by a few numbers, and still works with
either alone. Those numbers are

* a patch embedding of the new channel, which begins as a copy of the old one;
* a fusion of the tokens of both;
* a path of the new channel to full resolution beside that of the old ones;
* low-rank changes of the attention (LoRA, or DoRA), by peft. MONAI keeps query, key and
  value in one matrix, so that all three are changed, and the projection after them.

What is decided here, as the published code does not keep the old network at the start:

* the fusion is ``[I | 0]`` at the start, and the last convolution of the new path 0. So
  the first answer to both channels, and to the old ones alone, is that of the old
  network, bit for bit. The fusion is computed as the old tokens and a change that
  begins at 0, so that this is so in mixed precision, too;
* tokens are fused, as in the later paper, and not put one behind the other, as in the
  earlier one: twice as many tokens would be compared, in four times the time, and the
  first answer would be another;
* both channels, the old ones alone and the new one alone have low-rank changes each of
  their own, so that none is forgotten for another;
* which channels there are is an argument of ``forward``, down to every part; in the
  published code it is an attribute of an outer module, which the inner one never sees;
* a channel that is missing is not looked for: nothing is computed of zeros.
"""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Literal, cast, get_args

import torch
from monai.networks.blocks.unetr_block import UnetrBasicBlock
from torch import Tensor, nn

from napari_medseg._config import from_dict
from napari_medseg._types import InputError, MedsegError, ModelFileError
from napari_medseg.models.adapter_settings import AdapterConfig
from napari_medseg.models.bases import base_of
from napari_medseg.models.unetr import FINE, PATCH, fill_up

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_medseg.io.model_file import ModelFile
    from napari_medseg.io.normalise import Normalisation
    from napari_medseg.models.unetr import Unetr

Mode = Literal["both", "old", "new"]
"""Which channels there are."""

MODES: tuple[Mode, ...] = get_args(Mode)

TARGETS = ("qkv", "out_proj")
"""Linear layers of a block that are changed: of its attention."""


class AddedChannel(nn.Module):
    """A UNETR with one channel more; only what was added can be trained.

    Parameters
    ----------
    base : Unetr
        The old network. It is frozen, and otherwise left as it is.
    config : AdapterConfig
        How the attention is changed.

    Raises
    ------
    MedsegError
        peft is not installed.
    """

    def __init__(self, base: Unetr, config: AdapterConfig) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        hidden = base.hidden
        self.embedding = nn.Conv2d(1, hidden, PATCH, PATCH)
        self.fusion = nn.Linear(2 * hidden, hidden)
        self.alone = nn.Linear(hidden, hidden)
        self.path = UnetrBasicBlock(2, 1, FINE, 3, 1, "instance", res_block=True)
        self.joint = nn.Conv2d(FINE, FINE, 1)
        self.blocks = nn.ModuleDict({mode: _changed(base, config) for mode in MODES})
        old = base.embedding.state_dict()
        seen = {"weight": old["weight"].sum(1, keepdim=True), "bias": old["bias"]}
        self.embedding.load_state_dict(seen)
        for part in (self.fusion, self.alone, self.joint):
            for item in part.parameters():
                nn.init.zeros_(item)

    def forward(self, images: Tensor, mode: Mode = "both") -> Tensor:
        """Segment windows.

        Parameters
        ----------
        images : Tensor
            ``(B, C, H, W)``, standardised: the old channels first, the new one last.
            Those that ``mode`` does not name are not looked at and may be missing.
        mode : {"both", "old", "new"}
            Which channels there are.

        Returns
        -------
        Tensor
            ``(B, classes, H, W)``, logits.
        """
        filled = fill_up(images)
        old = None if mode == "new" else filled[:, : self.base.in_channels]
        new = None if mode == "old" else filled[:, -1:]
        tokens, skip = self._tokens(old, new), self._skip(old, new)
        logits = self.base.decode(tokens, self._blocks(mode), skip)
        return logits[..., : images.shape[-2], : images.shape[-1]]

    def _blocks(self, mode: Mode) -> nn.ModuleList:
        """Return the transformer with the changes for these channels."""
        return cast("nn.ModuleList", self.blocks[mode])

    def _tokens(self, old: Tensor | None, new: Tensor | None) -> Tensor:
        """Embed the patches of the channels that there are, ``(B, hidden, h, w)``."""
        if new is None:
            first: Tensor = self.base.embedding(old)
            return first
        other: Tensor = self.embedding(new)
        if old is None:
            return other + _each(self.alone, other)
        first = self.base.embedding(old)
        return first + _each(self.fusion, torch.cat([first, other], dim=1))

    def _skip(self, old: Tensor | None, new: Tensor | None) -> Tensor:
        """Return the pixels of the channels that there are, ``(B, FINE, H, W)``."""
        parts: list[Tensor] = []
        if old is not None:
            parts.append(self.base.body.encoder1(old))
        if new is not None:
            parts.append(self.joint(self.path(new)))
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]


class Present(nn.Module):
    """A network with an added channel, of which only some channels are there.

    Parameters
    ----------
    network : AddedChannel
        The network.
    mode : {"both", "old", "new"}
        Which are there; given to the network with every window.
    """

    def __init__(self, network: AddedChannel, mode: Mode) -> None:
        super().__init__()
        self.network = network
        self.mode: Mode = mode

    def forward(self, images: Tensor) -> Tensor:
        """Segment windows; see `AddedChannel.forward`."""
        logits: Tensor = self.network(images, self.mode)
        return logits


class WithoutAdapter(nn.Module):
    """The old network, shown images that may have more channels than it knows.

    Parameters
    ----------
    base : Unetr
        The old network.
    """

    def __init__(self, base: Unetr) -> None:
        super().__init__()
        self.base = base

    def forward(self, images: Tensor) -> Tensor:
        """Segment windows by their first channels, as before any was added."""
        logits: Tensor = self.base(images[:, : self.base.in_channels])
        return logits


def _each(layer: nn.Linear, tokens: Tensor) -> Tensor:
    """Apply a layer to the token at each place of ``(B, C, h, w)``."""
    changed: Tensor = layer(tokens.movedim(1, -1))
    return changed.movedim(-1, 1)


def _changed(base: Unetr, config: AdapterConfig) -> nn.ModuleList:
    """Return the transformer with low-rank changes; its weights are the very ones."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MedsegError(
            "Adding a channel needs the package peft: pip install "
            '"napari-medseg[adapters]".'
        ) from error
    shared = {id(item): item for item in base.blocks.parameters()}
    blocks = copy.deepcopy(base.blocks, shared)
    wanted = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.adapter_dropout,
        target_modules=list(TARGETS),
        use_dora=config.adapter == "dora",
    )
    return cast("nn.ModuleList", inject_adapter_in_model(wanted, blocks))


def adapter_state(network: AddedChannel) -> dict[str, Tensor]:
    """Return what was added to the old network, by name; what a file holds.

    Parameters
    ----------
    network : AddedChannel
        In training or not.

    Returns
    -------
    dict of str to Tensor
        None of it belongs to the old network.
    """
    old = {id(item) for item in network.base.parameters()}
    return {
        name: item for name, item in network.named_parameters() if id(item) not in old
    }


def from_model_file(model_file: ModelFile, base: str | None = None) -> AddedChannel:
    """Build a network with an added channel from its file and that of the old one.

    Parameters
    ----------
    model_file : ModelFile
        Card and weights of what was added.
    base : str, optional
        The model file of the old network, where it is not found by itself.

    Returns
    -------
    AddedChannel
        Frozen, in evaluation mode.

    Raises
    ------
    ModelFileError
        The old network is not here, another one was given, or the weights have not
        the names and shapes that the card asks for.
    MedsegError
        peft is not installed.
    """
    card = model_file.card
    network = AddedChannel(base_of(card, base), adapter_config(card.config))
    wanted = adapter_state(network)
    shapes = {name: tuple(item.shape) for name, item in wanted.items()}
    if shapes != {name: item.shape for name, item in model_file.tensors.items()}:
        raise ModelFileError(
            "The model file's weights do not fit its card; the file is damaged or was "
            "made by another program. Ask for it again."
        )
    with torch.no_grad():
        for name, item in wanted.items():
            item.copy_(torch.from_numpy(model_file.tensors[name]))
    return network.eval().requires_grad_(False)


def adapter_config(values: Mapping[str, object]) -> AdapterConfig:
    """Return what a card or a training's settings say of the changes."""
    known = {item.name for item in fields(AdapterConfig)}
    told = {name: value for name, value in values.items() if name in known}
    return from_dict(AdapterConfig, told, "the model's card")


def with_one(
    network: object, alone: str, normalisation: Normalisation
) -> tuple[Present, Normalisation]:
    """Return a network that sees one channel of two, and which that is.

    Parameters
    ----------
    network : object
        Of any model file.
    alone : {"old", "new"}
        The channel.
    normalisation : Normalisation
        That of both channels.

    Returns
    -------
    network : Present
        Takes windows of the old channels alone, or of the new one alone.
    normalisation : Normalisation
        Chooses these.

    Raises
    ------
    InputError
        No channel was added to the network, or ``alone`` is something else.
    """
    if not isinstance(network, AddedChannel):
        raise InputError(
            "Only a model that a channel was added to sees one channel alone "
            "(--alone); leave that out."
        )
    if alone not in ("old", "new"):
        raise InputError(f"alone is {alone!r}; choose old or new.")
    *old, new = normalisation.channels
    channels = tuple(old) if alone == "old" else (new,)
    shown = replace(normalisation, channels=channels)
    return Present(network, cast("Mode", alone)), shown

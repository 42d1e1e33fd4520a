"""What is trained on the images of a study, and how it sees them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import torch

from napari_medseg.io.normalise import Normalisation
from napari_medseg.models.framing import Framing
from napari_medseg.models.networks import network_class
from napari_medseg.models.prompts import PromptedDecoder, PromptedSam
from napari_medseg.models.sam import stride_of
from napari_medseg.training.coarseness import fitting_reduction
from napari_medseg.training.pretrained import read_pretrained, read_published

if TYPE_CHECKING:
    from collections.abc import Iterable

    from segment_anything.modeling import Sam
    from torch import Tensor, nn

    from napari_medseg.io.pairs import Pairs
    from napari_medseg.models.backbone import Backbone
    from napari_medseg.models.networks import Network
    from napari_medseg.training.network_training import NetworkTraining
    from napari_medseg.training.pretrained import Pretrained, Published

VIEWS = {"nano": 3}
"""Changed views an image, by kind of SAM; larger ones take seconds to embed one."""


STRIDE = 32
"""Sides of windows are multiples of this, which every network can halve."""

SMALLEST_WINDOW = 64
"""The smallest side of a window."""


class Learner(Protocol):
    """What is trained: a SAM with an adaptation, or a network from scratch."""

    @property
    def identity(self) -> str:
        """What tells it from others, beyond the settings of a study."""
        ...

    @property
    def shrink(self) -> int:
        """Pixels of the input per pixel of the output."""
        ...

    @property
    def keeps_inputs(self) -> bool:
        """Whether views are made, and prepared, once for the whole training."""
        ...

    def kept_views(self, most: int) -> int:
        """Return how many changed views of an image are kept, where any are.

        Parameters
        ----------
        most : int
            As many as a training looks at. More are kept where they were asked for.
        """
        ...

    @property
    def augmentation(self) -> str:
        """How windows are changed; see `napari_medseg.training.views.ViewConfig`."""
        ...

    @property
    def begun_as(self) -> str:
        """What `untuned` gives, in words; empty where that is nothing."""
        ...

    def normalisation(self, pairs: Pairs) -> Normalisation:
        """Return which channels it sees, and how they are scaled."""
        ...

    def framing(self, pairs: Pairs) -> Framing:
        """Return the windows for images such as these."""
        ...

    def prepare(self, inputs: Tensor, device: torch.device) -> Tensor:
        """Return what is kept of a window ``(C, S, S)``; asked only if that is so."""
        ...

    def build(
        self, channels: int, classes: int, generator: torch.Generator
    ) -> nn.Module:
        """Return the module to train; what is not to be trained is frozen.

        Parameters
        ----------
        channels : int
            Of a window.
        classes : int
            Outputs, background included.
        generator : torch.Generator
            Source of first values.
        """
        ...

    def begin(self, model: nn.Module, windows: Iterable[Tensor]) -> None:
        """Let a module from `build` see what it will be trained on, before it is.

        Parameters
        ----------
        model : Module
            Changed, where that is of use to it.
        windows : iterable of Tensor
            Windows ``(C, S, S)`` of training images, or what is kept of them; made
            as they are asked for.
        """
        ...

    def untuned(self, classes: int) -> nn.Module | None:
        """Return what it is without any training; None for a network from scratch.

        Parameters
        ----------
        classes : int
            Classes of the annotation, background included.
        """
        ...


class Adaptation(Protocol):
    """What of a SAM is trained."""

    @property
    def keeps_embeddings(self) -> bool:
        """Whether the image encoder is left as it is, so that embeddings are kept."""
        ...

    @property
    def fineness(self) -> int:
        """Looks at an image along each side that are kept; see `fine_embedding`."""
        ...

    def build(self, sam: Sam, classes: int, generator: torch.Generator) -> nn.Module:
        """Return the module to train.

        Parameters
        ----------
        sam : Sam
            Must be left with the weights it has; what is to change is copied.
        classes : int
            Outputs of the module, background included.
        generator : torch.Generator
            Source of first values.

        Returns
        -------
        Module
            Maps embeddings ``(B, fineness² * 256, h, w)``, or images
            ``(B, 3, S, S)`` where embeddings are not kept, to class logits; what is
            not trained is frozen.
        """
        ...

    def begin(self, model: nn.Module, windows: Iterable[Tensor]) -> None:
        """Let a module from `build` see embeddings, or windows; see `Learner.begin`."""
        ...


@dataclass(frozen=True)
class AdaptedSam:
    """A SAM of which an adaptation says what is trained.

    Attributes
    ----------
    backbone : Backbone
        The SAM.
    adaptation : Adaptation
        What of it is trained.
    working_size : int, optional
        Pixels a side that it looks at; by default what it was made for.
    views : int, optional
        Changed views an image; more for small SAMs by default.
    """

    backbone: Backbone
    adaptation: Adaptation
    working_size: int | None = None
    views: int | None = None
    augmentation: ClassVar[str] = "all"
    begun_as: ClassVar[str] = "SAM untuned"

    @property
    def identity(self) -> str:
        """Adaptation and SAM."""
        return f"{self.adaptation!r} of {self.backbone.digest}"

    @property
    def shrink(self) -> int:
        """Pixels of the input per pixel of SAM's masks."""
        return stride_of(self.backbone.sam) // 4

    @property
    def keeps_inputs(self) -> bool:
        """Whether embeddings are kept."""
        return self.adaptation.keeps_embeddings

    def kept_views(self, most: int) -> int:
        """Return how many changed views of an image are kept."""
        usual = min(max(0, most), VIEWS.get(self.backbone.kind, 1))
        return usual if self.views is None else self.views

    def normalisation(self, pairs: Pairs) -> Normalisation:
        """Return the three channels that SAM sees."""
        return pairs.normalisation()

    def framing(self, pairs: Pairs) -> Framing:
        """Return windows that show whole images, where that is not too coarse."""
        size = self.working_size or self.backbone.working_size
        return Framing.for_images([pair.annotation.shape for pair in pairs], size)

    def prepare(self, inputs: Tensor, device: torch.device) -> Tensor:
        """Embed a window, as finely as the adaptation wants it looked at."""
        return self.backbone.embed(inputs, device, self.adaptation.fineness)

    def build(
        self, channels: int, classes: int, generator: torch.Generator
    ) -> nn.Module:
        """Return what the adaptation makes of SAM; see `Learner.build`."""
        return self.adaptation.build(self.backbone.sam, classes, generator)

    def begin(self, model: nn.Module, windows: Iterable[Tensor]) -> None:
        """Let the adaptation look; see `Learner.begin`."""
        self.adaptation.begin(model, windows)

    def untuned(self, classes: int) -> nn.Module | None:
        """Return SAM without prompts: background and object."""
        bare = PromptedDecoder(self.backbone.sam, classes - 1, count=0)
        if self.keeps_inputs:
            return bare
        return PromptedSam(self.backbone.sam.image_encoder, bare)


@dataclass(frozen=True)
class WholeNetwork:
    """A network of which all is trained, from scratch or from a pretrained encoder.

    Attributes
    ----------
    network : type
        Its class.
    config : NetworkTraining
        Windows, changes, and what shapes the network.
    pretrained : Pretrained or Published, optional
        An encoder to begin with.
    """

    network: type[Network]
    config: NetworkTraining
    pretrained: Pretrained | Published | None = None
    keeps_inputs: ClassVar[bool] = False
    begun_as: ClassVar[str] = ""

    @classmethod
    def of(cls, config: NetworkTraining) -> WholeNetwork:
        """Return the network that a config is for."""
        network = network_class(config.network)
        if not config.pretrained:
            return cls(network, config, read_published(config))
        return cls(network, config, read_pretrained(config.pretrained, config.network))

    @property
    def identity(self) -> str:
        """The class and what it begins with; the settings are those of the study."""
        begun = f" from {self.pretrained.digest}" if self.pretrained else ""
        return f"{self.network.__qualname__}{begun}"

    @property
    def shrink(self) -> int:
        """Pixels of the input per pixel of the output."""
        return self.network.shrink

    @property
    def augmentation(self) -> str:
        """How windows are changed."""
        return self.config.augmentation

    def normalisation(self, pairs: Pairs) -> Normalisation:
        """Return all channels of the images."""
        return Normalisation.of_all_channels(pairs.channels, pairs.rgb)

    def framing(self, pairs: Pairs) -> Framing:
        """Return windows as coarse as the objects allow, or as was asked for."""
        # what was pretrained goes on with what it knows
        begun = self.pretrained.reduction if self.pretrained else None
        reduction = self.config.reduction or begun or fitting_reduction(pairs)
        longest = max(max(pair.annotation.shape) for pair in pairs)
        # a window that is larger than an image would be mostly margin
        side = min(self.config.window, _rounded_up(longest / reduction))
        return Framing(tile=side * reduction, size=side)

    def kept_views(self, most: int) -> int:
        """Return 0: views are made for their step."""
        return 0

    def prepare(self, inputs: Tensor, device: torch.device) -> Tensor:
        """Return the window as it is."""
        return inputs

    def build(
        self, channels: int, classes: int, generator: torch.Generator
    ) -> nn.Module:
        """Return the network with fresh weights; see `Learner.build`."""
        shape = {name: getattr(self.config, name) for name in self.network.settings}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator.initial_seed())
            network = self.network.build(channels, classes, **shape)
        if self.pretrained is not None:
            self.pretrained.fill(network, channels)
        return network

    def begin(self, model: nn.Module, windows: Iterable[Tensor]) -> None:
        """Do nothing: all of it is trained."""

    def untuned(self, classes: int) -> nn.Module | None:
        """Return None: before training it knows nothing."""
        return None


def _rounded_up(pixels: float) -> int:
    """Return the side of a window for so many pixels, as every network takes it."""
    return max(SMALLEST_WINDOW, math.ceil(pixels / STRIDE) * STRIDE)

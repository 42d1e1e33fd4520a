"""The settings of networks that are trained whole; importing them loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from napari_medseg._config import setting
from napari_medseg._types import InputError
from napari_medseg.training.settings import TrainingSettings

if TYPE_CHECKING:
    from typing import Self

BACKBONES = tuple(f"efficientnet-b{size}" for size in range(6))
"""The encoders that a DeepLabv3+ can have."""


@dataclass(frozen=True)
class NetworkTraining(TrainingSettings):
    """A network trained from scratch, on windows of the images.

    Attributes
    ----------
    network : str
        Name of the network in `NETWORKS`; the method's own.
    """

    network: ClassVar[str] = ""
    weight_decay: ClassVar[float] = 1e-4

    steps: int = setting(300, "Optimisation steps.", ge=1)
    batch: int = setting(4, "Windows a step.", ge=1)
    learning_rate: float | None = setting(
        None, "Peak learning rate; by default 0.002.", ge=0.0
    )
    window: int = setting(
        256,
        "Side of a window, in pixels of the network's input; less for small images.",
        ge=64,
        le=2048,
    )
    reduction: int | None = setting(
        None,
        "Pixels of the image per pixel of the input: 2 sees twice as far. By default "
        "as many as the thickness of the annotated objects allows.",
        ge=1,
    )
    augmentation: str = setting(
        "all",
        "Changes of a window: turns, magnification and brightness, turns alone, none.",
        choices=("all", "turns", "none"),
    )
    pretrained: str = setting(
        "",
        "A file of weights to begin with, from images without labels; the command "
        "pretrain writes it.",
    )

    @property
    def usual_rate(self) -> float:
        """The learning rate where none is given."""
        return 0.002

    @property
    def lasting(self) -> Self:
        """As of any method; pretrained weights are told by their digest."""
        return replace(super().lasting, pretrained="")


@dataclass(frozen=True)
class GentleTraining(NetworkTraining):
    """A network that wants smaller steps than a plain convolutional one."""

    learning_rate: float | None = setting(
        None, "Peak learning rate; by default 0.001.", ge=0.0
    )

    @property
    def usual_rate(self) -> float:
        """The learning rate where none is given."""
        return 0.001


@dataclass(frozen=True)
class Med2dTraining(NetworkTraining):
    """Med-2D SegNet, two million parameters, trained from scratch."""

    network: ClassVar[str] = "med2d"


@dataclass(frozen=True)
class MambaTraining(GentleTraining):
    """VM-UNet with the style augmentation of Mamba-Sea, trained from scratch."""

    network: ClassVar[str] = "mamba"
    weight_decay: ClassVar[float] = 1e-2

    window: int = setting(
        128, "Side of a window, in pixels of the network's input.", ge=64, le=2048
    )
    width: int = setting(
        24,
        "Channels of the first stage; 96 in the paper, with 27 million numbers.",
        ge=8,
        le=192,
    )
    style: float = setting(
        0.75,
        "Share of each scan that gets another style in training; 0 for none.",
        ge=0.0,
        le=1.0,
    )


@dataclass(frozen=True)
class Med2dObjects(Med2dTraining):
    """Med-2D SegNet that learns interior and border, so that cells separate."""

    border: float = setting(
        2.0, "Width of an object's border, in pixels of the input.", ge=0.5, le=20.0
    )


@dataclass(frozen=True)
class XnetTraining(NetworkTraining):
    """XNet-Plus: U-Nets for an image, its coarse and its fine part, from scratch."""

    network: ClassVar[str] = "xnet"

    width: int = setting(
        16, "Channels of the first level of each U-Net (64 in the paper).", ge=8, le=64
    )
    bands: str = setting(
        "wavelets",
        "What two of the U-Nets see: coarse and fine parts, or the image itself.",
        choices=("wavelets", "none"),
    )


@dataclass(frozen=True)
class UnetrTraining(GentleTraining):
    """UNETR, a transformer with a U-Net's decoder, trained from scratch."""

    network: ClassVar[str] = "unetr"
    weight_decay: ClassVar[float] = 1e-5

    hidden: int = setting(
        192, "Numbers of a token of the transformer (768 in the paper).", ge=32, le=768
    )
    depth: int = setting(12, "Blocks of the transformer.", ge=4, le=12)
    heads: int = setting(6, "Heads of each block, which divide hidden.", ge=1, le=16)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden % self.heads:
            raise InputError(
                f"hidden is {self.hidden}, which {self.heads} heads do not divide; "
                f"choose {self.hidden // self.heads * self.heads}, say."
            )


@dataclass(frozen=True)
class DeeplabTraining(GentleTraining):
    """DeepLabv3+ on an EfficientNet, from ImageNet's weights or from scratch."""

    network: ClassVar[str] = "deeplab"
    weight_decay: ClassVar[float] = 1e-2

    backbone: str = setting(
        "efficientnet-b0",
        "The EfficientNet underneath, from the smallest to larger ones.",
        choices=BACKBONES,
    )
    encoder_weights: str = setting(
        "imagenet",
        "What its encoder begins with: weights from ImageNet, downloaded the first "
        "time (20 MB and more), or nothing. Without a network it is nothing.",
        choices=("imagenet", "none"),
    )

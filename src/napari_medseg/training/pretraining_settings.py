"""The settings of pretraining without labels; importing them loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_medseg._config import check, setting

if TYPE_CHECKING:
    from typing import Self


@dataclass(frozen=True)
class Pretraining:
    """SuperCL: an encoder learns from images that nobody annotated."""

    steps: int = setting(500, "Optimisation steps.", ge=1)
    learning_rate: float | None = setting(
        None, "Peak learning rate; by default 0.001, for nano 0.0001.", ge=0.0
    )
    batch: int = setting(
        16, "Windows a step, each seen four times; 16 or more are best.", ge=2, le=512
    )
    window: int = setting(
        128, "Side of a window, in pixels of the network's input.", ge=32, le=1024
    )
    reduction: int = setting(
        1, "Pixels of the image per pixel of the input: 2 sees twice as far.", ge=1
    )
    superpixel: int = setting(
        16,
        "Side of a superpixel, in pixels of the input: about that of an object, or "
        "less, so that one is rarely two.",
        ge=4,
        le=512,
    )
    compactness: float = setting(
        10.0, "How square superpixels are, against how even in brightness.", ge=0.01
    )
    stride: int | None = setting(
        None,
        "Pixels of the input per feature that is compared within images; by default "
        "what fits the superpixels.",
        ge=1,
    )
    points: int = setting(
        256, "Features of an image that are compared within it.", ge=4, le=4096
    )
    instance: float = setting(1.0, "Weight of telling images apart.", ge=0.0)
    intra: float = setting(1.0, "Weight of telling superpixels apart.", ge=0.0)
    inter: float = setting(0.5, "Weight of bringing like images together.", ge=0.0)
    temperature: float = setting(
        0.1, "How much the most similar others count.", ge=0.01, le=10.0
    )
    slices: float = setting(
        0.0,
        "Slices of stacks at the same height, up to this share of it, count as alike: "
        "0.1 for scans of the same organ, 0 for none.",
        ge=0.0,
        le=1.0,
    )
    keep: float = setting(
        1.0,
        "Weight of staying near what nano said before, which its mask decoder reads.",
        ge=0.0,
    )
    workers: int | None = setting(
        None, "Processes that find superpixels; by default by the cores.", ge=1, le=64
    )
    minutes: float | None = setting(None, "Stop after so long.", ge=0.0)
    stop_at: int | None = setting(
        None, "Steps of a run that was ended early; set by run files.", ge=0
    )
    seed: int = setting(0, "Seed of everything random.", ge=0, le=2**31 - 1)
    device: str = setting(
        "auto", "Where to compute.", choices=("auto", "cpu", "cuda", "mps")
    )

    def __post_init__(self) -> None:
        check(self)

    @property
    def lasting(self) -> Self:
        """What a run must share with a checkpoint to go on from it."""
        return replace(self, minutes=None, stop_at=None, device="auto", workers=None)

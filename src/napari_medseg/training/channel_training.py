"""The settings of adding a channel; importing them loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from napari_medseg._config import setting
from napari_medseg._types import InputError
from napari_medseg.models.adapter_settings import AdapterConfig
from napari_medseg.training.settings import TrainingSettings

if TYPE_CHECKING:
    from typing import Self


@dataclass(frozen=True)
class ChannelTraining(AdapterConfig, TrainingSettings):
    """A channel added to a UNETR, of which nothing is changed."""

    weight_decay: ClassVar[float] = 1e-5

    start_from: str = setting(
        "", "The UNETR that gets another channel: the .medseg file it was saved in."
    )
    add_channel: int | None = setting(
        None,
        "Which channel of the images is the new one, from 0; by default the one that "
        "the model does not know.",
        ge=0,
    )
    both: float = setting(
        0.6, "Share of the steps that see both channels.", ge=0.0, le=1.0
    )
    old_alone: float = setting(
        0.2, "Share of the steps that see the old channel alone.", ge=0.0, le=1.0
    )
    steps: int = setting(300, "Optimisation steps.", ge=1)
    batch: int = setting(4, "Windows a step.", ge=1)
    learning_rate: float | None = setting(
        None, "Peak learning rate; by default 0.002.", ge=0.0
    )
    augmentation: str = setting(
        "all",
        "Changes of a window: turns, magnification and brightness, turns alone, none.",
        choices=("all", "turns", "none"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.both + self.old_alone > 1.0:
            raise InputError(
                f"Steps with both channels ({self.both}) and with the old one alone "
                f"({self.old_alone}) are more than all; the rest sees the new one."
            )
        # each of them changes what a step is, as this method does
        for name, chosen in (
            ("label_noise", self.label_noise != "none"),
            ("domains", self.domains != "none"),
            ("unlabelled", bool(self.unlabelled)),
        ):
            if chosen:
                raise InputError(
                    f"{name} cannot be used where a channel is added; leave it out."
                )

    @property
    def usual_rate(self) -> float:
        """The learning rate where none is given."""
        return 0.002

    @property
    def lasting(self) -> Self:
        """As of any method; the model to go on from is told by its digest."""
        return replace(super().lasting, start_from="")

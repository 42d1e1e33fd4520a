"""The settings of PTSAM, apart from its code: forms and ``--help`` need no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_medseg._config import setting
from napari_medseg.training.settings import TrainingSettings

if TYPE_CHECKING:
    from typing import Self


@dataclass(frozen=True)
class PromptTuning(TrainingSettings):
    """PTSAM: tune SAM by prompts alone (Piater et al. 2025)."""

    sam: str = setting("nano", "The SAM to tune: a name, or a checkpoint file.")
    prompts: int = setting(8, "Prompts a class, of 256 numbers each.", ge=1, le=64)
    encoder_prompts: int = setting(
        0, "Prompts in each block of the image encoder (8 in the paper).", ge=0, le=64
    )
    initial: str = setting(
        "noise",
        "Prompts begin as noise, or as SAM's embedding of a click with a little noise.",
        choices=("noise", "click"),
    )
    comparison: str = setting(
        "auto",
        "Each prompt is also a prototype, compared with SAM's embedding of each pixel: "
        "with one of four times as many pixels (fine; by default for thin objects and "
        "small SAMs), or with the embedding itself; with none, prompts act through "
        "SAM's decoder alone, as in the paper.",
        choices=("auto", "fine", "embedding", "none"),
    )
    start_from: str = setting(
        "", "A tuned model to go on from: a .medseg file, or a name of the shelf."
    )
    output: int = setting(
        0, "Which of SAM's masks is read: 0 is its single answer.", ge=0, le=3
    )
    learning_rate: float | None = setting(
        None,
        "Peak learning rate; by default 0.2, with encoder prompts 0.02; a quarter of "
        "it where a tuned model is gone on from.",
        ge=0.0,
    )
    views: int | None = setting(
        None, "Changed views an image; more for small SAMs by default.", ge=0
    )
    working_size: int | None = setting(
        None, "Pixels a side that SAM looks at; by default what it was made for.", ge=64
    )

    snapshots: int = setting(
        0,
        "Earlier states kept in the model file, to predict quality by (4 kB each).",
        ge=0,
        le=32,
    )

    @property
    def usual_rate(self) -> float:
        """What the search for a recipe found best."""
        usual = 0.02 if self.encoder_prompts else 0.2
        # prompts that are good already shall not be thrown far from where they are
        return usual / 4 if self.start_from else usual

    @property
    def lasting(self) -> Self:
        """As of any method; the SAM is told by its digest."""
        return replace(super().lasting, sam="")


@dataclass(frozen=True)
class ObjectTuning(PromptTuning):
    """PTSAM with a prompt set each for interior and border, so that cells separate."""

    border: float = setting(
        2.0, "Width of an object's border, in pixels of SAM's masks.", ge=0.5, le=20.0
    )

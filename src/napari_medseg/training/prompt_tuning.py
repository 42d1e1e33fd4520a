"""The settings of PTSAM, apart from its code: forms and ``--help`` need no torch."""

from __future__ import annotations

from dataclasses import dataclass

from napari_medseg._config import check, setting


@dataclass(frozen=True)
class PromptTuning:
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
    start_from: str = setting(
        "", "A tuned model to go on from: a .medseg file, or a name of the shelf."
    )
    output: int = setting(
        0, "Which of SAM's masks is read: 0 is its single answer.", ge=0, le=3
    )
    dice: float = setting(1.0, "Weight of the Dice loss.", ge=0.0)
    cross_entropy: float = setting(1.0, "Weight of the cross-entropy.", ge=0.0)
    steps: int = setting(200, "Optimisation steps.", ge=1)
    learning_rate: float | None = setting(
        None,
        "Peak learning rate; by default 0.2, with encoder prompts 0.02; a quarter of "
        "it where a tuned model is gone on from.",
        ge=0.0,
    )
    batch: int = setting(3, "Views a step.", ge=1)
    views: int | None = setting(
        None, "Changed views an image; more for small SAMs by default.", ge=0
    )
    working_size: int | None = setting(
        None, "Pixels a side that SAM looks at; by default what it was made for.", ge=64
    )
    validate: int | None = setting(
        None, "Images held out to measure on; by default a quarter, or folds.", ge=0
    )
    minutes: float | None = setting(None, "Stop training after so long.", ge=0.0)
    stop_at: tuple[int, ...] = setting(
        (), "Steps each part of a run did that was ended early; set by run files."
    )
    seed: int = setting(0, "Seed of everything random.", ge=0, le=2**31 - 1)
    device: str = setting(
        "auto", "Where to compute.", choices=("auto", "cpu", "cuda", "mps")
    )

    def __post_init__(self) -> None:
        check(self)

    @property
    def peak_rate(self) -> float:
        """The learning rate: as given, or what the search for a recipe found best."""
        if self.learning_rate is not None:
            return self.learning_rate
        usual = 0.02 if self.encoder_prompts else 0.2
        # prompts that are good already shall not be thrown far from where they are
        return usual / 4 if self.start_from else usual


@dataclass(frozen=True)
class ObjectTuning(PromptTuning):
    """PTSAM with a prompt set each for interior and border, so that cells separate."""

    border: float = setting(
        2.0, "Width of an object's border, in pixels of SAM's masks.", ge=0.5, le=20.0
    )

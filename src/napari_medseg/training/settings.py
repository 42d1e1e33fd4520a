"""The settings that all trainings have: forms and ``--help`` need no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from napari_medseg._config import check, setting

if TYPE_CHECKING:
    from typing import Self


@dataclass(frozen=True)
class TrainingSettings:
    """What the settings of every method have in common.

    Attributes
    ----------
    weight_decay : float
        Decay of the trained numbers; the method's own.
    """

    weight_decay: ClassVar[float] = 0.0

    steps: int = setting(200, "Optimisation steps.", ge=1)
    learning_rate: float | None = setting(
        None, "Peak learning rate; by default what suits the method.", ge=0.0
    )
    batch: int = setting(3, "Views a step.", ge=1)
    dice: float = setting(1.0, "Weight of the Dice loss.", ge=0.0)
    cross_entropy: float = setting(1.0, "Weight of the cross-entropy.", ge=0.0)
    label_noise: str = setting(
        "none",
        "Trust every label, or doubt those in patches that the network contradicts.",
        choices=("none", "spatial"),
    )
    domains: str = setting(
        "none",
        "For images of microscopes not seen: what tells those of the annotated images "
        "apart, their names up to the first _ or their folders.",
        choices=("none", "prefix", "folder"),
    )
    domain_styles: str = setting(
        "curves",
        "With domains, in what other microscopes may differ: in shades, also turned to "
        "their negative (curves); in features and appearance (published); or in all.",
        choices=("curves", "published", "all"),
    )
    unlabelled: str = setting(
        "", "Folder of images without annotation, to learn from as well."
    )
    unlabelled_data: tuple[str, ...] = setting(
        (), "SHA-256 of those images, that a replay has the same; set by run files."
    )
    validate: int | None = setting(
        None,
        "Images held out to measure on; by default a quarter (64 at most), or folds.",
        ge=0,
    )
    folds: int | None = setting(
        None, "Hold out each image once, in so many trainings and a last one.", ge=2
    )
    minutes: float | None = setting(
        None, "Do as many of the steps as fit into so long.", ge=0.0
    )
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
    def usual_rate(self) -> float:
        """The learning rate where none is given."""
        raise NotImplementedError

    @property
    def peak_rate(self) -> float:
        """The learning rate: as given, or the usual one."""
        return self.usual_rate if self.learning_rate is None else self.learning_rate

    @property
    def meets_other_shades(self) -> bool:
        """Whether shades of the images are changed as other microscopes might."""
        return self.domains != "none" and self.domain_styles != "published"

    @property
    def lasting(self) -> Self:
        """What a training must share with a checkpoint to go on from it."""
        return replace(
            self,
            minutes=None,
            stop_at=(),
            device="auto",
            unlabelled="",
            unlabelled_data=(),
        )

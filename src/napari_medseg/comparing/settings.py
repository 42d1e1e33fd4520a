"""The settings of a comparison; importing them loads no torch."""

from __future__ import annotations

from dataclasses import dataclass

from napari_medseg._config import check, setting


@dataclass(frozen=True)
class CompareConfig:
    """How recipes are compared."""

    minutes: float = setting(
        15.0, "About how long it may take; shared by what is trained.", ge=0.1
    )
    folds: int = setting(3, "Trainings a recipe, each image held out once.", ge=2)
    sam: str = setting("nano", "The SAM that is tuned.")
    recipes: tuple[str, ...] = setting((), "Only these; by default all that fit.")
    seed: int = setting(0, "Seed of everything random.", ge=0, le=2**31 - 1)
    device: str = setting(
        "auto", "Where to compute.", choices=("auto", "cpu", "cuda", "mps")
    )

    def __post_init__(self) -> None:
        check(self)

"""How quality is predicted: forms and ``--help`` need no torch for it."""

from __future__ import annotations

from dataclasses import dataclass

from napari_medseg._config import check, setting


@dataclass(frozen=True)
class QualitySettings:
    """How the quality of unlabelled images is predicted."""

    sam: str = setting("nano", "The SAM that describes images.")
    working_size: int | None = setting(
        None, "Pixels a side that SAM looks at; by default what it was made for.", ge=64
    )
    compared: int = setting(
        16, "Annotated images that each result is compared with: the most alike.", ge=1
    )
    quantile: float = setting(
        1.0, "Which of the scores counts: 1 is the best, 0.5 the median.", ge=0, le=1
    )
    confidence: float = setting(
        0.9, "Share of the true values that an interval shall hold.", ge=0.5, le=0.99
    )
    device: str = setting(
        "auto", "Where to compute.", choices=("auto", "cpu", "cuda", "mps")
    )

    def __post_init__(self) -> None:
        check(self)

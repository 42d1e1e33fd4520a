"""The settings of SAM everything, apart from its code: no torch is needed for them."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from napari_medseg._config import check, setting

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class EverythingConfig:
    """How SAM is asked for all objects.

    Thresholds are those of its authors, for their largest SAM; see `usual_settings`.

    Attributes
    ----------
    points_per_side, pred_iou, stability, stability_offset, overlap, min_part
        See the help text of each field.
    max_share, batch
        Likewise.
    """

    points_per_side: int = setting(
        32, "Points along each side; more find smaller objects.", ge=1, le=256
    )
    pred_iou: float = setting(
        0.88, "Masks that SAM itself expects to be worse are left out.", ge=0, le=1
    )
    stability: float = setting(
        0.95, "Masks whose outline is less sure are left out.", ge=0, le=1
    )
    stability_offset: float = setting(
        1.0, "How far the threshold moves to see if an outline is sure.", ge=0, le=20
    )
    overlap: float = setting(
        0.5,
        "Of two masks that share more than this part of one, the better stays.",
        ge=0,
        le=1,
    )
    min_part: int = setting(
        16, "Islands and holes of an object with fewer pixels are removed.", ge=0
    )
    max_share: float = setting(
        0.95, "Masks of a larger share of the image are background.", ge=0.01, le=1
    )
    batch: int | None = setting(
        None, "Points at a time; by default few, and many on a GPU.", ge=1, le=4096
    )

    def __post_init__(self) -> None:
        check(self)


_USUAL: Mapping[str, EverythingConfig] = MappingProxyType(
    # a small SAM expects less of its masks than a large one, good ones included
    {"nano": EverythingConfig(points_per_side=20, pred_iou=0.5, stability=0.8)}
)


def usual_settings(kind: str) -> EverythingConfig:
    """Return the settings that suit a SAM.

    Parameters
    ----------
    kind : str
        ``nano``, ``vit_b``, ``vit_l`` or ``vit_h``.

    Returns
    -------
    EverythingConfig
        For ``nano`` chosen on images that it was not trained on; else those of SAM's
        authors.
    """
    return _USUAL.get(kind, EverythingConfig())

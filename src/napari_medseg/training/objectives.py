"""How labels are learned from, by what the settings of a training say of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_medseg._types import InputError
from napari_medseg.training.domain import other_domains
from napari_medseg.training.noisy import spatial_noise
from napari_medseg.training.semi import mean_teacher
from napari_medseg.training.study import supervised

if TYPE_CHECKING:
    from napari_medseg.training.settings import TrainingSettings
    from napari_medseg.training.study import ObjectiveFactory


def objective_of(config: TrainingSettings) -> ObjectiveFactory:
    """Return how labels are learned from.

    Parameters
    ----------
    config : TrainingSettings
        Settings of any method.

    Returns
    -------
    callable
        As `Study` takes it.

    Raises
    ------
    InputError
        Two were chosen that exclude one another.
    """
    chosen: dict[str, ObjectiveFactory] = {}
    if config.label_noise == "spatial":
        chosen["--label-noise"] = spatial_noise
    if config.domains != "none":
        chosen["--domains"] = other_domains
    if config.unlabelled:
        chosen["--unlabelled"] = mean_teacher
    if len(chosen) > 1:
        raise InputError(
            f"{' and '.join(chosen)} cannot be used together; choose one of them."
        )
    return next(iter(chosen.values()), supervised)

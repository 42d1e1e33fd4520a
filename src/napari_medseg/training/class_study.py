"""A study of one class, with the loss and the windows that a rare one needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_medseg.training.learners import WholeNetwork
from napari_medseg.training.network_training import NetworkTraining
from napari_medseg.training.positives import PositiveViews
from napari_medseg.training.study import Study, supervised
from napari_medseg.training.tversky import FocalTversky

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_medseg.training.conduct import Conduct
    from napari_medseg.training.goals import RankedGoal
    from napari_medseg.training.lesion_training import LesionTraining
    from napari_medseg.training.study import AnyStudy


class ClassStudy(Study[WholeNetwork, NetworkTraining]):
    """A study of one class, which is rare: a share of the windows is centred on it.

    Parameters
    ----------
    goal, config, conduct
        As for `Study`.
    settings : LesionTraining
        Loss and share of windows.
    """

    def __init__(
        self,
        goal: RankedGoal,
        config: NetworkTraining,
        conduct: Conduct,
        settings: LesionTraining,
    ) -> None:
        objective = focal if settings.loss == "focal-tversky" else supervised
        super().__init__(WholeNetwork.of(config), goal, config, conduct, objective)
        self.settings = settings

    def batches(self, training: Sequence[int]) -> PositiveViews:
        """Return the batches of some of the images."""
        examples = [self.examples[index] for index in training]
        config = self.config
        return PositiveViews(
            examples, self.view_config, config.batch, share=self.settings.positive
        )

    def checkpoint(self) -> Path | None:
        """Return the file of the next part, of this loss and sampling alone."""
        path = super().checkpoint()
        if path is None:
            return None
        own = f"{self.settings.loss}-{self.settings.positive}"
        return path.with_name(f"{path.stem}-{own}{path.suffix}")


def focal(study: AnyStudy, training: Sequence[int]) -> FocalTversky:
    """Return the objective of small lesions."""
    return FocalTversky()

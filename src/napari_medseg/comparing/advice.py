"""How recipes did, and which to take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._types import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_medseg.comparing.recipes import Recipe
    from napari_medseg.io.model_file import ModelFile

DOUBT = 2.0
"""So many standard errors apart, and two recipes are told from one another."""


ENOUGH = 0.5
"""With a smaller share of its usual steps, a training says little of its method."""


@dataclass(frozen=True)
class Tried:
    """How one recipe did.

    Attributes
    ----------
    recipe : Recipe
        What was tried.
    dice : tuple of float
        Of each annotated image, by a training that did not see it; empty where it
        could not be tried.
    pq : tuple of float
        Panoptic quality of each, where objects are numbered.
    seconds : float
        How long it took, all trainings together.
    parameters : int
        Numbers trained.
    share : float
        Of the method's usual steps, how many there was time for.
    model : ModelFile or None
        What was trained on all images; None for what needs no training.
    problem : str
        Why it could not be tried, in a sentence.
    """

    recipe: Recipe
    dice: tuple[float, ...] = ()
    pq: tuple[float, ...] = ()
    seconds: float = 0.0
    parameters: int = 0
    share: float = 1.0
    model: ModelFile | None = None
    problem: str = ""

    @property
    def scores(self) -> tuple[float, ...]:
        """What it is ranked by: quality of the objects where they are numbered."""
        return self.pq or self.dice

    @property
    def mean(self) -> float:
        """Mean of the scores; nan where it could not be tried."""
        return float(np.mean(self.scores)) if self.scores else math.nan

    @property
    def figures(self) -> tuple[float | None, float | None]:
        """Mean Dice and mean PQ, each None where there is none."""
        dice, quality = (
            float(np.mean(each)) if each else None for each in (self.dice, self.pq)
        )
        return dice, quality

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it, without the model."""
        dice, quality = self.figures
        return {
            "name": self.recipe.name,
            "title": self.recipe.title,
            "dice": dice and round(dice, 4),
            "dice_sd": round(_spread(self.dice), 4) if self.dice else None,
            "pq": quality and round(quality, 4),
            "seconds": round(self.seconds, 1),
            "parameters": self.parameters,
            "share": round(self.share, 3),
            "trained": self.model is not None,
            "problem": self.problem,
        }


@dataclass(frozen=True)
class Comparison:
    """How all recipes did, best first.

    Attributes
    ----------
    tried : tuple of Tried
        Those that could not be tried come last.
    advice : str
        Which to take, in a sentence or two.
    """

    tried: tuple[Tried, ...]
    advice: str

    @property
    def chosen(self) -> Tried:
        """The recipe that the advice names."""
        return chosen(self.tried)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {
            "advice": self.advice,
            "chosen": self.chosen.recipe.name,
            "tried": [item.to_dict() for item in self.tried],
        }


def rank(tried: Tried) -> tuple[bool, float]:
    """Sort the best first, and what could not be tried last."""
    return not tried.scores, -tried.mean if tried.scores else 0.0


def chosen(tried: Sequence[Tried]) -> Tried:
    """Return the recipe to take: the simplest of those that may be the best.

    Parameters
    ----------
    tried : sequence of Tried
        All recipes, best first.

    Returns
    -------
    Tried
        The best one, or a simpler one that these images cannot tell from it.

    Raises
    ------
    InputError
        Nothing could be tried.
    """
    known = [each for each in tried if each.scores]
    if not known:
        problems = "; ".join(f"{each.recipe.title}: {each.problem}" for each in tried)
        raise InputError(f"Nothing could be compared. {problems}")
    best = known[0]
    return min((each for each in known if not _is_worse(each, best)), key=_cost)


def advice(tried: Sequence[Tried]) -> str:
    """Say which recipe to take, and why.

    Parameters
    ----------
    tried : sequence of Tried
        All recipes, best first.

    Returns
    -------
    str
        A sentence or two.
    """
    known = [each for each in tried if each.scores]
    taken, best = chosen(tried), known[0]
    what = "PQ" if best.pq else "Dice"
    count = len(best.scores)
    words = (
        f"Take {taken.recipe.title}: {what} {taken.mean:.2f} on your {count} images, "
        "none of which it was trained on."
    )
    if taken is not best:
        words += (
            f" {best.recipe.title} has {best.mean:.2f}, but {count} images cannot "
            "tell the two apart, and this one is simpler."
        )
    elif len(known) > 1:
        words += f" Next comes {known[1].recipe.title} with {known[1].mean:.2f}."
    hurried = [each.recipe.title for each in known if each.share < ENOUGH]
    if hurried:
        words += f" Too little time for {', '.join(hurried)}: give more minutes."
    if count < 8:
        words += " With fewer than 8 images this says little."
    return words


def _is_worse(one: Tried, best: Tried) -> bool:
    """Tell whether a recipe is worse, image by image, by more than chance may do."""
    apart = np.subtract(best.scores, one.scores)
    error = _spread(apart.tolist()) / math.sqrt(len(apart))
    return float(apart.mean()) > DOUBT * error


def _cost(tried: Tried) -> tuple[int, float]:
    """Sort the simplest first: nothing to train, then few numbers."""
    return tried.parameters, tried.seconds


def _spread(scores: Sequence[float]) -> float:
    """Return the standard deviation over the images; 0 for a single one."""
    return float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0

"""What can be tried on annotated images: models as they are, and what is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_medseg.models.methods import METHODS
from napari_medseg.models.naming import unknown
from napari_medseg.models.registry import CLASSICAL, SAMS, SPECIALISTS

if TYPE_CHECKING:
    from napari_medseg.comparing.settings import CompareConfig
    from napari_medseg.io.pairs import Pairs

WHERE_NAMED = ("mamba", "unetr", "xnet", "deeplab")
"""Methods that are tried only where they are asked for: they need so long that the
others would have no time left."""


@dataclass(frozen=True)
class Recipe:
    """A way to segment that can be tried.

    Attributes
    ----------
    name : str
        Its name, such as ``ptsam-encoder``.
    title : str
        What the user is told.
    method : str
        Training method; empty for what needs no training, whose name is that of a
        segmenter.
    settings : tuple of pairs
        Names and values of the settings that are not the method's defaults.
    """

    name: str
    title: str
    method: str = ""
    settings: tuple[tuple[str, Any], ...] = ()


def recipes_for(pairs: Pairs, config: CompareConfig) -> tuple[Recipe, ...]:
    """Return the recipes that fit annotated images, the simplest first.

    Parameters
    ----------
    pairs : Pairs
        Annotated images.
    config : CompareConfig
        Which are wanted, and the SAM.

    Returns
    -------
    tuple of Recipe
        Thresholds, models of the shelf and SAM untuned only where there is one class
        of objects; those that tell touching objects apart where objects are numbered.

    Raises
    ------
    InputError
        A name is unknown, or none that was asked for fits.
    """
    ready: list[Recipe] = []
    if pairs.classes == 2:
        ready += [Recipe(entry.name, entry.title) for entry in CLASSICAL.values()]
        ready += [Recipe(entry.name, entry.title) for entry in SPECIALISTS.values()]
        if config.sam in SAMS:
            ready.append(Recipe(config.sam, f"{SAMS[config.sam].title}, untuned"))
    trained = [
        Recipe(name, METHODS[name].title, name)
        for name, method in METHODS.items()
        if not method.parts or pairs.annotation_kind == "instances"
        if not method.begins_with_a_model and not method.overlapping
    ]
    more = Recipe(
        "ptsam-encoder",
        "Prompt tuning, encoder too",
        "ptsam",
        (("encoder_prompts", 8),),
    )
    fitting = {recipe.name: recipe for recipe in (*ready, *trained, more)}
    for name in config.recipes:
        if name not in fitting:
            raise unknown("recipe that fits these annotations", name, fitting)
    usual = tuple(name for name in fitting if name not in WHERE_NAMED)
    wanted = config.recipes or usual
    return tuple(recipe for recipe in fitting.values() if recipe.name in wanted)

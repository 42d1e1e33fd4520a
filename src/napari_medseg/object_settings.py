"""How objects and classes are found in probabilities: settings, apart from the code.

Forms show them; what finds objects takes long to import.
"""

from __future__ import annotations

from dataclasses import dataclass

from napari_medseg._config import check, setting


@dataclass(frozen=True)
class ObjectConfig:
    """How objects are found in a foreground probability.

    Attributes
    ----------
    threshold, min_size, split, smoothing, seed_distance, neck, fill_holes
        See the help text of each field.
    """

    threshold: float = setting(
        0.5, "Probability above which a pixel is foreground", ge=0, le=1
    )
    min_size: int = setting(16, "Objects with fewer pixels than this are removed", ge=0)
    split: str = setting(
        "watershed",
        "Touching objects: keep them as one (components) or cut them at their necks "
        "(watershed)",
        choices=("components", "watershed"),
    )
    smoothing: float = setting(
        1.5,
        "Blur, in pixels, of what the cut follows; more gives fewer cuts",
        ge=0,
        le=50,
    )
    seed_distance: float = setting(
        5.0,
        "Centres nearer to each other than this, in pixels, are one object",
        ge=0,
        le=1000,
    )
    neck: float = setting(
        0.75,
        "Cut where the neck is narrower than this share of the smaller part",
        ge=0.05,
        le=0.99,
    )
    fill_holes: bool = setting(True, "Fill the holes that one object encloses")

    def __post_init__(self) -> None:
        check(self)


OF_FOUND_OBJECTS = ("min_size", "fill_holes")
"""Settings of objects that matter where the segmenter finds them itself."""


@dataclass(frozen=True)
class ClassConfig:
    """How classes are found in their probabilities; by default the likeliest wins.

    Attributes
    ----------
    threshold, min_size, smoothing
        See the help text of each field.
    """

    threshold: float = setting(
        0.5,
        "Share of probability, against background alone, above which a pixel is of "
        "its likeliest class",
        ge=0,
        le=1,
    )
    min_size: int = setting(
        0, "Islands with fewer pixels than this become what surrounds them", ge=0
    )
    smoothing: float = setting(
        0.0,
        "Blur of the probabilities, in pixels; more gives smoother borders",
        ge=0,
        le=50,
    )

    def __post_init__(self) -> None:
        check(self)

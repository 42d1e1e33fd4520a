"""Ways of imaging: what a microscope does to the things under it, in ranges."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_medseg.samples._canvas import PROFILES, Look

if TYPE_CHECKING:
    import numpy as np

    from napari_medseg.samples._noise import NoiseMaker

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Style:
    """Ranges from which the images of one way of imaging are drawn.

    Attributes
    ----------
    dark : float
        Probability that a kind is darker than the background.
    contrast : tuple of float
        Brightness of a kind over the background's.
    ground : tuple of float
        Strength of the texture of the background.
    grain : tuple of float
        Strength of the texture of a kind.
    blur : tuple of float
        Standard deviation in pixels.
    photons : tuple of float
        Decimal logarithm of the photons at full brightness.
    light : tuple of float
        Strength of the uneven light.
    halo : float
        Probability of bright seams, as of phase contrast.
    emboss : float
        Probability of shading from one side, as of interference contrast.
    additive : float
        Probability that a kind adds to what lies below.
    colour : tuple of float
        Probabilities of grey, tint, stains on bright and lights on dark.
    invert : float
        Probability of inversion.
    """

    dark: float
    contrast: Range
    ground: Range
    grain: Range
    blur: Range
    photons: Range
    light: Range
    halo: float
    emboss: float
    additive: float
    colour: tuple[float, float, float, float]
    invert: float


FLUORESCENCE = Style(
    dark=0.05,
    contrast=(0.3, 1.2),
    ground=(0.0, 0.12),
    grain=(0.0, 0.3),
    blur=(0.5, 2.2),
    photons=(1.0, 3.5),
    light=(0.0, 0.4),
    halo=0.05,
    emboss=0.0,
    additive=0.5,
    colour=(0.82, 0.03, 0.0, 0.15),
    invert=0.12,
)
PHASE = Style(
    dark=0.6,
    contrast=(0.08, 0.7),
    ground=(0.02, 0.15),
    grain=(0.0, 0.3),
    blur=(0.4, 1.6),
    photons=(2.0, 4.0),
    light=(0.1, 0.7),
    halo=0.75,
    emboss=0.15,
    additive=0.2,
    colour=(0.9, 0.1, 0.0, 0.0),
    invert=0.1,
)
BRIGHT_FIELD = Style(
    dark=0.8,
    contrast=(0.1, 0.8),
    ground=(0.02, 0.2),
    grain=(0.0, 0.3),
    blur=(0.4, 2.2),
    photons=(2.0, 4.0),
    light=(0.1, 0.7),
    halo=0.3,
    emboss=0.25,
    additive=0.3,
    colour=(0.65, 0.35, 0.0, 0.0),
    invert=0.1,
)
ELECTRON = Style(
    dark=0.75,
    contrast=(0.2, 0.9),
    ground=(0.05, 0.3),
    grain=(0.05, 0.4),
    blur=(0.4, 1.3),
    photons=(1.3, 3.0),
    light=(0.0, 0.25),
    halo=0.05,
    emboss=0.03,
    additive=0.2,
    colour=(1.0, 0.0, 0.0, 0.0),
    invert=0.15,
)
HISTOLOGY = Style(
    dark=0.0,
    contrast=(0.3, 1.1),
    ground=(0.05, 0.25),
    grain=(0.02, 0.3),
    blur=(0.4, 1.6),
    photons=(2.3, 4.0),
    light=(0.0, 0.25),
    halo=0.0,
    emboss=0.0,
    additive=0.4,
    colour=(0.1, 0.0, 0.9, 0.0),
    invert=0.0,
)
ANY = Style(
    dark=0.5,
    contrast=(0.0, 1.0),
    ground=(0.0, 0.3),
    grain=(0.0, 0.5),
    blur=(0.0, 2.5),
    photons=(1.0, 4.0),
    light=(0.0, 0.7),
    halo=0.2,
    emboss=0.1,
    additive=0.3,
    colour=(0.7, 0.1, 0.1, 0.1),
    invert=0.5,
)

STYLES = (FLUORESCENCE, PHASE, BRIGHT_FIELD, ELECTRON, HISTOLOGY, ANY)
WEIGHTS = (0.24, 0.14, 0.14, 0.15, 0.13, 0.2)


VISIBLE = 1.8
"""Least contrast of a kind, over the strength of the background's texture."""


def draw_style(rng: np.random.Generator) -> Style:
    """Return a way of imaging, with blur, halo and relief decided.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all chance.

    Returns
    -------
    Style
        ``halo`` and ``emboss`` are 0 or 1; ``blur`` is one value twice.
    """
    style = STYLES[int(rng.choice(len(STYLES), p=WEIGHTS))]
    sigma = float(rng.uniform(*style.blur))
    halo, emboss = (float(rng.random() < p) for p in (style.halo, style.emboss))
    # both make much of fine detail, which would drown the objects
    calm = (0.6 if halo else 1.0) * (0.25 if emboss else 1.0)
    return replace(
        style,
        halo=halo,
        emboss=emboss,
        blur=(sigma, sigma),
        ground=(style.ground[0] * calm, style.ground[1] * calm),
        grain=(style.grain[0] * calm, style.grain[1] * calm),
    )


def draw_look(
    rng: np.random.Generator,
    noise: NoiseMaker,
    style: Style,
    ground: float,
    profiles: tuple[str, ...] = PROFILES,
) -> Look:
    """Return the appearance of a kind.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all chance.
    noise : NoiseMaker
        Draws the texture.
    style : Style
        The way of imaging.
    ground : float
        Strength of the texture of the background, which no kind may drown in.
    profiles : tuple of str
        The courses of brightness that suit the kind.

    Returns
    -------
    Look
    """
    profile = profiles[int(rng.integers(len(profiles)))]
    level = max(float(rng.uniform(*style.contrast)), VISIBLE * ground)
    # an object's own texture must not break it up either
    grain = min(float(rng.uniform(*style.grain)), 0.5 * level)
    if rng.random() < 0.35:
        grain = 0.0
    if rng.random() < style.dark:
        level = -level
    hollow = profile == "hollow"
    return Look(
        level=level,
        jitter=float(rng.uniform(0, 0.35)),
        profile=profile,
        rim=float(rng.uniform(1, 3)) * noise.unit,
        core=float(rng.normal(0, 0.15) if hollow else rng.uniform(0.3, 0.7)),
        edge=float(rng.choice([1.0, 1.0, 2.5, 5.0])),
        cover=0.0 if rng.random() < style.additive else 1.0,
        texture=noise.texture().ravel(),
        grain=grain,
    )

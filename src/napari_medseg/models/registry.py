"""The segmenters that there are, as literal tables.

Importing this module imports neither torch nor any network code, so that a combo
box or ``--help`` is filled at once; the classes behind the names are imported when
they are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from napari_medseg.models.naming import unknown
from napari_medseg.models.phrase_settings import is_phrase
from napari_medseg.models.weights_file import WeightsFile

if TYPE_CHECKING:
    from collections.abc import Mapping

_OFFICIAL = "https://dl.fbaipublicfiles.com/segment_anything/"

_OFFICIAL_NOTE = (
    "Segment Anything by Meta AI Research, Kirillov et al. 2023, under the Apache "
    "licence 2.0: free to use, also commercially, with the notice kept."
)


@dataclass(frozen=True, slots=True)
class KnownSizes:
    """What sizes of objects a SAM knows: clicks and boxes are answered at these.

    Attributes
    ----------
    window : int
        Side of the piece of a working image in which a box is looked at, in pixels; a
        multiple of 256, as are those of clicks.
    sides : tuple of int
        To what side, in pixels of the working image, a box is magnified: the square
        root of its area.
    zooms : tuple of tuple of float and int
        How far the surroundings of a click are magnified, beyond an image that just
        fills the working image, and the side of the piece that is looked at.
    """

    window: int
    sides: tuple[int, ...]
    zooms: tuple[tuple[float, int], ...]


@dataclass(frozen=True, slots=True)
class SamEntry:
    """One SAM: its name, what it is for, how it is built and its weights.

    Attributes
    ----------
    name : str
        Name in commands and model files, such as ``vit_b``.
    title : str
        Name shown to the user.
    description : str
        What it is for, in one line.
    module, factory : str
        Where the function is that builds it.
    weights : WeightsFile
        Its weights.
    working_size : int
        Side of the square image that it looks at, in pixels.
    width : int
        Channels of its image embedding.
    sizes : KnownSizes, optional
        The sizes of objects it knows, for a SAM that does not know all of them and
        is quick enough to look several times.
    clicks : WeightsFile, optional
        A prompt encoder and mask decoder, made for the embeddings of these very
        weights, that answers clicks and boxes in place of its own.
    judge : WeightsFile, optional
        A network, made for these very weights, that chooses among the masks of
        several looks.
    """

    name: str
    title: str
    description: str
    module: str
    factory: str
    weights: WeightsFile
    working_size: int
    width: int = 256
    sizes: KnownSizes | None = None
    clicks: WeightsFile | None = None
    judge: WeightsFile | None = None


@dataclass(frozen=True, slots=True)
class SpecialistEntry:
    """One trained model that comes with the package: ready to use, nothing to train.

    Attributes
    ----------
    name : str
        Name in commands, such as ``nuclei-fluo``.
    title : str
        Name shown to the user.
    description : str
        What it is for, in one line.
    file : str
        Name of its model file; data, scores and licence are in the card in it.
    method : str
        The training method that made it; those of ``ptsam`` are tuned on `nano`.
    """

    name: str
    title: str
    description: str
    file: str
    method: str = "ptsam"


@dataclass(frozen=True, slots=True)
class ClassicalEntry:
    """One segmenter without training: its name, what it is for, where its code is.

    Attributes
    ----------
    name : str
        Name in commands.
    title : str
        Name shown to the user.
    description : str
        What it is for, in one line.
    factory : tuple of str
        Module and class.
    options : mapping
        Arguments of the class.
    """

    name: str
    title: str
    description: str
    factory: tuple[str, str]
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EverythingEntry:
    """The segmenter that asks a SAM for all objects: its name, where its code is.

    Attributes
    ----------
    name : str
        Name in commands, of the one with the usual SAM; others are told by
        `everything_name`.
    title : str
        Name shown to the user.
    description : str
        What it is for, in one line.
    sam : str
        The usual SAM.
    config : tuple of str
        Module and class of its settings; importing it imports no torch.
    factory : tuple of str
        Module and function that open it, of a SAM's name and a device.
    """

    name: str
    title: str
    description: str
    sam: str
    config: tuple[str, str]
    factory: tuple[str, str]


def _own(name: str) -> WeightsFile:
    """Return the entry of a file that comes with the package."""
    return WeightsFile(
        name=name,
        url=None,
        sha256=None,
        bytes=None,
        licence="BSD-3-Clause",
        licence_note="Trained by the napari-medseg developers; comes with the "
        "plugin, under its licence.",
        bundled=True,
    )


def _official(name: str, sha256: str, length: int) -> WeightsFile:
    """Return one of Meta's checkpoints, which differ in these three alone."""
    return WeightsFile(
        name=name,
        url=_OFFICIAL + name,
        sha256=sha256,
        bytes=length,
        licence="Apache-2.0",
        licence_note=_OFFICIAL_NOTE,
    )


SAMS: Mapping[str, SamEntry] = MappingProxyType(
    {
        "nano": SamEntry(
            name="nano",
            title="SAM nano (bundled)",
            description="Small and quick, comes with the plugin: for computers "
            "without a GPU or without internet.",
            module="napari_medseg.models.sam",
            factory="build_sam",
            weights=_own("nano.safetensors"),
            working_size=512,
            sizes=KnownSizes(
                window=256,
                sides=(32, 64, 128),
                zooms=((0.5, 256), (1.0, 512), (2.0, 256)),
            ),
            clicks=_own("nano-clicks.safetensors"),
            judge=_own("nano-judge.safetensors"),
        ),
        "vit_b": SamEntry(
            name="vit_b",
            title="SAM ViT-B",
            description="Meta's base model (375 MB): the usual choice for tuning.",
            module="napari_medseg.models.sam",
            factory="build_sam",
            weights=_official(
                "sam_vit_b_01ec64.pth",
                "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
                375_042_383,
            ),
            working_size=1024,
        ),
        "vit_l": SamEntry(
            name="vit_l",
            title="SAM ViT-L",
            description="Meta's large model (1.2 GB): finer outlines; a GPU helps.",
            module="napari_medseg.models.sam",
            factory="build_sam",
            weights=_official(
                "sam_vit_l_0b3195.pth",
                "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
                1_249_524_607,
            ),
            working_size=1024,
        ),
        "vit_h": SamEntry(
            name="vit_h",
            title="SAM ViT-H",
            description="Meta's huge model (2.6 GB): the finest; needs a GPU to be "
            "comfortable.",
            module="napari_medseg.models.sam",
            factory="build_sam",
            weights=_official(
                "sam_vit_h_4b8939.pth",
                "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
                2_564_550_879,
            ),
            working_size=1024,
        ),
    }
)
"""Every SAM by name, the bundled one first."""

SPECIALISTS: Mapping[str, SpecialistEntry] = MappingProxyType(
    {
        "nuclei-fluo": SpecialistEntry(
            name="nuclei-fluo",
            title="Fluorescence nuclei",
            description="Bright nuclei on dark: DAPI, Hoechst and the like.",
            file="nuclei-fluo.medseg",
        ),
        "nuclei-histo": SpecialistEntry(
            name="nuclei-histo",
            title="Histology nuclei",
            description="Stained nuclei in colour images (RGB) of tissue, as in H&E.",
            file="nuclei-histo.medseg",
        ),
        "cells-phase": SpecialistEntry(
            name="cells-phase",
            title="Phase-contrast cells, crowded",
            description="Crowds of cells in phase contrast; tuned on two cell lines "
            "(T98G, NIH/3T3).",
            file="cells-phase.medseg",
        ),
        "outline-phase": SpecialistEntry(
            name="outline-phase",
            title="Phase-contrast cell, single",
            description="The one cell of a phase-contrast close-up: smooth muscle, "
            "fibroblasts. Crop to the cell first.",
            file="outline-phase.medseg",
        ),
        "med2d-nuclei": SpecialistEntry(
            name="med2d-nuclei",
            title="Nuclei of any stain, small network",
            description="Nuclei in fluorescence, in stained tissue and in bright "
            "field; a network of its own, without SAM.",
            file="med2d-nuclei.medseg",
            method="med2d",
        ),
        "med2d-phase": SpecialistEntry(
            name="med2d-phase",
            title="Phase-contrast cells, small network",
            description="Cells in phase contrast, crowded or alone: the best of the "
            "shelf for both; a network of its own, without SAM.",
            file="med2d-phase.medseg",
            method="med2d",
        ),
    }
)
"""Every trained model that comes with the package, by name."""

CLASSICAL: Mapping[str, ClassicalEntry] = MappingProxyType(
    {
        "otsu": ClassicalEntry(
            name="otsu",
            title="Otsu threshold, bright objects",
            description="Bright on dark, told apart by brightness alone; no training.",
            factory=("napari_medseg.models.classical", "Otsu"),
            options={},
        ),
        "otsu_dark": ClassicalEntry(
            name="otsu_dark",
            title="Otsu threshold, dark objects",
            description="Dark on bright, told apart by brightness alone; no training.",
            factory=("napari_medseg.models.classical", "Otsu"),
            options={"dark": True},
        ),
    }
)
"""Every segmenter without training by name."""

EVERYTHING = EverythingEntry(
    name="everything",
    title="SAM everything",
    description="Every object that SAM finds by itself, asked at a grid of points; "
    "no clicks, no training.",
    sam="nano",
    config=("napari_medseg.models.everything_settings", "EverythingConfig"),
    factory=("napari_medseg.models.everything", "open_everything"),
)
"""All objects at once, by any SAM."""


def lookup(name: str) -> SamEntry:
    """Return the SAM of a name.

    Parameters
    ----------
    name : str
        A name such as ``vit_b``.

    Returns
    -------
    SamEntry
        The entry of the table.

    Raises
    ------
    InputError
        There is no SAM of that name; the message lists those that there are.
    """
    entry = SAMS.get(name)
    if entry is None:
        raise unknown("SAM", name, SAMS)
    return entry


def is_network(name: str) -> bool:
    """Tell whether a name or file is that of a model, which sees windows of an image.

    Thresholds, SAM everything and phrases are none.
    """
    return (
        name not in CLASSICAL and everything_sam(name) is None and not is_phrase(name)
    )


def everything_name(sam: str) -> str:
    """Return the name of the segmenter that asks a SAM for all objects.

    Parameters
    ----------
    sam : str
        A name such as ``vit_b``, or that of an imported checkpoint.

    Returns
    -------
    str
        Such as ``everything:vit_b``; ``everything`` for the usual SAM.
    """
    return EVERYTHING.name if sam == EVERYTHING.sam else f"{EVERYTHING.name}:{sam}"


def everything_sam(name: str) -> str | None:
    """Return which SAM a name asks for all objects.

    Parameters
    ----------
    name : str
        Name of any segmenter.

    Returns
    -------
    str or None
        The SAM, which need not be there; None where the name is that of another kind
        of segmenter.
    """
    first, colon, sam = name.partition(":")
    if first != EVERYTHING.name:
        return None
    return sam if colon else EVERYTHING.sam

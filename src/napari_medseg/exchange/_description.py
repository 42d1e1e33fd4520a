"""A model in the words of BioImage.IO's description of a model."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any

import torch

from napari_medseg._types import ModelFileError
from napari_medseg.exchange._facts import known_licence, score
from napari_medseg.exchange._package import format_version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_medseg.inference import Segmenter
    from napari_medseg.io.model_file import ModelCard

NAME = 64
"""Longest name of a package; the standard allows twice that and warns."""

UNKNOWN_AUTHOR = "unknown"
"""Author where none is given; the standard wants one."""

CITATIONS = {
    "sam": (
        "Kirillov et al., Segment Anything, ICCV 2023 (arXiv 2304.02643)",
        "10.48550/arXiv.2304.02643",
    ),
    "ptsam": (
        "Piater et al., Prompt-Tuning SAM: From Generalist to Specialist with only "
        "2048 Parameters and 16 Training Images, CVPR Workshops 2025 "
        "(arXiv 2504.16739)",
        "10.1109/CVPRW67362.2025.00455",
    ),
    "med2d": (
        "Sabrin et al., Med-2D SegNet (arXiv 2504.14715)",
        "10.48550/arXiv.2504.14715",
    ),
    "mamba": (
        "Cheng et al., Mamba-Sea, IEEE TMI 2025 (arXiv 2504.17515)",
        "10.1109/TMI.2025.3564765",
    ),
    "xnet": (
        "Zhou et al., XNet v2 (arXiv 2409.00947), as used by WT-BCP (arXiv 2504.14445)",
        "10.48550/arXiv.2409.00947",
    ),
    "unetr": (
        "Hatamizadeh et al., UNETR: Transformers for 3D Medical Image Segmentation, "
        "WACV 2022 (arXiv 2103.10504)",
        "10.1109/WACV51458.2022.00181",
    ),
}
"""Text and DOI of what to cite: for what has a SAM underneath, and by kind."""


def describe(segmenter: Segmenter, authors: Sequence[str] = ()) -> dict[str, Any]:
    """Describe a model in the words of BioImage.IO.

    Parameters
    ----------
    segmenter : Segmenter
        The model.
    authors : sequence of str
        Who made it.

    Returns
    -------
    dict
        What the ``rdf.yaml`` of a package holds; files are named as
        `export_bioimageio` writes them.

    Raises
    ------
    ModelFileError
        The percentiles of the model cannot be described.
    """
    card = segmenter.model_file.card
    version = torch.__version__.partition("+")[0]
    return {
        "type": "model",
        "format_version": format_version(),
        "name": package_name(card.title),
        "description": _summary(card),
        "authors": [{"name": name} for name in authors or (UNKNOWN_AUTHOR,)],
        "license": known_licence(card.licence),
        "cite": [
            {"text": text, "doi": doi}
            for text, doi in (CITATIONS[name] for name in _sources(card))
        ],
        "tags": [
            *("2d", "pytorch", "semantic-segmentation", "napari-medseg"),
            *(("segment-anything", "fine-tuning") if card.base else ()),
        ],
        "documentation": {"source": "README.md"},
        "covers": [{"source": "cover.png"}],
        "attachments": [{"source": "model.medseg"}],
        "inputs": [_input(segmenter)],
        "outputs": [_output(segmenter)],
        "weights": {
            "torchscript": {"source": "weights.pt", "pytorch_version": version}
        },
        "config": {
            "bioimageio": {
                # for the coarser arithmetic of graphics cards; the standard allows
                # 1 % of the highest probability, which is at least 1 / classes
                "reproducibility_tolerance": [
                    {
                        "relative_tolerance": 0.01,
                        "absolute_tolerance": 0.01 / len(output_names(segmenter)),
                    }
                ],
                "target_structure": [item.name for item in card.classes[1:]],
                "task": "segmentation",
            }
        },
    }


def _sources(card: ModelCard) -> list[str]:
    """Return which of the citations a model asks for."""
    method = card.kind.removesuffix("-objects")
    return [*(["sam"] if card.base else []), *([method] if method in CITATIONS else [])]


def _input(segmenter: Segmenter) -> dict[str, Any]:
    """Describe the input, and how it is normalised."""
    usual, tile = segmenter.normalisation, segmenter.plan.framing.tile
    if usual.upper <= 1 or usual.lower >= 100:
        raise ModelFileError(
            f"The model scales images by the percentiles {usual.lower:g} and "
            f"{usual.upper:g}; BioImage.IO has no word for an upper one of 1 or less."
        )
    scale = {
        "axes": ["channel", "y", "x"] if usual.joint else ["y", "x"],
        "min_percentile": usual.lower,
        "max_percentile": usual.upper,
    }
    names = [
        f"{place}_is_channel_{channel}"
        for place, channel in zip(
            _places(len(usual.channels)), usual.channels, strict=True
        )
    ]
    return {
        "id": "image",
        "description": "Channels of the image; the README says which.",
        "axes": [
            {"type": "batch", "size": 1},
            {"type": "channel", "channel_names": names},
            {"type": "space", "id": "y", "size": tile, "concatenable": True},
            {"type": "space", "id": "x", "size": tile, "concatenable": True},
        ],
        "data": {"type": "float32"},
        "preprocessing": [
            {"id": "scale_range", "kwargs": scale},
            {"id": "clip", "kwargs": {"min": 0.0, "max": 1.0}},
        ],
        "test_tensor": {"source": "test_input.npy"},
    }


def _places(count: int) -> list[str]:
    """Return names for so many inputs."""
    return ["first", "second", "third", *(f"input_{i}" for i in range(4, count + 1))][
        :count
    ]


def output_names(segmenter: Segmenter) -> tuple[str, ...]:
    """Return what each output of a model's network is called.

    Parameters
    ----------
    segmenter : Segmenter
        The model.

    Returns
    -------
    tuple of str
        Its classes; or background, inside and border of the objects that it parts.
    """
    if segmenter.parts:
        return "background", "interior", "border"
    return tuple(item.name for item in segmenter.classes)


def _output(segmenter: Segmenter) -> dict[str, Any]:
    """Describe the output."""
    space = [
        {"type": "space", "id": axis, "size": {"tensor_id": "image", "axis_id": axis}}
        for axis in ("y", "x")
    ]
    return {
        "id": "probabilities",
        "description": "Probability of each, background first.",
        "axes": [
            {"type": "batch", "size": 1},
            {"type": "channel", "channel_names": list(output_names(segmenter))},
            *space,
        ],
        "data": {"type": "float32", "range": [0.0, 1.0]},
        "test_tensor": {"source": "test_output.npy"},
    }


def package_name(title: str) -> str:
    """Return a title with the letters that the name of a package may have.

    Parameters
    ----------
    title : str
        Any text.

    Returns
    -------
    str
        5 to 64 characters.
    """
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    words = re.sub(r"[^A-Za-z0-9_+\-()]+", " ", plain).split()
    name = " ".join(words)[:NAME].strip()
    return name if len(name) >= 5 else f"{name} napari-medseg model".strip()


def _summary(card: ModelCard) -> str:
    """Say in a sentence or two what a model is."""
    names = ", ".join(item.name for item in card.classes[1:])
    text = f"Segments 2D images ({names[:200]}). {card.title[:200]}."
    return f"{text} {score(card)}"

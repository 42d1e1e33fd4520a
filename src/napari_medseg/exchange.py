"""A tuned model as a BioImage.IO package, for other programs to run.

The package holds the whole network as TorchScript, so nothing of napari-medseg is
needed to run it, and the model file itself, so nothing is lost. What BioImage.IO's
description of a model has no words for (resizing, mostly) is done inside the network
or told in the package's README.
"""

from __future__ import annotations

import importlib
import math
import re
import shutil
import tempfile
import unicodedata
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from napari_medseg._types import InputError, Job, JobError, ModelFileError, Progress
from napari_medseg.inference import Segmenter
from napari_medseg.io import model_file as model_files
from napari_medseg.io.atomic import atomic_path
from napari_medseg.io.normalise import Normalisation, normalise
from napari_medseg.models.framing import resize
from napari_medseg.models.sam import standardise
from napari_medseg.samples import two_kinds_scene
from napari_medseg.training.report import NO_BETTER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_medseg._types import FloatArray
    from napari_medseg.io.model_file import ModelCard
    from napari_medseg.models.framing import Framing

NEEDS_EXTRA = (
    "Exporting to BioImage.IO needs the extra: pip install napari-medseg[exchange]."
)
"""What is said where the libraries of BioImage.IO are not installed."""

TOLERANCE = 1e-3
"""Most that a probability of the exported network may differ from the model's."""

COVER = 256
"""Longest side of each half of the cover image, in pixels."""

NAME = 64
"""Longest name of a package; the standard allows twice that and warns."""

UNKNOWN_AUTHOR = "unknown"
"""Author where none is given; the standard wants one."""

CITATIONS = {
    "": (
        "Kirillov et al., Segment Anything, ICCV 2023 (arXiv 2304.02643)",
        "10.48550/arXiv.2304.02643",
    ),
    "ptsam": (
        "Piater et al., Prompt-Tuning SAM: From Generalist to Specialist with only "
        "2048 Parameters and 16 Training Images, CVPR Workshops 2025 "
        "(arXiv 2504.16739)",
        "10.1109/CVPRW67362.2025.00455",
    ),
}
"""Text and DOI of what to cite: for every model, and by kind of model."""


@dataclass(frozen=True)
class Exported:
    """What became of an export.

    Attributes
    ----------
    path : Path
        The package.
    format_version : str
        Version of BioImage.IO's model format that it keeps.
    tested : bool
        Whether BioImage.IO's own test ran the network, and passed.
    warnings : tuple of str
        Sentences that whoever shares the package should read.
    """

    path: Path
    format_version: str
    tested: bool
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON holds it."""
        return {
            "file": str(self.path),
            "format": f"bioimage.io model {self.format_version}",
            "tested": self.tested,
            "warnings": list(self.warnings),
        }


class ExportedNetwork(nn.Module):
    """A model as one network: a window of the image in, class probabilities out.

    Parameters
    ----------
    network : Module
        Maps windows as `Framing.window` makes them to class logits.
    framing : Framing
        The windows.
    """

    def __init__(self, network: nn.Module, framing: Framing) -> None:
        super().__init__()
        self.network = network
        self.tile = framing.tile
        self.size = framing.size

    def forward(self, images: Tensor) -> Tensor:
        """Segment windows.

        Parameters
        ----------
        images : Tensor
            ``(B, 3, tile, tile)`` in [0, 1].

        Returns
        -------
        Tensor
            ``(B, K, tile, tile)``, class probabilities.
        """
        inner, outer = (self.size, self.size), (self.tile, self.tile)
        logits = self.network(standardise(resize(images, inner)))
        # by way of the working size, as in Framing.unwindow
        return resize(resize(logits.float(), inner), outer).softmax(dim=1)


def export_bioimageio(
    model: Path,
    out: Path,
    *,
    authors: Sequence[str] = (),
    base: str | None = None,
    overwrite: bool = False,
) -> Job[Exported]:
    """Write a model as a BioImage.IO package, checked by BioImage.IO's own library.

    Parameters
    ----------
    model : Path
        A ``.medseg`` file.
    out : Path
        The package to write, ``.zip``; it is there whole or not at all.
    authors : sequence of str
        Who made the model.
    base : str, optional
        Checkpoint of the SAM underneath, where it is not found by itself.
    overwrite : bool
        Whether a package that exists may be replaced.

    Yields
    ------
    Progress
        What is being done.

    Returns
    -------
    Exported
        The package, and what to know about it.

    Raises
    ------
    InputError
        The name of the package or of an author cannot be used.
    ModelFileError, WeightsError
        The model cannot be loaded, or not be described in BioImage.IO's words.
    JobError
        The extra is not installed, a check failed, or the file cannot be written.
    """
    _check_names(out, authors, overwrite=overwrite)
    yield Progress(0, 4, "loading the model")
    _import_library()  # that takes seconds
    model_file = model_files.load(model)
    segmenter = Segmenter(model_file, "cpu", base)
    # Windows cannot delete a file that the library still holds open
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        try:
            shutil.copyfile(model, folder / "model.medseg")
            yield Progress(1, 4, "tracing the network")
            write_network(segmenter, folder)
            yield Progress(2, 4, "packing")
            cautions = _cautions(model_file.card, authors)
            _write_readme(segmenter, cautions, folder)
            package = pack(describe(segmenter, authors), folder)
            yield Progress(3, 4, "checking the package")
            tested = check_package(package)
            with atomic_path(out) as path:
                shutil.copyfile(package, path)
        except OSError as error:
            raise JobError(
                f"{out} cannot be written: {error.strerror or error}."
            ) from error
    return Exported(out, _format_version(), tested, tuple(cautions))


def _check_names(out: Path, authors: Sequence[str], *, overwrite: bool) -> None:
    """Refuse names that no package can have, before anything is computed."""
    if out.suffix.lower() != ".zip":
        raise InputError(f"{out} must end in .zip: a BioImage.IO package is a zip.")
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists; choose another name, or add --overwrite.")
    for author in authors:
        if not author.strip() or "/" in author or "\\" in author:
            raise InputError(
                f"{author!r} cannot be the name of an author; it must be text without "
                "slashes. Give --author once for each of them."
            )


def _import_library() -> Any:
    """Import the library of BioImage.IO's formats, or say what is missing."""
    try:
        return importlib.import_module("bioimageio.spec")
    except ImportError as error:
        raise JobError(NEEDS_EXTRA) from error


def _format_version() -> str:
    """Return the version of the model format that the library writes."""
    library = importlib.import_module("bioimageio.spec.model.v0_5")
    version: str = library.ModelDescr.implemented_format_version
    return version


# ---------------------------------------------------------------------- network


def write_network(segmenter: Segmenter, folder: Path) -> None:
    """Write the network as TorchScript, with an image to try it on and a cover.

    Parameters
    ----------
    segmenter : Segmenter
        The model, on the processor.
    folder : Path
        Gets ``weights.pt``, ``test_input.npy``, ``test_output.npy``, ``cover.png``.

    Raises
    ------
    ModelFileError
        The model is no network.
    JobError
        The traced network does something else than the model.
    """
    if not isinstance(segmenter.network, nn.Module):
        raise ModelFileError(
            f"A model of the kind {segmenter.model_file.card.kind!r} cannot be "
            "exported: it is not a network."
        )
    network = ExportedNetwork(segmenter.network, segmenter.plan.framing).eval()
    image = example_image(segmenter.plan.framing.tile)
    inputs = torch.from_numpy(_prepared(image, segmenter.normalisation))[None]
    with torch.no_grad():
        wanted = network(inputs)
        traced = _traced(network, torch.zeros_like(inputs), folder / "weights.pt")
        found = traced(inputs)
    difference = float((found - wanted).abs().max())
    if not difference <= TOLERANCE:
        raise JobError(
            "The exported network does not do what the model does: probabilities "
            f"differ by up to {difference:.3g}. Nothing was written; please report it."
        )
    np.save(folder / "test_input.npy", image[None])
    np.save(folder / "test_output.npy", wanted.numpy())
    _write_cover(image, wanted[0].numpy(), folder / "cover.png")


def example_image(tile: int) -> FloatArray:
    """Return a generated image ``float32 (3, tile, tile)``, grey levels 0 to 255."""
    scene = two_kinds_scene(np.random.default_rng(0), tile)
    image: FloatArray = np.repeat(scene.image[:1].astype(np.float32), 3, axis=0)
    return image


def _prepared(image: FloatArray, usual: Normalisation) -> FloatArray:
    """Scale an image whose channels are the model's inputs already."""
    own = Normalisation((0, 1, 2), usual.lower, usual.upper, usual.joint)
    return normalise(image, own)


def _traced(network: nn.Module, example: Tensor, path: Path) -> nn.Module:
    """Write a network as TorchScript and return what another program would load."""
    with tracing():
        # its own check would run everything once more; the caller's is stricter
        traced = torch.jit.trace(network, example, check_trace=False)
        torch.jit.save(torch.jit.freeze(traced), str(path))
        loaded: nn.Module = torch.jit.load(str(path))
    return loaded


@contextmanager
def tracing() -> Iterator[None]:
    """Silence what torch says of TorchScript, and nothing else.

    A trace holds for one size of the input, which is what is wanted here. TorchScript
    is deprecated in favour of formats that BioImage.IO does not know.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=TracerWarning)
        # a FutureWarning or a DeprecationWarning, by the version of torch
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated")
        yield


def _write_cover(image: FloatArray, probabilities: FloatArray, path: Path) -> None:
    """Write the example image beside what the model finds on it."""
    import imageio.v3 as imageio

    step = math.ceil(image.shape[1] / COVER)
    halves = [image[0] / 255, 1 - probabilities[0]]
    picture = np.hstack([half[::step, ::step] for half in halves])
    imageio.imwrite(path, (picture.clip(0, 1) * 255).astype(np.uint8))


# ------------------------------------------------------------------ description


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
        "format_version": _format_version(),
        "name": package_name(card.title),
        "description": _summary(card),
        "authors": [{"name": name} for name in authors or (UNKNOWN_AUTHOR,)],
        "license": _known_licence(card.licence),
        "cite": [
            {"text": text, "doi": doi}
            for kind, (text, doi) in CITATIONS.items()
            if kind in ("", card.kind)
        ],
        "tags": [
            *("2d", "pytorch", "semantic-segmentation"),
            *("segment-anything", "fine-tuning", "napari-medseg"),
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
                        "absolute_tolerance": 0.01 / len(card.classes),
                    }
                ],
                "target_structure": [item.name for item in card.classes[1:]],
                "task": "segmentation",
            }
        },
    }


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
            ("first", "second", "third"), usual.channels, strict=True
        )
    ]
    return {
        "id": "image",
        "description": "Three channels of the image; the README says which.",
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


def _output(segmenter: Segmenter) -> dict[str, Any]:
    """Describe the output."""
    names = [item.name for item in segmenter.classes]
    space = [
        {"type": "space", "id": axis, "size": {"tensor_id": "image", "axis_id": axis}}
        for axis in ("y", "x")
    ]
    return {
        "id": "probabilities",
        "description": "Probability of each class, background first.",
        "axes": [
            {"type": "batch", "size": 1},
            {"type": "channel", "channel_names": names},
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


def _known_licence(licence: str) -> str | None:
    """Return an SPDX identifier that BioImage.IO knows, or None."""
    library = importlib.import_module("bioimageio.spec.model.v0_5")
    try:
        library.LicenseId(licence)
    except ValueError:
        return None
    return licence


def _summary(card: ModelCard) -> str:
    """Say in a sentence or two what a model is."""
    names = ", ".join(item.name for item in card.classes[1:])
    text = f"Segments 2D images ({names[:200]}). {card.title[:200]}."
    return f"{text} {_score(card)}"


def _score(card: ModelCard) -> str:
    """Say how a model did on images that it was not tuned on."""
    held_out, untuned = card.scores.get("held_out"), card.scores.get("untuned")
    if not held_out:
        return "There is no held-out score."
    count = held_out["images"]
    text = (
        f"Held-out Dice {held_out['dice']:.3f}, IoU {held_out['iou']:.3f} on {count} "
        f"image{'s' * (count != 1)} that it was not tuned on"
    )
    return (
        f"{text} (untuned SAM: Dice {untuned['dice']:.3f})." if untuned else f"{text}."
    )


def _cautions(card: ModelCard, authors: Sequence[str]) -> list[str]:
    """Return what to know before a model is shared or trusted."""
    found = []
    held_out, untuned = card.scores.get("held_out"), card.scores.get("untuned")
    if not held_out:
        found.append(
            "There is no held-out score: look at the result on other images before "
            "you trust it."
        )
    elif untuned and held_out["dice"] - untuned["dice"] <= NO_BETTER:
        found.append(
            f"The tuned model (Dice {held_out['dice']:.2f}) is no better than SAM "
            f"untuned ({untuned['dice']:.2f}) on the held-out images."
        )
    if _known_licence(card.licence) is None:
        found.append(
            f"The licence of the weights is not known ({card.licence}): ask whoever "
            "made them before you share the package."
        )
    if not authors:
        found.append("No author is named; --author NAME adds one.")
    return found


# ----------------------------------------------------------------------- README


def _write_readme(segmenter: Segmenter, cautions: Sequence[str], folder: Path) -> None:
    """Write the package's documentation, made from the model's card."""
    text = readme(segmenter, cautions)
    (folder / "README.md").write_text(text, encoding="utf-8", newline="\n")


def readme(segmenter: Segmenter, cautions: Sequence[str] = ()) -> str:
    """Return the documentation of a package, in Markdown.

    Parameters
    ----------
    segmenter : Segmenter
        The model.
    cautions : sequence of str
        Sentences that the reader must see.

    Returns
    -------
    str
        What it was tuned on, how it did, how images must be prepared, its licence.
    """
    card = segmenter.model_file.card
    classes = "\n".join(f"- {i}: {item.name}" for i, item in enumerate(card.classes))
    warned = "\n".join(f"- **{caution}**" for caution in cautions)
    return (
        "\n\n".join(
            part
            for part in (
                f"# {card.title}",
                "A specialist segmenter for 2D images, tuned with napari-medseg.",
                warned,
                f"## Output\n\nThe probability of each class:\n\n{classes}",
                f"## Input\n\n{_how_to_prepare(segmenter)}",
                f"## Training\n\n{_origin(card)}",
                f"## Validation\n\n{_score(card)} {_HOW_TO_VALIDATE}",
                f"## Licence\n\n{_licences(card)}",
                _ORIGINAL,
            )
            if part
        )
        + "\n"
    )


_HOW_TO_VALIDATE = (
    "On images like yours it may do better or worse. To find out, segment some that "
    "were not used for tuning, annotate them, and compare: `napari-medseg evaluate "
    "--pred RESULTS --truth TRUTH` gives Dice, IoU and distances of outlines."
)

_ORIGINAL = (
    "## The original\n\n`model.medseg` in this package is the model file itself. "
    "napari-medseg opens it, and does what is listed above by itself: `napari-medseg "
    "segment IMAGES --model model.medseg --out RESULTS`."
)


def _how_to_prepare(segmenter: Segmenter) -> str:
    """Say what the network expects of an image."""
    usual, framing = segmenter.normalisation, segmenter.plan.framing
    first, second, third = usual.channels
    alike = "all three together" if usual.joint else "each by itself"
    grey = ": a grey image is given three times" if first == second == third else ""
    lines = [
        f"Three channels. In the training images they were the channels {first}, "
        f"{second} and {third}, counted from 0{grey}.",
        f"Values are scaled so that percentile {usual.lower:g} becomes 0 and "
        f"percentile {usual.upper:g} becomes 1 ({alike}), and cut off there. "
        "BioImage.IO's programs do it by themselves. napari-medseg takes the "
        "percentiles from the whole image, however it is cut, and where both are the "
        "same (few cells on black), from the pixels that differ; elsewhere these two "
        "need care.",
        f"{framing.tile} × {framing.tile} pixels at a time, at the resolution of the "
        "training images; inside, they are resized to "
        f"{framing.size} × {framing.size}. napari-medseg cuts larger images into "
        f"windows that overlap by {framing.overlap:.0%} and blends them; smaller ones "
        "get a margin below and to the right.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _origin(card: ModelCard) -> str:
    """Say what a model was tuned on and with."""
    base, origin = card.base, card.provenance
    versions = origin.get("versions") or {}
    facts = {
        "Underneath": f"{base.get('title')}, weights {str(base.get('sha256'))[:12]}…"
        if base
        else None,
        "Annotated images": origin.get("images"),
        "Annotation": origin.get("annotation"),
        "Date": origin.get("date"),
        "Versions": ", ".join(f"{name} {value}" for name, value in versions.items()),
    }
    lines = [f"- {name}: {value}" for name, value in facts.items() if value]
    return "\n".join(lines) or "Not known."


def _licences(card: ModelCard) -> str:
    """Say whose the weights are."""
    text = f"{card.licence}."
    if card.base:
        text += f" The SAM underneath ({card.base['title']}): {card.base['licence']}."
    return text


# ---------------------------------------------------------------------- package


def pack(description: dict[str, Any], folder: Path) -> Path:
    """Write a package out of a description and its files.

    Parameters
    ----------
    description : dict
        From `describe`.
    folder : Path
        Where the files are; the package is written there too.

    Returns
    -------
    Path
        The package.

    Raises
    ------
    JobError
        BioImage.IO's library finds a fault.
    """
    library = _import_library()
    package = folder / "package.zip"
    with library.ValidationContext(root=folder, perform_io_checks=True):
        built = library.build_description(description)
    _check_status(built.validation_summary, ("valid-format", "passed"))
    try:
        library.save_bioimageio_package(built, output_path=package)
    except ValueError as error:
        raise JobError(f"BioImage.IO refuses the package: {error}") from error
    return package


def check_package(package: Path) -> bool:
    """Let BioImage.IO's own library read a package and, where it can, run it.

    Parameters
    ----------
    package : Path
        The package.

    Returns
    -------
    bool
        Whether the network was run.

    Raises
    ------
    JobError
        A fault was found.
    """
    library = _import_library()
    read = library.load_description(package, perform_io_checks=True)
    _check_status(read.validation_summary, ("valid-format", "passed"))
    if find_spec("bioimageio.core") is None:
        return False
    core = importlib.import_module("bioimageio.core")
    with tracing():
        summary = core.test_model(package, devices=["cpu"])
    _check_status(summary, ("passed",))
    return True


def _check_status(summary: Any, wanted: Sequence[str]) -> None:
    """Raise what a summary of BioImage.IO's library complains of."""
    if summary.status in wanted:
        return
    faults = [error.msg for detail in summary.details for error in detail.errors]
    told = "; ".join(faults)[:1000] or summary.status
    raise JobError(
        f"BioImage.IO's own check refuses the package: {told}. Nothing was written."
    )

"""Models for other programs: BioImage.IO packages that do what the model does."""

from __future__ import annotations

import importlib
import io
import json
import sys
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from networks import save_nano
from typer.testing import CliRunner

from napari_medseg import exchange
from napari_medseg._config import to_dict
from napari_medseg._types import (
    InputError,
    JobError,
    ModelFileError,
    default_classes,
    finish,
)
from napari_medseg.cli.app import app
from napari_medseg.exchange import _network, _package, export_bioimageio
from napari_medseg.exchange._description import package_name
from napari_medseg.exchange._network import tracing
from napari_medseg.exchange._readme import readme
from napari_medseg.inference import Segmenter, load
from napari_medseg.io.model_file import ModelCard, ModelFile, save
from napari_medseg.io.normalise import Normalisation, normalise
from napari_medseg.models.backbone import load_backbone
from napari_medseg.models.framing import Framing
from napari_medseg.models.med2d import Med2dSegNet

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# the library of BioImage.IO leaves closing files to Python
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

SCORE = {"dice": 0.9, "iou": 0.82, "dice_sd": 0.03, "images": 4}
UNTUNED = {"dice": 0.3, "iou": 0.2, "dice_sd": 0.1, "images": 4}


@pytest.fixture(scope="module")
def spec() -> Any:
    return pytest.importorskip("bioimageio.spec", reason="needs the extra: exchange")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random prompts on a random ``nano``, for windows of 160 pixels."""
    folder = tmp_path_factory.mktemp("model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAPARI_MEDSEG_WEIGHTS", str(folder / "weights"))
        return make_model(folder)


def make_model(
    folder: Path,
    normalisation: Normalisation | None = None,
    scores: Mapping[str, Any] | None = None,
    licence: str = "BSD-3-Clause",
    framing: Framing | None = None,
) -> Path:
    backbone = load_backbone(str(save_nano(folder / "nano.pt")))
    card = ModelCard(
        kind="ptsam",
        title="PTSAM on Zellkerne (größer), 16 images",
        classes=default_classes(3),
        normalisation=to_dict(normalisation or Normalisation(lower=2.0, upper=98.0)),
        base=backbone.card(),
        provenance={"images": 16, "annotation": "dense", "date": "2026-01-31"},
        scores={"held_out": SCORE, "untuned": UNTUNED} if scores is None else scores,
        licence=licence,
        framing=to_dict(framing or Framing(tile=160, size=128)),
    )
    prompts = np.random.default_rng(0).normal(0, 0.5, (2, 8, 256)).astype(np.float32)
    return save(folder / "kerne.medseg", ModelFile(card, {"decoder_prompts": prompts}))


def base_of(model: Path) -> str:
    return str(model.with_name("nano.pt"))


@pytest.fixture(scope="module")
def exported(spec: Any, model: Path) -> exchange.Exported:
    job = export_bioimageio(
        model, model.with_name("kerne.zip"), authors=["A. Müller"], base=base_of(model)
    )
    return finish(job)


def test_bioimageio_finds_the_package_valid(
    spec: Any, exported: exchange.Exported
) -> None:
    read = spec.load_description(exported.path, perform_io_checks=True)
    assert read.validation_summary.status == "valid-format", read.validation_summary
    assert read.name == "PTSAM on Zellkerne (groer) 16 images"
    assert [author.name for author in read.authors] == ["A. Müller"]
    assert str(read.license) == "BSD-3-Clause"
    assert [str(entry.doi) for entry in read.cite] == [
        "10.48550/arXiv.2304.02643",
        "10.1109/CVPRW67362.2025.00455",
    ]
    assert exported.warnings == ()


def network_file(path: Path, kind: str, channels: int, outputs: int) -> Path:
    """Write the model file of a network with fresh weights."""
    card = ModelCard(
        kind=kind,
        title="Med-2D SegNet, 4 images",
        classes=default_classes(2),
        normalisation=to_dict(Normalisation.of_all_channels(channels)),
        scores={"held_out": SCORE, "untuned": None, "otsu": UNTUNED},
        framing=to_dict(Framing(tile=64, size=64)),
    )
    state = Med2dSegNet(channels, outputs).state_dict()
    tensors = {name: item.contiguous().numpy() for name, item in state.items()}
    return save(path, ModelFile(card, tensors))


def test_a_network_trained_whole_is_exported_too(spec: Any, tmp_path: Path) -> None:
    """Its two channels are its inputs, and no SAM is spoken of."""
    model = network_file(tmp_path / "small.medseg", "med2d", 2, 2)
    job = export_bioimageio(model, tmp_path / "small.zip", authors=["A. Müller"])
    package = spec.load_description(finish(job).path, perform_io_checks=True)
    assert package.validation_summary.status == "valid-format"
    channels = package.inputs[0].axes[1].channel_names
    assert [str(name) for name in channels] == [
        "first_is_channel_0",
        "second_is_channel_1",
    ]
    assert [str(entry.doi) for entry in package.cite] == ["10.48550/arXiv.2504.14715"]
    readme = exchange._readme.readme(load(model, "cpu"))
    assert "Otsu's threshold: Dice 0.300" in readme
    assert "SAM" not in readme


def test_a_network_that_parts_objects_names_its_three_outputs(
    spec: Any, tmp_path: Path
) -> None:
    model = network_file(tmp_path / "apart.medseg", "med2d-objects", 1, 3)
    job = export_bioimageio(model, tmp_path / "apart.zip", authors=["A. Müller"])
    package = spec.load_description(finish(job).path, perform_io_checks=True)
    names = [str(name) for name in package.outputs[0].axes[1].channel_names]
    assert names == ["background", "interior", "border"]
    assert "2: border" in exchange._readme.readme(load(model, "cpu"))


def test_one_network_a_class_is_no_package(tmp_path: Path) -> None:
    card = ModelCard(
        kind="lesions",
        title="Lesions",
        classes=default_classes(2),
        normalisation=to_dict(Normalisation.of_all_channels(1)),
        scores={},
        framing=to_dict(Framing(tile=64, size=64)),
    )
    tensors = {"a": np.zeros(1, np.float32)}
    model = save(tmp_path / "lesions.medseg", ModelFile(card, tensors))
    with pytest.raises(ModelFileError, match="a network for each"):
        finish(export_bioimageio(model, tmp_path / "a.zip", authors=["A"]))


def test_bioimageio_ran_the_network_where_it_can(exported: exchange.Exported) -> None:
    can = importlib.util.find_spec("bioimageio.core") is not None
    assert exported.tested is can


def test_a_package_is_read_but_not_run_where_only_the_formats_are_installed(
    exported: exchange.Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_package, "find_spec", lambda _: None)
    assert exchange.check_package(exported.path) is False


def test_the_network_in_it_does_what_the_model_does(
    model: Path, exported: exchange.Exported
) -> None:
    segmenter = load(model, "cpu", base_of(model))
    image = np.random.default_rng(1).normal(300, 40, (1, 160, 160)).astype(np.float32)
    image[:, 40:90, 30:120] += 200
    wanted = segmenter.predict(image).probabilities
    with zipfile.ZipFile(exported.path) as package, tracing():
        network = torch.jit.load(io.BytesIO(package.read("weights.pt")))
    inputs = torch.from_numpy(normalise(image, segmenter.normalisation))
    found = network(inputs[None])[0].numpy()
    assert found.shape == (3, 160, 160)
    assert np.ptp(wanted[1]) > 0.05  # there is something to tell apart
    np.testing.assert_allclose(found, wanted, atol=1e-2)


def test_only_what_torch_says_of_torchscript_is_silenced() -> None:
    with tracing():
        warnings.warn("`torch.jit.trace` is deprecated. Switch.", FutureWarning, 2)
        with pytest.raises(FutureWarning, match="another"):
            warnings.warn("another matter is deprecated", FutureWarning, 2)
    with pytest.raises(FutureWarning, match=r"torch\.jit"):
        warnings.warn("`torch.jit.trace` is deprecated. Switch.", FutureWarning, 2)


def test_the_model_file_is_in_it_byte_for_byte(
    model: Path, exported: exchange.Exported
) -> None:
    with zipfile.ZipFile(exported.path) as package:
        assert package.read("model.medseg") == model.read_bytes()


def test_no_other_files_are_left(exported: exchange.Exported) -> None:
    assert sorted(path.name for path in exported.path.parent.glob("*.zip")) == [
        "kerne.zip"
    ]
    assert not list(exported.path.parent.glob(".*"))


def test_the_preprocessing_that_is_described_is_that_of_the_model(
    exported: exchange.Exported, model: Path
) -> None:
    core = pytest.importorskip("bioimageio.core", reason="needs the extra: exchange")
    segmenter = load(model, "cpu", base_of(model))
    grey = np.random.default_rng(2).integers(0, 4000, (1, 160, 160)).astype(np.float32)
    wanted = segmenter.predict(grey).probabilities
    with tracing():
        sample = core.predict(
            model=exported.path, inputs=np.repeat(grey, 3, axis=0)[None]
        )
    (found,) = (member.data.to_numpy() for member in sample.members.values())
    np.testing.assert_allclose(found[0], wanted, atol=1e-2)


def test_the_readme_says_what_one_must_know(model: Path) -> None:
    text = readme(load(model, "cpu", base_of(model)), ["Beware of the dog."])
    for fact in (
        "# PTSAM on Zellkerne (größer), 16 images",
        "**Beware of the dog.**",
        "Held-out Dice 0.900, IoU 0.820 on 4 images",
        "SAM untuned: Dice 0.300",
        "Annotated images: 16",
        "channels 0, 0, 0, counted from 0: a grey image is given 3 times",
        "percentile 2 becomes 0 and percentile 98 becomes 1 (each by itself)",
        "160 × 160 pixels",
        "## Validation",
        "BSD-3-Clause",
    ):
        assert fact in text


def test_joint_normalisation_is_described_as_such(tmp_path: Path, spec: Any) -> None:
    path = make_model(tmp_path, Normalisation((2, 0, 1), 1.0, 99.0, joint=True))
    description = exchange.describe(load(path, "cpu", base_of(path)))
    (image,) = description["inputs"]
    scale, clip = image["preprocessing"]
    assert scale["kwargs"]["axes"] == ["channel", "y", "x"]
    assert clip["id"] == "clip"
    assert image["axes"][1]["channel_names"] == [
        "first_is_channel_2",
        "second_is_channel_0",
        "third_is_channel_1",
    ]


def test_percentiles_without_words_in_the_standard_are_refused(
    tmp_path: Path, spec: Any
) -> None:
    path = make_model(tmp_path, Normalisation(lower=0.1, upper=0.9))
    segmenter = load(path, "cpu", base_of(path))
    with pytest.raises(ModelFileError, match=r"percentiles 0\.1 and 0\.9"):
        exchange.describe(segmenter)


def test_a_network_that_was_traced_wrongly_is_not_written(
    model: Path, tmp_path: Path, spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: Any) -> Any:
        return lambda inputs: torch.full((1, 3, 160, 160), torch.nan)

    monkeypatch.setattr(_network, "_traced", wrong)
    job = export_bioimageio(model, tmp_path / "m.zip", base=base_of(model))
    with pytest.raises(JobError, match="does not do what the model does"):
        finish(job)
    assert not list(tmp_path.glob("*.zip"))


def test_what_bioimageio_refuses_is_not_written(
    model: Path, tmp_path: Path, spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = exchange.describe

    def faulty(segmenter: Segmenter, authors: Any) -> dict[str, Any]:
        return real(segmenter, authors) | {"name": "a/b"}

    monkeypatch.setattr(exchange, "describe", faulty)
    job = export_bioimageio(model, tmp_path / "m.zip", base=base_of(model))
    with pytest.raises(JobError, match="refuses the package"):
        finish(job)
    assert not list(tmp_path.glob("*.zip"))


@pytest.mark.parametrize(
    ("title", "name"),
    [
        (
            "PTSAM on SAM nano (bundled), 16 images",
            "PTSAM on SAM nano (bundled) 16 images",
        ),
        ("核", "napari-medseg model"),
        ("a/b", "a b napari-medseg model"),
        ("x" * 200, "x" * 64),
    ],
)
def test_names_have_the_letters_that_are_allowed(title: str, name: str) -> None:
    assert package_name(title) == name


@pytest.mark.parametrize(
    ("out", "authors", "told"),
    [
        ("model", [], "must end in .zip"),
        ("there.zip", [], "add --overwrite"),
        ("m.zip", ["A/B"], "without slashes"),
        ("m.zip", [" "], "without slashes"),
    ],
)
def test_names_that_cannot_be_used_are_refused(
    tmp_path: Path, out: str, authors: list[str], told: str
) -> None:
    (tmp_path / "there.zip").write_bytes(b"precious")
    job = export_bioimageio(tmp_path / "m.medseg", tmp_path / out, authors=authors)
    with pytest.raises(InputError, match=told):
        finish(job)
    assert (tmp_path / "there.zip").read_bytes() == b"precious"


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["models", "export", *arguments])


def test_the_command_writes_a_package_and_tells_what_is_doubtful(
    spec: Any, tmp_path: Path
) -> None:
    path = make_model(
        tmp_path,
        scores={"held_out": SCORE, "untuned": SCORE},
        licence="LicenseRef-unspecified",
        framing=Framing(tile=64, size=64),
    )
    out = tmp_path / "new" / "m.zip"
    done = run(str(path), "--out", str(out), "--base", base_of(path), "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["file"] == str(out)
    assert told["format"].startswith("bioimage.io model 0.5.")
    with zipfile.ZipFile(out) as package:
        text = package.read("README.md").decode()
    for doubt, warning in zip(
        ("no better than SAM untuned", "licence of the weights", "No author"),
        told["warnings"],
        strict=True,
    ):
        assert doubt in warning
        assert warning in text


def test_a_package_that_is_there_is_replaced_only_when_asked_for(
    tmp_path: Path, spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quick(_: Any, folder: Path) -> Path:
        (folder / "package.zip").write_bytes(b"new")
        return folder / "package.zip"

    monkeypatch.setattr(exchange, "write_network", lambda *_: None)
    monkeypatch.setattr(exchange, "pack", quick)
    monkeypatch.setattr(exchange, "check_package", lambda _: True)
    path, out = make_model(tmp_path), tmp_path / "m.zip"
    out.write_bytes(b"old")
    arguments = [str(path), "--out", str(out), "--base", base_of(path)]
    refused = run(*arguments)
    assert refused.exit_code == 2
    assert "add --overwrite" in refused.stderr
    assert out.read_bytes() == b"old"
    assert run(*arguments, "--overwrite").exit_code == 0
    assert out.read_bytes() == b"new"


def test_without_the_extra_the_command_says_what_to_install(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [each for each in sys.modules if each.startswith("bioimageio")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "bioimageio", None)
    done = run(str(model), "--out", str(tmp_path / "m.zip"))
    assert done.exit_code == 1
    assert "pip install napari-medseg[exchange]" in done.stderr
    assert "Traceback" not in done.output
    assert not (tmp_path / "m.zip").exists()

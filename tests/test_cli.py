"""The commands: what they write, what they say, and how they end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile
import yaml
from bright import label_files
from folders import QUICK, SIZE, assert_refused, command, content, write_pairs

import napari_medseg
from napari_medseg import PromptTuning, load, read_image, read_pairs, train
from napari_medseg.batch import read_ledger
from napari_medseg.batch.ledger import DONE
from napari_medseg.inference import open_segmenter
from napari_medseg.io.images import read_annotation
from napari_medseg.io.model_file import read_card
from napari_medseg.models import bundled
from napari_medseg.models.weights import imported

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = str(Path(napari_medseg.__file__).parents[1])


@dataclass(frozen=True)
class Tuned:
    """A training that was run from the command line."""

    data: Path
    model: Path
    run_file: Path
    report: dict[str, Any]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    root = tmp_path_factory.mktemp("tuned")
    data = write_pairs(root / "data")
    out = root / "cells.medseg"
    result = command("train", *folders_of(data), "--out", out, *QUICK, "--json")
    assert result.exit_code == 0, result.output
    return Tuned(data, out, root / "cells.run.yaml", json.loads(result.stdout))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "data")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def folders_of(data: Path) -> list[Any]:
    """Return the options that name the two folders."""
    return ["--images", data / "images", "--masks", data / "masks"]


def environment() -> dict[str, str]:
    """Return the environment of a process that finds the package."""
    return os.environ | {"PYTHONPATH": SOURCE, "COLUMNS": "200"}


# --- help, and what is imported ---------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "",
        "demo",
        "train",
        "segment",
        "prompt",
        "measure",
        "evaluate",
        "models",
        "models list",
        "models info",
        "models fetch",
        "models import",
    ],
)
def test_every_command_has_help(words: str) -> None:
    result = command(*words.split(), "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout
    assert result.stderr == ""


def test_the_settings_of_a_method_are_options_of_train() -> None:
    text = command("train", "--help").stdout
    for name in ("steps", "minutes", "seed", "encoder-prompts"):
        assert f"--{name}" in text


def test_help_and_lists_import_no_torch() -> None:
    calls = [
        ["--help"],
        ["train", "--help"],
        ["segment", "--help"],
        ["prompt", "--help"],
        ["measure", "--help"],
        ["models", "list"],
        ["models", "info", "nano"],
        ["models", "info", "nuclei-fluo"],
        ["models", "info", "otsu"],
        ["models", "info", "everything:vit_b"],
    ]
    program = (
        "import sys\n"
        "from napari_medseg.cli import main\n"
        f"for call in {calls!r}:\n"
        "    sys.argv = ['napari-medseg', *call]\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as end:\n"
        "        assert not end.code, (call, end.code)\n"
        "    heavy = {'torch', 'napari', 'qtpy'} & set(sys.modules)\n"
        "    assert not heavy, (call, heavy)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_a_bad_argument(tuned: Tuned, data: Path, out: Path) -> None:
    training = ["train", *folders_of(data), "--out", out / "a.medseg"]
    segmenting = ["segment", data / "images", "--out", out / "labels", "--model"]
    for call in (
        [*training, "--method", "ptsma"],
        [*training, "--sam", "nan0"],
        [*segmenting, "nuclei_fluo"],
        [*segmenting, tuned.model, "--base", "nan0"],
        ["models", "info", "vitb"],
        ["models", "fetch", "vitb"],
    ):
        result = command(*call)
        assert result.exit_code == 2, (call, result.output)
        assert "Error: " in result.stderr
    # weights that are not here are no slip of the pen
    assert command(*training, "--sam", "vit_b").exit_code == 1
    assert content(out) == []


def test_a_word_that_is_no_command() -> None:
    assert_refused(command("segmnt"), "segmnt")


def test_the_public_names_are_imported_when_used() -> None:
    for name in napari_medseg.__all__:
        assert getattr(napari_medseg, name).__module__.startswith("napari_medseg.")
    with pytest.raises(AttributeError, match="no attribute 'tain'"):
        _ = napari_medseg.tain


def test_a_config_of_no_method_is_refused(data: Path) -> None:
    pairs = read_pairs(data / "images", data / "masks")
    with pytest.raises(TypeError, match="Tuned is not the config"):
        train(pairs, Tuned(data, data, data, {}))


# --- train ------------------------------------------------------------------------


def test_train_writes_a_model_a_run_file_and_a_report(tuned: Tuned) -> None:
    report = tuned.report
    assert report["parameters"] == 2048
    assert report["seconds"] > 0
    assert report["images"] == 4
    for name in ("held_out", "untuned"):
        assert isinstance(report[name], float)
        assert 0 <= report[name] <= 1
    assert report["held_out_scores"]["images"] == 4
    assert report["model"] == str(tuned.model)
    assert report["run_file"] == str(tuned.run_file)
    assert report["bytes"] == tuned.model.stat().st_size < 20_000
    assert content(tuned.model.parent)[:2] == ["cells.medseg", "cells.run.yaml"]
    assert read_card(tuned.model).kind == "ptsam"


def test_train_tells_people_how_it_went(data: Path, out: Path) -> None:
    result = command("train", *folders_of(data), "--out", out / "a.medseg", *QUICK)
    assert result.exit_code == 0, result.output
    assert "Held-out Dice" in result.stdout
    assert "on 4 images that were not trained on" in result.stdout
    assert "2,048 numbers" in result.stdout
    # 4 steps make no model to trust, and that is said
    assert "Warning" in result.stderr


def test_a_run_file_gives_the_same_bytes(tuned: Tuned, out: Path) -> None:
    again = out / "again.medseg"
    result = command("train", "--config", tuned.run_file, "--out", again)
    assert result.exit_code == 0, result.output
    assert again.read_bytes() == tuned.model.read_bytes()
    written, first = out / "again.run.yaml", tuned.run_file
    assert written.read_bytes() == first.read_bytes()


def test_a_run_file_of_a_run_out_of_time_gives_the_same_bytes(
    data: Path, out: Path
) -> None:
    first, again = out / "first.medseg", out / "again.medseg"
    result = command(
        "train", *folders_of(data), "--out", first, *QUICK, "--minutes", 0, "--json"
    )
    assert result.exit_code == 0, result.output
    run = yaml.safe_load((out / "first.run.yaml").read_text(encoding="utf-8"))
    assert run["config"]["minutes"] is None
    result = command("train", "--config", out / "first.run.yaml", "--out", again)
    assert result.exit_code == 0, result.output
    assert again.read_bytes() == first.read_bytes()


def test_suspect_labels_are_written_with_the_size_of_pixels(
    data: Path, out: Path
) -> None:
    """And a replay gives the same model."""
    for path in sorted((data / "images").iterdir()):
        size = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
        tifffile.imwrite(path, tifffile.imread(path), ome=True, metadata=size)
    noisy = ("--label-noise", "spatial", "--suspects", out / "suspects")
    result = command(
        "train", *folders_of(data), "--out", out / "a.medseg", *QUICK, *noisy, "--json"
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    names = [f"cell {index}" for index in range(4)]
    assert sorted(report["suspects"]) == names
    files = [f"suspects/{name}_suspect.tif" for name in names]
    assert set(files) < set(content(out))
    image = read_image(out / files[0])
    assert image.plane().dtype == np.float32
    assert image.plane().shape == (1, SIZE, SIZE)
    assert 0 <= image.plane().min() < image.plane().max() <= 1
    assert image.scale["X"] == 0.5
    result = command(
        "train", "--config", out / "a.run.yaml", "--out", out / "b.medseg", *noisy[2:]
    )
    assert result.exit_code == 0, result.output
    assert (out / "b.medseg").read_bytes() == (out / "a.medseg").read_bytes()


def test_suspect_labels_take_a_training_that_doubts_them(data: Path, out: Path) -> None:
    words = ("train", *folders_of(data), "--out", out / "a.medseg", *QUICK)
    result = command(*words, "--suspects", out / "suspects")
    assert_refused(result, "--label-noise spatial")
    (out / "file").write_text("x")
    noisy = (*words, "--label-noise", "spatial")
    assert_refused(command(*noisy, "--suspects", out / "file"), "is a file")
    assert_refused(command(*words, "--label-noise", "some"), "none, spatial")


def test_options_win_over_the_run_file(tuned: Tuned, out: Path) -> None:
    model = out / "other.medseg"
    result = command(
        "train", "--config", tuned.run_file, "--out", model, "--seed", 5, "--json"
    )
    assert result.exit_code == 0, result.output
    assert read_card(model).config["seed"] == 5
    assert read_card(model).config["steps"] == 4
    assert model.read_bytes() != tuned.model.read_bytes()


def test_a_run_file_works_from_another_folder(
    data: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nano = Path(napari_medseg.__file__).parent / "weights" / "nano.safetensors"
    shutil.copyfile(nano, data / "own.safetensors")
    monkeypatch.chdir(data)
    options = [*QUICK[:-1], "own.safetensors", "--validate", 0]
    first, again = out / "first.medseg", out / "again.medseg"
    result = command(
        "train", "--images", "images", "--masks", "masks", "--out", first, *options
    )
    assert result.exit_code == 0, result.output
    monkeypatch.chdir(out)
    result = command("train", "--config", "first.run.yaml", "--out", again.name)
    assert result.exit_code == 0, result.output
    assert again.read_bytes() == first.read_bytes()
    # a path says who made a model, so the model file has none
    assert str(data).encode() not in first.read_bytes()


def test_python_and_the_command_line_give_the_same(tuned: Tuned, out: Path) -> None:
    pairs = read_pairs(tuned.data / "images", tuned.data / "masks")
    config = PromptTuning(sam="nano", steps=4, views=1, working_size=128)
    date = str(read_card(tuned.model).provenance["date"])
    segmenter = train(pairs, config, date=date)
    saved = segmenter.save(out / "api.medseg")
    assert saved.read_bytes() == tuned.model.read_bytes()
    labels = out / "labels"
    result = command(
        "segment", tuned.data / "images", "--model", tuned.model, "--out", labels
    )
    assert result.exit_code == 0, result.output
    loaded = load(saved)
    for path in sorted((tuned.data / "images").iterdir()):
        image = read_image(path).plane()
        written = read_annotation(labels / f"{path.stem}.tif").labels
        assert np.array_equal(segmenter.predict(image).labels, written)
        assert np.array_equal(loaded.predict(image).labels, written)


def test_train_twice_in_one_process(tuned: Tuned, data: Path, out: Path) -> None:
    for name in ("a.medseg", "b.medseg"):
        result = command("train", *folders_of(data), "--out", out / name, *QUICK)
        assert result.exit_code == 0, result.output
    same = {(out / name).read_bytes() for name in ("a.medseg", "b.medseg")}
    assert same == {tuned.model.read_bytes()}


@pytest.mark.parametrize("name", ["cells.medseg", "cells.run.yaml"])
def test_nothing_is_replaced_unasked(data: Path, out: Path, name: str) -> None:
    (out / name).write_bytes(b"mine")
    options = [*folders_of(data), "--out", out / "cells.medseg", *QUICK]
    assert_refused(command("train", *options), name, "exists", "--overwrite")
    assert content(out) == [name]
    assert (out / name).read_bytes() == b"mine"
    result = command("train", *options, "--validate", 0, "--overwrite")
    assert result.exit_code == 0, result.output
    assert (out / name).read_bytes() != b"mine"


def test_a_training_that_is_interrupted_leaves_nothing(
    data: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_medseg.training.study.fit", interrupted)
    result = command("train", *folders_of(data), "--out", out / "a.medseg", *QUICK)
    assert result.exit_code == 130
    assert "Stopped" in result.stderr
    assert content(out) == []


# --- train: everything that cannot be done ----------------------------------------


def broken(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], list[Any]]:
    """Return the options of a run file in which something was changed."""

    def options(data: Path) -> list[Any]:
        config = {"sam": "nano", "steps": 4, "views": 1, "working_size": 128}
        run = {
            "images": str(data / "images"),
            "masks": str(data / "masks"),
            "date": "2025-01-01",
            "config": config,
            "format": 1,
        }
        change(run)
        (data / "bad.run.yaml").write_text(yaml.safe_dump(run), encoding="utf-8")
        return ["--config", data / "bad.run.yaml"]

    return options


def text(words: bytes) -> Callable[[Path], list[Any]]:
    """Return the options of a run file of these bytes."""

    def options(data: Path) -> list[Any]:
        (data / "bad.run.yaml").write_bytes(words)
        return ["--config", data / "bad.run.yaml"]

    return options


def given(*more: Any) -> Callable[[Path], list[Any]]:
    """Return the two folders and more options."""
    return lambda data: [*folders_of(data), *QUICK, *more]


def without_masks(data: Path) -> list[Any]:
    shutil.rmtree(data / "masks")
    (data / "masks").mkdir()
    return given()(data)


def masks_of_other_names(data: Path) -> list[Any]:
    for index, path in enumerate(sorted((data / "masks").iterdir())):
        path.rename(path.with_name(f"other {index}.tif"))
    return given()(data)


def a_mask_of_another_size(data: Path) -> list[Any]:
    path = data / "masks" / "cell 2_mask.tif"
    tifffile.imwrite(path, np.ones((SIZE, SIZE - 1), np.uint8))
    return given()(data)


def empty_masks(data: Path) -> list[Any]:
    for path in (data / "masks").iterdir():
        tifffile.imwrite(path, np.zeros((SIZE, SIZE), np.uint8))
    return given()(data)


def a_text_file(data: Path) -> list[Any]:
    (data / "images" / "cell 2.tif").write_text("a shopping list")
    return given()(data)


def a_cut_off_file(data: Path) -> list[Any]:
    path = data / "images" / "cell 2.tif"
    path.write_bytes(path.read_bytes()[:300])
    return given()(data)


def an_empty_file(data: Path) -> list[Any]:
    (data / "masks" / "cell 2_mask.tif").write_bytes(b"")
    return given()(data)


def two_of_one_name(data: Path) -> list[Any]:
    imageio.imwrite(data / "images" / "cell 2.png", np.zeros((SIZE, SIZE), np.uint8))
    return given()(data)


def one_of_two_channels(data: Path) -> list[Any]:
    stains = np.random.default_rng(0).integers(0, 255, (2, SIZE, SIZE), np.uint8)
    tifffile.imwrite(
        data / "images" / "cell 2.tif", stains, imagej=True, metadata={"axes": "CYX"}
    )
    return given()(data)


def a_photograph_for_a_checkpoint(data: Path) -> list[Any]:
    (data / "sam.pth").write_bytes(b"\x89PNG")
    return given("--sam", data / "sam.pth")(data)


BAD_TRAININGS: dict[str, tuple[Callable[[Path], list[Any]], tuple[str, ...]]] = {
    "no images": (lambda data: ["--masks", data / "masks"], ("--images is missing",)),
    "no masks": (lambda data: ["--images", data / "images"], ("--masks is missing",)),
    "images are not there": (given("--images", "nowhere"), ("nowhere",)),
    "masks are not there": (given("--masks", "nowhere"), ("nowhere",)),
    "folder without masks": (without_masks, ("masks", "holds no images")),
    "masks of other names": (masks_of_other_names, ("other 0.tif", "cell 0.tif")),
    "mask of another size": (
        a_mask_of_another_size,
        ("cell 2_mask.tif", "95 × 96", "96 × 96"),
    ),
    "empty masks": (empty_masks, ("cell 0_mask.tif", "is empty (all background)")),
    "text for an image": (a_text_file, ("cell 2.tif",)),
    "cut-off image": (a_cut_off_file, ("cell 2.tif",)),
    "mask of 0 bytes": (an_empty_file, ("cell 2_mask.tif", "0 bytes")),
    "two images of one name": (two_of_one_name, ("cell 2.tif", "cell 2.png")),
    "one of two channels": (one_of_two_channels, ("cell 2.tif", "2 channels")),
    "method": (given("--method", "ptsma"), ("'ptsma'", "Did you mean 'ptsam'?")),
    "annotation": (given("--annotation", "dence"), ("'dence'", "dense")),
    "sam": (given("--sam", "nan0"), ("'nan0'", "Did you mean 'nano'?")),
    "no sam": (given("--sam", ""), ("''", "nano")),
    "weights are not here": (given("--sam", "vit_b"), ("models fetch vit_b",)),
    "no such checkpoint": (given("--sam", "a b.pth"), ("a b.pth does not exist",)),
    "no checkpoint": (a_photograph_for_a_checkpoint, ("sam.pth", "not a checkpoint")),
    "no steps": (given("--steps", 0), ("--steps", "1")),
    "steps in words": (given("--steps", "many"), ("--steps",)),
    "endless seed": (given("--seed", 10**20), ("--seed",)),
    "negative time": (given("--minutes", -1), ("--minutes",)),
    "device": (given("--device", "tpu"), ("'tpu'", "auto, cpu, cuda, mps")),
    "working size": (given("--working-size", 100), ("100", "multiple of 16")),
    "all held out": (given("--validate", 4), ("4 of 4 images",)),
    "unknown option": (given("--stepps", 4), ("--stepps",)),
    "run file is not there": (
        lambda _: ["--config", "none.yaml"],
        ("none.yaml does not exist",),
    ),
    "run file is a folder": (lambda data: ["--config", data], ("data",)),
    "run file is no YAML": (text(b"a: [b"), ("bad.run.yaml", "YAML")),
    "run file is no text": (text(b"\xff\xfe\x00"), ("bad.run.yaml", "YAML")),
    "run file is a list": (text(b"- a"), ("bad.run.yaml", "not a run file")),
    "run file is empty": (text(b""), ("bad.run.yaml", "not a run file")),
    "run file of later": (
        broken(lambda run: run.update(format=2)),
        ("bad.run.yaml", "later version"),
    ),
    "run file: other key": (
        broken(lambda run: run.update(colour="red")),
        ("bad.run.yaml", "not a run file"),
    ),
    "run file: unknown setting": (
        broken(lambda run: run["config"].update(stepps=4)),
        ("bad.run.yaml", "'stepps'", "steps"),
    ),
    "run file: steps in words": (
        broken(lambda run: run["config"].update(steps="many")),
        ("bad.run.yaml", "'many'", "a whole number"),
    ),
    "run file: out of bounds": (
        broken(lambda run: run["config"].update(steps=0)),
        ("bad.run.yaml", "steps is 0"),
    ),
    "run file: list of words": (
        broken(lambda run: run["config"].update(stop_at=["a"])),
        ("bad.run.yaml", "stop_at is 'a'"),
    ),
    "run file: images": (
        broken(lambda run: run.update(images=5)),
        ("bad.run.yaml", "images is 5"),
    ),
    "run file: method": (broken(lambda run: run.update(method="x")), ("'x'",)),
    "run file: ignore": (
        broken(lambda run: run.update(ignore="x")),
        ("bad.run.yaml", "ignore is 'x'"),
    ),
    "run file: images are gone": (
        broken(lambda run: run.update(images="gone")),
        ("gone",),
    ),
}


@pytest.mark.parametrize("case", BAD_TRAININGS)
def test_a_training_that_cannot_be_done_is_refused_in_words(
    data: Path, out: Path, case: str
) -> None:
    options, words = BAD_TRAININGS[case]
    result = command("train", *options(data), "--out", out / "a.medseg")
    assert_refused(result, *words)
    assert content(out) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.pth", ("a.pth", ".medseg")),
        ("a", (".medseg",)),
        ("none/a.medseg", ("none does not exist",)),
        ("folder.medseg", ("folder.medseg", "cannot be written")),
    ],
)
def test_a_model_file_that_cannot_be_written_is_refused_before_any_work(
    out: Path, name: str, words: tuple[str, ...]
) -> None:
    (out / "folder.medseg").mkdir()
    # the images are looked at later: they are not there either
    result = command(
        "train", "--images", "x", "--masks", "x", "--out", out / name, "--overwrite"
    )
    assert_refused(result, *words)
    assert content(out) == []


def test_a_full_disk_is_said_in_words(
    tuned: Tuned, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "a.run.yaml")

    monkeypatch.setattr("napari_medseg.cli.run_file.RunFile.save", full)
    result = command(
        "train", "--config", tuned.run_file, "--out", out / "a.medseg", "--json"
    )
    assert_refused(result, "a.run.yaml", "No space left")
    assert "No space left" in json.loads(result.stdout)["error"]


def test_json_has_the_error_too() -> None:
    result = command("train", "--out", "a.medseg", "--json")
    assert_refused(result, "--images is missing")
    assert "--images is missing" in json.loads(result.stdout)["error"]


# --- names and kinds of images ----------------------------------------------------


def test_spaces_and_letters_of_the_world_in_paths(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "Bilder äöü 細胞", 3)
    for name, ending in (("images", ""), ("masks", "_mask")):
        (root / name / f"cell 0{ending}.tif").rename(
            root / name / f"Zelle ß é {ending}.tif"
        )
    model, labels = root / "Modell 細胞.medseg", root / "Ergebnis ü"
    result = command(
        "train", *folders_of(root), "--out", model, *QUICK, "--validate", 0, "--json"
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["model"] == str(model)
    assert (root / "Modell 細胞.run.yaml").exists()
    result = command(
        "segment", root / "images", "--model", model, "--out", labels, "--json"
    )
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["done"]) == 3
    result = command("evaluate", "--pred", labels, "--truth", root / "masks", "--json")
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["per_image"]) == 3


def hot_pixel(grey: np.ndarray) -> np.ndarray:
    image = grey.astype(np.uint16) * 16
    image[3, 3] = 65535
    return image


def colour(grey: np.ndarray) -> np.ndarray:
    return np.stack([grey, 255 - grey, grey // 2], axis=-1)


def clear_colour(grey: np.ndarray) -> np.ndarray:
    alpha = np.full_like(grey, 200)
    return np.concatenate([colour(grey), alpha[..., None]], axis=-1)


def five_channels(grey: np.ndarray) -> np.ndarray:
    return np.stack([grey, grey // 2, 255 - grey, grey, grey])


KINDS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray], int]] = {
    "16 bits and a hot pixel": (".tif", hot_pixel, 1),
    "RGBA": (".png", clear_colour, 3),
    "colour": (".png", colour, 3),
    "five channels": (".tif", five_channels, 5),
    "channels last": (
        ".npy",
        lambda grey: np.moveaxis(five_channels(grey), 0, -1),
        5,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_every_kind_are_trained_on_and_segmented(
    data: Path, out: Path, kind: str
) -> None:
    suffix, change, channels = KINDS[kind]
    for path in sorted((data / "images").iterdir()):
        image = change(tifffile.imread(path))
        path.unlink()
        target = path.with_suffix(suffix)
        if suffix == ".npy":
            np.save(target, image)
        elif suffix == ".png":
            imageio.imwrite(target, image)
        else:
            tifffile.imwrite(target, image, photometric="minisblack")
    model = out / "a.medseg"
    result = command(
        "train", *folders_of(data), "--out", model, *QUICK, "--validate", 0
    )
    assert result.exit_code == 0, result.output
    result = command("segment", data / "images", "--model", model, "--out", out)
    assert result.exit_code == 0, result.output
    for path in (data / "images").iterdir():
        assert read_image(path).channels == channels
        assert read_annotation(out / f"{path.stem}.tif").labels.shape == (SIZE, SIZE)


# --- segment ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tuned", "otsu", "otsu_dark", "nano"])
def test_a_bad_file_does_not_stop_the_others(
    tuned: Tuned, data: Path, out: Path, name: str
) -> None:
    model = tuned.model if name == "tuned" else name
    (data / "images" / "cell 1.tif").write_text("a shopping list")
    call = ["segment", data / "images", "--model", model, "--out", out, "--json"]
    result = command(*call)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert "Failed:" in result.stderr
    assert "cell 1.tif" in result.stderr
    report = json.loads(result.stdout)
    assert [Path(path).name for path in report["done"]] == [
        "cell 0.tif",
        "cell 2.tif",
        "cell 3.tif",
    ]
    assert [Path(path).name for path in report["failed"]] == ["cell 1.tif"]
    assert label_files(out) == ["cell 0.tif", "cell 2.tif", "cell 3.tif"]
    for name in ("ledger", "report"):
        assert Path(report[name]).is_file()

    before = (out / "cell 0.tif").stat().st_mtime_ns
    shutil.copyfile(data / "images" / "cell 2.tif", data / "images" / "cell 1.tif")
    report = json.loads(command(*call).stdout)
    assert [Path(path).name for path in report["done"]] == ["cell 1.tif"]
    assert len(report["skipped"]) == 3
    assert report["failed"] == {}
    assert (out / "cell 0.tif").stat().st_mtime_ns == before


def test_people_are_told_what_became_of_the_folder(data: Path, out: Path) -> None:
    (data / "images" / "cell 1.tif").write_bytes(b"")
    result = command("segment", data / "images", "--model", "otsu", "--out", out)
    assert result.exit_code == 1
    assert "3 segmented, 0 were there already, 1 failed" in result.stdout
    assert "report.html" in result.stdout
    assert "cell 1.tif" in result.stderr


def test_another_model_is_not_mixed_in(tuned: Tuned, data: Path, out: Path) -> None:
    call = ["segment", data / "images", "--out", out, "--model"]
    assert command(*call, "otsu").exit_code == 0
    before = {name: (out / name).read_bytes() for name in content(out)}
    assert_refused(command(*call, tuned.model), str(out), "another model", "--redo")
    for other in (["--instances"], ["--threshold", 0.7], ["--export", "csv"]):
        result = command(*call, "otsu", *other)
        assert_refused(result, str(out), "other settings", "--redo")
    assert {name: (out / name).read_bytes() for name in content(out)} == before
    assert command(*call, tuned.model, "--redo").exit_code == 0
    assert command(*call, tuned.model).exit_code == 0
    assert_refused(command(*call, "otsu"), "--redo")
    # where it was computed makes no other settings
    assert command(*call, tuned.model, "--device", "cpu").exit_code == 0


def test_two_images_never_become_one_file(data: Path, out: Path) -> None:
    images = data / "images"
    grey = tifffile.imread(images / "cell 0.tif")
    imageio.imwrite(images / "cell 0.png", 255 - grey)
    (images / "day 2").mkdir()
    tifffile.imwrite(images / "day 2" / "cell 0.tif", grey[:50])
    result = command("segment", images, "--model", "otsu", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    assert label_files(out) == [
        "cell 0_png.tif",
        "cell 0_tif.tif",
        "cell 1.tif",
        "cell 2.tif",
        "cell 3.tif",
        "day 2/cell 0.tif",
    ]
    assert read_annotation(out / "day 2" / "cell 0.tif").labels.shape == (50, SIZE)
    one, other = (
        read_annotation(out / f"cell 0_{kind}.tif").labels for kind in ("png", "tif")
    )
    assert not np.array_equal(one, other)


def test_same_names_in_two_folders(data: Path, out: Path) -> None:
    more = write_pairs(data / "more", 1, seed=9) / "images"
    call = ["segment", data / "images", more, "--model", "otsu", "--out", out]
    assert command(*call).exit_code == 0
    assert label_files(out) == [
        *(f"images/cell {index}.tif" for index in range(4)),
        "more/images/cell 0.tif",
    ]
    assert not np.array_equal(
        read_annotation(out / "images" / "cell 0.tif").labels,
        read_annotation(out / "more" / "images" / "cell 0.tif").labels,
    )


def test_a_pattern_that_the_shell_left_as_it_is(data: Path, out: Path) -> None:
    call = ["segment", data / "ima*" / "cell [02].*", "--model", "otsu", "--out", out]
    assert command(*call).exit_code == 0
    assert label_files(out) == ["images/cell 0.tif", "images/cell 2.tif"]
    call[1] = data / "ima*" / "sell*"
    assert_refused(command(*call), "sell*", "No image")


def test_exports_and_probabilities(data: Path, out: Path) -> None:
    call = ["segment", data / "images", "--model", "otsu", "--out", out, "--json"]
    export = ["--export", "csv,geojson,roi, coco,ome-zarr"]
    result = command(*call, "--instances", *export, "--probabilities")
    assert result.exit_code == 0, result.output
    files = json.loads(result.stdout)["files"]
    assert {"objects.csv", "images.csv", "coco.json"} <= set(files)
    assert all((out / name).is_file() for name in files)
    for name in ("cell 0.geojson", "cell 0_rois.zip", "ome-zarr/cell 0.ome.zarr"):
        assert (out / name).exists()
    assert (out / "probabilities" / "cell 0_probabilities.tiff").is_file()
    assert_refused(command(*call, "--export", "csv,xls"), "'xls'", "geojson")


def test_classes_have_settings_too(data: Path, out: Path) -> None:
    call = ["segment", data / "images", "--model", "otsu", "--out"]
    for name, settings in (("plain", ()), ("tidy", ("--min-size", 2000))):
        assert command(*call, out / name, *settings).exit_code == 0
    plain, tidy = (
        read_annotation(out / name / "cell 0.tif").labels for name in ("plain", "tidy")
    )
    assert plain.any()
    assert not tidy.any()


def test_stacks_keep_axes_and_pixel_size(data: Path, out: Path) -> None:
    frames = [tifffile.imread(path) for path in sorted((data / "images").iterdir())]
    path = data / "film.ome.tif"
    tifffile.imwrite(
        path,
        np.stack(frames),
        ome=True,
        photometric="minisblack",
        metadata={
            "axes": "TYX",
            "PhysicalSizeX": 0.25,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": 0.5,
            "PhysicalSizeYUnit": "µm",
            "TimeIncrement": 30.0,
            "TimeIncrementUnit": "s",
        },
    )
    result = command("segment", path, "--model", "otsu", "--out", out)
    assert result.exit_code == 0, result.output
    labels = read_annotation(out / "film.tif")
    assert labels.axes == "TYX"
    assert labels.labels.shape == (4, SIZE, SIZE)
    assert labels.scale == {"T": 30.0, "Y": 0.5, "X": 0.25}
    assert labels.units == {"T": "s", "Y": "µm", "X": "µm"}
    command("segment", data / "images", "--model", "otsu", "--out", out / "single")
    for index in range(4):
        single = read_annotation(out / "single" / f"cell {index}.tif").labels
        assert np.array_equal(labels.labels[index], single)


def test_instances_are_numbered_objects(data: Path, out: Path) -> None:
    call = ["segment", data / "images", "--model", "otsu", "--instances"]
    result = command(*call, "--out", out / "objects", "--min-size", 4)
    assert result.exit_code == 0, result.output
    command(*call, "--out", out / "large", "--min-size", 10_000)
    for index in range(4):
        labels = read_annotation(out / "objects" / f"cell {index}.tif").labels
        ids = np.unique(labels)
        assert len(ids) > 3
        assert np.array_equal(ids, np.arange(len(ids)))
        assert read_annotation(out / "large" / f"cell {index}.tif").labels.max() == 0


@pytest.fixture
def few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let SAM be asked at a few points only, which takes less time."""
    from napari_medseg.models import everything
    from napari_medseg.models.everything_settings import EverythingConfig

    few = EverythingConfig(points_per_side=5, pred_iou=0.3, stability=0.5)
    monkeypatch.setattr(everything, "usual_settings", lambda kind: few)


@pytest.mark.usefixtures("few_points")
def test_all_that_sam_finds(data: Path, out: Path) -> None:
    call = ["segment", data / "images" / "cell 0.tif", "--model", "everything"]
    result = command(*call, "--instances", "--out", out / "objects")
    assert result.exit_code == 0, result.output
    objects = read_annotation(out / "objects" / "cell 0.tif").labels
    assert objects.max() > 1
    assert np.array_equal(np.unique(objects), np.arange(objects.max() + 1))
    result = command(*call, "--out", out / "classes")
    assert result.exit_code == 0, result.output
    classes = read_annotation(out / "classes" / "cell 0.tif").labels
    assert set(np.unique(classes)) == {0, 1}
    assert (classes[objects > 0] == 1).all()
    options = ["--instances", "--min-size", 10_000, "--neck", 0.5]
    result = command(*call, *options, "--out", out / "large")
    assert "--neck changes nothing" in result.stderr
    assert "--min-size changes" not in result.stderr
    assert read_annotation(out / "large" / "cell 0.tif").labels.max() == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--model", "otsoo"), ("'otsoo'", "otsu")),
        (("--model", "none.medseg"), ("none.medseg does not exist",)),
        (("--model", "damaged.medseg"), ("damaged.medseg",)),
        (("--model", "cut.medseg"), ("cut.medseg",)),
        (("--model", "vit_b"), ("models fetch vit_b",)),
        (("--model", "everything:vit_b"), ("models fetch vit_b",)),
        (("--model", "everything:vitb"), ("Did you mean 'vit_b'?",)),
        (("--model", "otsu", "--split", "knife"), ("--split", "--instances")),
        (
            ("--model", "otsu", "--instances", "--split", "knife"),
            ("'knife'", "watershed"),
        ),
        (("--model", "otsu", "--threshold", "2", "--instances"), ("--threshold",)),
        (("--model", "otsu", "--neck", "0.7"), ("--neck", "--instances")),
        (
            ("--model", "otsu", "--workers", "2", "--cluster", "tcp://here:1"),
            ("--workers", "--cluster"),
        ),
        (("--model", "nano", "--device", "tpu"), ("tpu",)),
    ],
)
def test_a_segmentation_that_cannot_be_done_is_refused_in_words(
    tuned: Tuned,
    data: Path,
    out: Path,
    options: tuple[str, ...],
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(data)
    whole = tuned.model.read_bytes()
    (data / "damaged.medseg").write_bytes(whole[:-4] + b"abcd")
    (data / "cut.medseg").write_bytes(whole[:5000])
    result = command("segment", data / "images", "--out", out, *options)
    assert_refused(result, *words)
    assert content(out) == []


def test_an_input_that_is_not_there(out: Path) -> None:
    result = command("segment", "nowhere", "--model", "otsu", "--out", out)
    assert_refused(result, "nowhere does not exist")
    assert content(out) == []
    result = command("segment", out, "--model", "otsu", "--out", out / "labels")
    assert_refused(result, "no image")


def test_a_model_for_colours_on_grey_images_and_on_two_channels(
    data: Path, out: Path
) -> None:
    for path in sorted((data / "images").iterdir()):
        imageio.imwrite(path.with_suffix(".png"), colour(tifffile.imread(path)))
        path.unlink()
    model = out / "a.medseg"
    command("train", *folders_of(data), "--out", model, *QUICK, "--validate", 0)
    imageio.imwrite(data / "images" / "grey.png", np.zeros((40, 40), np.uint8))
    stains = np.zeros((2, 40, 40), np.uint8)
    tifffile.imwrite(
        data / "images" / "two.tif", stains, imagej=True, metadata={"axes": "CYX"}
    )
    result = command(
        "segment", data / "images", "--model", model, "--out", out / "labels", "--json"
    )
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert "grey.png" in {Path(name).name for name in report["done"]}
    assert len(report["done"]) == 5
    ((name, reason),) = report["failed"].items()
    assert Path(name).name == "two.tif"
    assert "channel" in reason
    assert "two.tif" in result.stderr


def test_a_run_that_is_killed_is_taken_up_again(tmp_path: Path) -> None:
    images, out, whole = (tmp_path / name for name in ("images", "out", "whole"))
    images.mkdir()
    rng = np.random.default_rng(0)
    count = 12
    for index in range(count):
        noise = rng.integers(0, 255, (400, 400), np.uint8)
        tifffile.imwrite(images / f"{index:02d}.tif", noise)
    call = ["segment", images, "--model", "otsu", "--instances", "--out"]
    process = subprocess.Popen(
        [sys.executable, "-m", "napari_medseg", *map(str, call), str(out)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 120
        while not list(out.glob("[0-9]*.tif")) and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.002)
    finally:
        process.kill()
        process.wait()
    found = sorted(path.name for path in out.glob("[0-9]*.tif"))
    assert 0 < len(found) < count
    noted = ledger_states(out)
    whole_ones = sorted(f"{name}.tif" for name, state in noted.items() if state == DONE)
    # what was written, but not noted, is not taken for done
    assert set(whole_ones) <= set(found)
    before = {name: (out / name).read_bytes() for name in whole_ones}
    result = command(*call, out, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert sorted(Path(path).name for path in report["skipped"]) == whole_ones
    assert len(report["done"]) == count - len(whole_ones)
    assert all((out / name).read_bytes() == data for name, data in before.items())
    assert set(ledger_states(out).values()) == {DONE}
    assert not list(out.rglob(".*.part*"))
    assert command(*call, whole).exit_code == 0
    for index in range(count):
        resumed, uninterrupted = (
            read_annotation(folder / f"{index:02d}.tif").labels
            for folder in (out, whole)
        )
        assert np.array_equal(resumed, uninterrupted)


def ledger_states(out: Path) -> dict[str, str]:
    """Return what the ledger says of each image."""
    with read_ledger(out) as ledger:
        return {row.name: row.state for row in ledger.rows()}


def test_the_program_as_a_process(data: Path, out: Path) -> None:
    (data / "images" / "cell 1.tif").write_bytes(b"II*\0 and no more")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "napari_medseg", "segment", str(data / "images")),
            *("--model", "otsu", "--out", str(out), "--json"),
        ],
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 1
    assert len(json.loads(done.stdout)["done"]) == 3
    # one line for the bad file, nothing of what readers log
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("Failed: ")


# --- evaluate ---------------------------------------------------------------------


def test_evaluate(data: Path, out: Path) -> None:
    call = ["evaluate", "--pred", out, "--truth", data / "masks"]
    command("segment", data / "images", "--model", "otsu", "--out", out)
    result = command(*call, "--json")
    assert result.exit_code == 0, result.output
    scores = json.loads(result.stdout)
    assert set(scores["per_image"]) == {f"cell {index}" for index in range(4)}
    names = {"dice", "iou", "hd95", "boundary_f"}
    assert names <= set(scores["mean"])
    for row in scores["per_image"].values():
        assert names <= set(row)
    dice = [row["dice"] for row in scores["per_image"].values()]
    assert scores["mean"]["dice"] == pytest.approx(np.mean(dice))
    shown = command(*call).stdout
    assert f"{scores['mean']['dice']:.3f}" in shown
    objects = json.loads(command(*call, "--instances", "--json").stdout)
    assert {"ap50", "ap75", "pq"} <= set(objects["mean"])


def test_evaluate_ends_by_what_went_wrong(data: Path, out: Path) -> None:
    call = ["evaluate", "--pred", out, "--truth", data / "masks"]
    assert_refused(command(*call), str(out))
    assert_refused(command(*call[:-1], "nowhere"), "nowhere does not exist")
    command("segment", data / "images", "--model", "otsu", "--out", out)
    (out / "cell 1.tif").write_bytes(b"half")
    (out / "cell 3.tif").unlink()
    result = command(*call, "--json")
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert set(json.loads(result.stdout)["per_image"]) == {"cell 0", "cell 2"}
    assert "Failed:" in result.stderr
    assert "cell 1.tif" in result.stderr
    assert "cell 3_mask.tif has no partner" in result.stderr


def test_evaluate_of_a_few_does_not_list_all_the_others(tmp_path: Path) -> None:
    for folder, names in (("pred", "a"), ("truth", "abcdefgh")):
        (tmp_path / folder).mkdir()
        for name in names:
            tifffile.imwrite(tmp_path / folder / f"{name}.tif", np.eye(32, dtype="u1"))
    call = ["evaluate", "--pred", tmp_path / "pred", "--truth", tmp_path / "truth"]
    result = command(*call)
    assert result.exit_code == 0
    assert result.stderr.count("Note:") == 4
    assert "4 more" in result.stderr
    assert len(json.loads(command(*call, "--json").stdout)["unmatched"]) == 7


# --- models -----------------------------------------------------------------------


def test_models_list(tmp_path: Path) -> None:
    rows = json.loads(command("models", "list", "--json").stdout)
    by_name = {row["name"]: row for row in rows}
    assert {"nano", "vit_b", "vit_l", "vit_h", "otsu", "ptsam"} <= set(by_name)
    # by the SAMs that are here
    assert by_name["everything"]["here"] is True
    assert "everything:vit_b" not in by_name
    assert by_name["nano"]["here"] is True
    assert by_name["vit_b"]["here"] is False
    assert all(row["description"] and row["kind"] for row in rows)
    assert "nano" in command("models", "list").stdout


def test_models_info_of_a_name() -> None:
    facts = json.loads(command("models", "info", "vit_b", "--json").stdout)
    assert facts["licence"] == "Apache-2.0"
    assert facts["file"] is None
    assert len(facts["sha256"]) == 64
    facts = json.loads(command("models", "info", "nano", "--json").stdout)
    assert Path(facts["file"]).is_file()
    assert "licence" in command("models", "info", "nano").stdout


def test_all_that_is_listed_is_described() -> None:
    for row in json.loads(command("models", "list", "--json").stdout):
        result = command("models", "info", row["name"], "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["description"] == row["description"]


@pytest.fixture
def shelf(tuned: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in for the package's own folder, with one of the tuned models in it."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    nano = "nano.safetensors"
    shutil.copyfile(bundled.place(nano), folder / nano)
    shutil.copyfile(tuned.model, folder / "nuclei-fluo.medseg")
    monkeypatch.setattr(bundled, "FOLDER", folder)
    return folder


def test_models_list_says_which_tuned_models_are_here(shelf: Path) -> None:
    rows = json.loads(command("models", "list", "--json").stdout)
    tuned = {row["name"]: row for row in rows if row["kind"] == "segmenter (tuned)"}
    assert {name: row["here"] for name, row in tuned.items()} == {
        "nuclei-fluo": True,
        "nuclei-histo": False,
        "cells-phase": False,
        "outline-phase": False,
    }
    assert "DAPI" in tuned["nuclei-fluo"]["description"]
    networks = [row for row in rows if row["kind"] == "segmenter (trained)"]
    assert [row["name"] for row in networks] == ["med2d-nuclei", "med2d-phase"]


def test_models_info_of_a_tuned_model(shelf: Path, tuned: Tuned) -> None:
    facts = json.loads(command("models", "info", "nuclei-fluo", "--json").stdout)
    assert facts["name"] == "nuclei-fluo"
    assert facts["file"] == str(shelf / "nuclei-fluo.medseg")
    assert "DAPI" in facts["description"]
    card = json.loads(command("models", "info", tuned.model, "--json").stdout)
    assert card["licence"] == "BSD-3-Clause" and card["scores"]["held_out"]
    assert card.items() <= facts.items()
    shown = command("models", "info", "nuclei-fluo").stdout
    assert "licence: BSD-3-Clause" in shown and "held_out" in shown
    facts = json.loads(command("models", "info", "cells-phase", "--json").stdout)
    assert set(facts) == {"name", "title", "description", "file"}
    assert facts["file"] is None


def test_segment_by_a_tuned_model_of_the_package(
    shelf: Path, tuned: Tuned, data: Path, out: Path
) -> None:
    call = ["segment", data / "images" / "cell 0.tif", "--model"]
    result = command(*call, "nuclei-fluo", "--out", out / "named")
    assert result.exit_code == 0, result.output
    assert command(*call, tuned.model, "--out", out / "file").exit_code == 0
    named, file = (
        read_annotation(out / name / "cell 0.tif").labels for name in ("named", "file")
    )
    assert np.array_equal(named, file)
    result = command(*call, "cells-phase", "--out", out / "missing")
    assert_refused(result, "cells-phase.medseg is missing", "install napari-medseg")
    assert not (out / "missing").exists()


def test_segment_by_mirrored_views(tuned: Tuned, data: Path, out: Path) -> None:
    path = data / "images" / "cell 0.tif"
    call = ["segment", path, "--model", tuned.model, "--out", out / "labels"]
    result = command(*call, "--mirrored")
    assert result.exit_code == 0, result.output
    found = read_annotation(out / "labels" / "cell 0.tif").labels
    segmenter = open_segmenter(str(tuned.model), mirrored=True)
    wanted = segmenter.predict(read_image(path).plane()).labels
    assert np.array_equal(found, wanted)
    # plain views are another run, which does not mix with this one
    assert_refused(command(*call), "made by other settings", "--redo")
    assert_refused(
        command("segment", path, "--model", "otsu", "--out", out, "--mirrored"),
        "otsu cannot see images mirrored",
    )


def test_models_info_of_a_file(tuned: Tuned) -> None:
    facts = json.loads(command("models", "info", tuned.model, "--json").stdout)
    assert facts["kind"] == "ptsam"
    assert facts["base"]["name"] == "nano"
    assert [entry["name"] for entry in facts["classes"]] == ["background", "object"]
    assert facts["scores"]["held_out"]["images"] == 4
    assert "ptsam" in command("models", "info", tuned.model).stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vitb", ("'vitb'", "Did you mean 'vit_b'?")),
        ("everythin", ("Did you mean 'everything'?",)),
        ("everything:vitb", ("Did you mean 'everything",)),
        ("nuclei_fluo", ("'nuclei_fluo'", "Did you mean 'nuclei-fluo'?")),
        ("none.medseg", ("none.medseg does not exist",)),
        ("bad.medseg", ("bad.medseg", "not a model file")),
    ],
)
def test_models_info_of_what_is_not_there(
    out: Path, name: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(out)
    (out / "bad.medseg").write_text("a shopping list, longer than eight letters")
    assert_refused(command("models", "info", name), *words)
    result = command("models", "info", name, "--json")
    assert words[0] in json.loads(result.stdout)["error"]


def test_models_import(out: Path, data: Path) -> None:
    nano = Path(napari_medseg.__file__).parent / "weights" / "nano.safetensors"
    shutil.copyfile(nano, out / "mine.safetensors")
    call = ["models", "import", out / "mine.safetensors"]
    result = command(*call, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["name"] == "mine"
    rows = json.loads(command("models", "list", "--json").stdout)
    assert {"mine", "everything:mine"} <= {row["name"] for row in rows}
    facts = json.loads(command("models", "info", "mine", "--json").stdout)
    assert Path(facts["file"]).read_bytes() == nano.read_bytes()
    result = command("segment", data / "images", "--model", "mine", "--out", out / "o")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (("bad.pth", "not a checkpoint"), ("bad.pth",)),
        (("none.pth does not exist",), ("none.pth",)),
        (("vit_b", "not the published"), ("bad.pth", "--name", "vit_b")),
        (("'a/b'", "cannot be the name"), ("bad.pth", "--name", "a/b")),
        (("'nuclei-fluo'", "cannot be"), ("bad.pth", "--name", "nuclei-fluo")),
        (("'everything'", "cannot be"), ("bad.pth", "--name", "everything")),
    ],
)
def test_models_import_of_what_is_no_checkpoint(
    out: Path,
    words: tuple[str, ...],
    options: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(out)
    (out / "bad.pth").write_text("a shopping list")
    assert_refused(command("models", "import", *options), *words)
    assert imported() == {}


def test_models_fetch_of_what_is_not_there() -> None:
    assert_refused(command("models", "fetch", "vitb"), "'vit_b'")

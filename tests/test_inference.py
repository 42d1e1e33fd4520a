"""Prediction: any image, one result, and a way on when memory runs out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from networks import save_nano

from napari_medseg import api
from napari_medseg._config import to_dict
from napari_medseg._types import (
    InputError,
    JobError,
    MedsegError,
    ModelFileError,
    Progress,
    WeightsError,
    default_classes,
)
from napari_medseg.inference import Segmenter, load, open_segmenter
from napari_medseg.io.model_file import ModelCard, ModelFile, read_card
from napari_medseg.io.normalise import Normalisation, normalise
from napari_medseg.models import bundled
from napari_medseg.models.backbone import load_backbone
from napari_medseg.models.everything import Everything
from napari_medseg.models.framing import Framing
from napari_medseg.models.importing import import_file
from napari_medseg.models.methods import METHODS, MethodEntry
from napari_medseg.models.registry import SPECIALISTS
from napari_medseg.models.sam import PIXEL_MEAN, PIXEL_STD
from napari_medseg.training.conduct import Conduct
from napari_medseg.windowed import Plan, predict_probabilities

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CPU = torch.device("cpu")
GREY = Normalisation()
SHARPNESS = 8.0
SIZES = [(1, 1), (1, 500), (500, 1), (37, 53), (128, 128), (700, 300)]


def brightness(windows: torch.Tensor) -> torch.Tensor:
    """Return logits of background (0) and of whatever is bright."""
    values = (windows[:, 0] * PIXEL_STD[0] + PIXEL_MEAN[0]) / 255
    logits = SHARPNESS * (values - 0.5)
    return torch.stack([torch.zeros_like(logits), logits], dim=1)


def expected(image: np.ndarray, normalisation: Normalisation = GREY) -> np.ndarray:
    """Return the probability of "bright" that `brightness` stands for."""
    logits = SHARPNESS * (normalise(image, normalisation)[0] - 0.5)
    return 1 / (1 + np.exp(-logits))


def picture(height: int, width: int, channels: int = 1) -> np.ndarray:
    """Return a smooth image with values far from 0 to 1."""
    y, x = np.mgrid[:height, :width].astype(np.float32) / 40
    each = [np.sin(y + index) * np.cos(x) + x / 3 for index in range(channels)]
    return (1000 + 300 * np.stack(each)).astype(np.float32)


def plan(size: int = 128, tile: int | None = None, batch: int = 4) -> Plan:
    return Plan(Framing(tile=tile or size, size=size), batch, CPU)


# --- images of any size


@pytest.mark.parametrize("shape", SIZES)
def test_every_pixel_gets_its_probabilities(shape: tuple[int, int]) -> None:
    image = picture(*shape)
    before = image.copy()
    found, note = predict_probabilities(image, brightness, GREY, plan())
    assert found.shape == (2, *shape) and found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(found[1], expected(image), atol=1e-4)
    np.testing.assert_array_equal(image, before)
    assert note == ""


@pytest.mark.parametrize("tile", [64, 200])
@pytest.mark.parametrize("shape", [(1, 1), (37, 53), (300, 210)])
def test_magnified_windows_give_the_same(shape: tuple[int, int], tile: int) -> None:
    image = picture(*shape)
    found, _ = predict_probabilities(image, brightness, GREY, plan(128, tile))
    np.testing.assert_allclose(found[1], expected(image), atol=0.03)


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_the_batch_makes_no_difference(batch: int) -> None:
    image = picture(200, 150)
    found, _ = predict_probabilities(image, brightness, GREY, plan(64, batch=batch))
    one, _ = predict_probabilities(image, brightness, GREY, plan(64, batch=1))
    np.testing.assert_array_equal(found, one)


def test_coarse_logits_of_several_classes_are_brought_to_full_size() -> None:
    def network(windows: torch.Tensor) -> torch.Tensor:
        small = torch.nn.functional.avg_pool2d(brightness(windows), 4)
        return torch.cat([small, small[:, 1:] - 1], dim=1).bfloat16()

    image = picture(160, 90)
    found, _ = predict_probabilities(image, network, GREY, plan(64))
    assert found.shape == (3, 160, 90) and found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)
    inside = (slice(4, -4), slice(4, -4))
    ratio = (found[1] / (found[0] + found[1]))[inside]
    np.testing.assert_allclose(ratio, expected(image)[inside], atol=0.05)


def test_a_window_is_scaled_by_the_limits_of_the_whole_image() -> None:
    # dark on the left, bright on the right, and a little structure on both sides
    image = np.zeros((1, 64, 256), np.float32)
    image[..., 128:] = 1000
    image[..., ::2, :] += 10
    seen: list[torch.Tensor] = []

    def network(windows: torch.Tensor) -> torch.Tensor:
        logits = brightness(windows)
        seen.extend(logits[:, 1] / SHARPNESS + 0.5)
        return logits

    found, _ = predict_probabilities(image, network, GREY, plan(64))
    assert len(seen) > 2 and seen[0].max() < 0.02 and seen[-1].min() > 0.98
    np.testing.assert_allclose(found[1], expected(image), atol=1e-4)


def test_the_channels_are_those_of_the_model() -> None:
    image = picture(80, 60, channels=3)
    second = Normalisation(channels=(1, 0, 2))
    found, _ = predict_probabilities(image, brightness, second, plan(64))
    np.testing.assert_allclose(found[1], expected(image, second), atol=1e-4)
    with pytest.raises(InputError, match="uses channel 3, but this image has 1"):
        predict_probabilities(image[:1], brightness, second, plan(64))
    with pytest.raises(InputError, match=r"\(C, Y, X\) is needed"):
        predict_probabilities(image[0], brightness, second, plan(64))


@pytest.mark.parametrize("value", [0.0, -7.0, 1e30, np.nan, np.inf, -np.inf])
def test_a_constant_image_is_no_problem(value: float) -> None:
    image = np.full((1, 90, 70), value, np.float32)
    found, _ = predict_probabilities(image, brightness, GREY, plan(64))
    np.testing.assert_allclose(found[1], expected(image), atol=1e-4)


def test_missing_pixels_are_dark_and_harm_no_other() -> None:
    image = picture(90, 70)
    whole, _ = predict_probabilities(image, brightness, GREY, plan(64))
    image[0, 40:45, 30:35] = np.nan
    image[0, 0, 0] = np.inf
    found, _ = predict_probabilities(image, brightness, GREY, plan(64))
    assert (found[1, 40:45, 30:35] < 0.02).all() and found[1, 0, 0] > 0.98
    far = (slice(None), slice(50, None), slice(None))
    np.testing.assert_allclose(found[far], whole[far], atol=0.02)


# --- mirrored views


def lopsided(windows: torch.Tensor) -> torch.Tensor:
    """`brightness`, but the more certain, the farther down and to the right."""
    height, width = windows.shape[2:]
    down = torch.linspace(-1, 1, height)[:, None]
    across = torch.linspace(-2, 2, width)
    logits = brightness(windows)
    logits[:, 1] += down + across
    return logits


@pytest.mark.parametrize("shape", [(64, 64), (37, 53), (150, 100)])
def test_mirrored_views_are_the_mean_over_four_mirrored_images(
    shape: tuple[int, int],
) -> None:
    image = picture(*shape)
    whole = plan(64, max(shape))
    found, _ = predict_probabilities(
        image, lopsided, GREY, replace(whole, mirrored=True)
    )
    views = []
    for axes in ((), (1,), (2,), (1, 2)):
        seen = np.flip(image, axes).copy()
        view, _ = predict_probabilities(seen, lopsided, GREY, whole)
        views.append(np.flip(view, axes))
    wanted = np.mean(views, axis=0)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    one, _ = predict_probabilities(image, lopsided, GREY, whole)
    truth = expected(image)
    assert abs(found[1] - truth).max() < abs(one[1] - truth).max()


def test_mirrored_views_stay_where_memory_ran_out() -> None:
    image = picture(150, 100)
    start = replace(plan(256, batch=2), device=torch.device("meta"), mirrored=True)
    network = Failing(3)
    _, note = predict_probabilities(image, network, GREY, start)
    assert [device for _, _, device in network.tried].count("cpu") == 4
    assert "processor was used" in note


# --- when memory runs out

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 GB"),
    MemoryError(),
]


@dataclass
class Failing:
    """`brightness`, but the first times memory runs out."""

    failures: int
    error: BaseException = OUT_OF_MEMORY[0]
    tried: list[tuple[int, int, str]] = field(default_factory=list)

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        count, _, size, _ = windows.shape
        self.tried.append((count, size, windows.device.type))
        if len(self.tried) <= self.failures:
            raise self.error
        return brightness(windows)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "cpu", "python"])
@pytest.mark.parametrize("failures", [1, 2])
def test_batches_become_smaller_first(failures: int, error: BaseException) -> None:
    image = picture(300, 300)
    network = Failing(failures, error)
    found, note = predict_probabilities(image, network, GREY, plan())
    assert network.tried[:3] == [
        (4, 128, "cpu"),
        (2, 128, "cpu"),
        (2 if failures == 1 else 1, 128, "cpu"),
    ]
    np.testing.assert_allclose(found[1], expected(image), atol=1e-4)
    assert note == ""


def test_windows_become_smaller_next_at_the_same_magnification() -> None:
    image = picture(300, 300)
    network = Failing(2)
    start = plan(size=512, tile=256, batch=1)
    found, note = predict_probabilities(image, network, GREY, start)
    assert [size for _, size, _ in network.tried[:3]] == [512, 256, 128]
    # windows of 64 pixels, as 128 are to 512 what 64 are to 256
    boxes = Framing(tile=64, size=128).boxes((300, 300))
    assert len(network.tried) == 2 + len(boxes)
    np.testing.assert_allclose(found[1], expected(image), atol=0.03)
    assert "smaller windows" in note


def test_the_processor_comes_last_and_sees_whole_windows_again() -> None:
    image = picture(150, 100)
    # no such device is needed: the meta device holds no numbers to predict with
    start = replace(plan(size=256, batch=2), device=torch.device("meta"))
    network = Failing(3)
    found, note = predict_probabilities(image, network, GREY, start)
    assert network.tried == [
        (1, 256, "meta"),  # a batch of at most two, but there is one window
        (1, 256, "meta"),
        (1, 128, "meta"),
        (1, 256, "cpu"),
    ]
    np.testing.assert_allclose(found[1], expected(image), atol=1e-4)
    assert "processor was used" in note


def test_the_plans_end() -> None:
    start = Plan(Framing(tile=100, size=512), 8, torch.device("cuda"))
    plans = [start]
    while (following := plans[-1].smaller()) is not None:
        plans.append(following)
    shown = [(p.batch, p.framing.size, p.framing.tile, p.device.type) for p in plans]
    assert shown == [
        (8, 512, 100, "cuda"),
        (4, 512, 100, "cuda"),
        (2, 512, 100, "cuda"),
        (1, 512, 100, "cuda"),
        (1, 256, 50, "cuda"),
        (1, 128, 25, "cuda"),
        (1, 512, 100, "cpu"),
        (1, 256, 50, "cpu"),
        (1, 128, 25, "cpu"),
    ]
    assert all(bool(p.note) == (index > 3) for index, p in enumerate(plans))
    for size in (96, 160, 224, 1024):
        following = Plan(Framing(tile=size, size=size), 1, CPU).smaller()
        if size < 256:
            assert following is None
        else:
            assert following is not None and following.framing.size % 32 == 0


def test_when_nothing_is_left_the_job_fails_with_a_sentence() -> None:
    network = Failing(100)
    with pytest.raises(JobError, match="Memory ran out on an image of 30 × 20 pixels"):
        predict_probabilities(picture(30, 20), network, GREY, plan(256, batch=2))
    assert [size for _, size, _ in network.tried] == [256, 256, 128]


@pytest.mark.parametrize(
    "error",
    [RuntimeError("The size of tensor a (3) must match"), ValueError("a mistake")],
)
def test_another_error_is_not_taken_for_want_of_memory(error: Exception) -> None:
    network = Failing(1, error)
    with pytest.raises(type(error), match=str(error)[:10]):
        predict_probabilities(picture(30, 20), network, GREY, plan())
    assert len(network.tried) == 1


# --- a trained model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_nano(tmp_path_factory.mktemp("checkpoint") / "mine.pth")


@pytest.fixture(scope="module")
def model_file(checkpoint: Path) -> ModelFile:
    backbone = load_backbone(str(checkpoint))
    card = ModelCard(
        kind="ptsam",
        title="Kerne",
        classes=default_classes(3),
        normalisation=to_dict(GREY),
        base=backbone.card(),
        framing=to_dict(Framing(tile=64, size=128)),
    )
    rng = np.random.default_rng(0)
    prompts = rng.normal(size=(2, 8, 256)).astype(np.float32)
    return ModelFile(card, {"decoder_prompts": prompts})


def test_a_sam_by_name_is_the_checkpoint_that_is_given(checkpoint: Path) -> None:
    segmenter = open_segmenter("vit_b", "cpu", str(checkpoint))
    assert isinstance(segmenter, Segmenter)
    assert segmenter.model_file.card.base == load_backbone(str(checkpoint)).card()


def test_a_phrase_may_be_longer_than_the_name_of_a_file() -> None:
    # the weights are not here, or the extra is not: both are sentences of their own
    with pytest.raises(MedsegError):
        open_segmenter(f"phrase:{'a very long phrase ' * 30}", "cpu")


def test_a_saved_model_predicts_the_same_bit_for_bit(
    model_file: ModelFile, checkpoint: Path, tmp_path: Path
) -> None:
    segmenter = Segmenter(model_file, "cpu", str(checkpoint))
    image = picture(90, 60)
    before = segmenter.predict(image)
    assert before.probabilities.shape == (3, 90, 60)
    assert before.classes == segmenter.classes == default_classes(3)
    assert before.labels.dtype == np.int32 and before.note == ""
    np.testing.assert_allclose(before.probabilities.sum(axis=0), 1, atol=1e-5)
    # pressing the button again gives no other result
    np.testing.assert_array_equal(
        segmenter.predict(image).probabilities, before.probabilities
    )
    path = segmenter.save(tmp_path / "kerne.medseg")
    # the base is remembered from its last use
    again = load(path, "cpu")
    assert again.identity == segmenter.identity
    assert again.model_file.card == model_file.card
    np.testing.assert_array_equal(
        again.predict(image).probabilities, before.probabilities
    )


def test_the_prediction_is_what_the_network_says(
    model_file: ModelFile, checkpoint: Path
) -> None:
    segmenter = Segmenter(model_file, "cpu", str(checkpoint))
    image = picture(64, 64)
    framing = Framing(tile=64, size=128)
    (box,) = framing.boxes((64, 64))
    window = framing.window(normalise(image, GREY), box)[None]
    with torch.inference_mode():
        logits = segmenter.network(window)
    probabilities = framing.unwindow(logits[0], box).softmax(dim=0).numpy()
    found = segmenter.predict(image).probabilities
    # the segmenter computes in bfloat16 where the processor does
    np.testing.assert_allclose(found, probabilities, atol=0.1)
    assert (found.argmax(0) == probabilities.argmax(0)).mean() > 0.95


def test_a_model_of_an_unknown_kind_is_refused(model_file: ModelFile) -> None:
    card = replace(model_file.card, kind="later")
    with pytest.raises(ModelFileError, match=r"kind 'later'.* Update napari-medseg"):
        Segmenter(ModelFile(card, model_file.tensors), "cpu")


@pytest.mark.parametrize(
    ("field_name", "values"),
    [
        ("framing", {"tile": 0}),
        ("framing", {"zoom": 2}),
        ("framing", {"size": 100}),
        ("normalisation", {"channels": [0, 1]}),
        ("normalisation", {"lower": "dark"}),
    ],
)
def test_a_card_that_makes_no_sense_is_refused(
    field_name: str, values: dict[str, object], model_file: ModelFile
) -> None:
    card = replace(model_file.card, **{field_name: values})
    with pytest.raises((InputError, ModelFileError)):
        Segmenter(ModelFile(card, model_file.tensors), "cpu")


# --- any segmenter by name


@pytest.mark.parametrize("name", ["otsu", "otsu_dark"])
def test_a_classical_segmenter_is_opened_by_name(name: str) -> None:
    image = np.zeros((1, 40, 40), np.float32)
    image[:, 10:20, 10:20] = 9
    segmenter = open_segmenter(name)
    objects = image[0] > 0 if name == "otsu" else image[0] == 0
    np.testing.assert_array_equal(segmenter.predict(image).labels, objects)
    assert segmenter.identity == name


def test_an_untuned_sam_is_opened_by_name(checkpoint: Path) -> None:
    import_file(checkpoint, "kidney")
    segmenter = open_segmenter("kidney", "cpu")
    assert isinstance(segmenter, Segmenter)
    assert segmenter.model_file.tensors["decoder_prompts"].size == 0
    assert "untuned" in segmenter.model_file.card.title
    assert segmenter.plan.framing == Framing(tile=512, size=512)
    assert segmenter.predict(picture(40, 30)).probabilities.shape == (2, 40, 30)


def test_all_objects_are_asked_of_any_sam(checkpoint: Path) -> None:
    import_file(checkpoint, "kidney")
    named = open_segmenter("everything:kidney", "cpu")
    assert isinstance(named, Everything)
    assert named.backbone.name == "kidney"
    given = open_segmenter("everything", "cpu", str(checkpoint))
    assert given.identity == named.identity
    with pytest.raises(WeightsError, match="models fetch vit_b"):
        open_segmenter("everything:vit_b")
    with pytest.raises(InputError, match="Did you mean 'vit_b'"):
        open_segmenter("everything:vitb")
    with pytest.raises(InputError, match=r"names are .*everything"):
        open_segmenter("anything")


def test_a_model_file_is_opened_by_its_path(
    model_file: ModelFile, checkpoint: Path, tmp_path: Path
) -> None:
    path = Segmenter(model_file, "cpu", str(checkpoint)).save(tmp_path / "k.medseg")
    assert open_segmenter(str(path), "cpu").classes == default_classes(3)
    with pytest.raises(ModelFileError, match=r"gone\.medseg does not exist"):
        open_segmenter(str(tmp_path / "gone.medseg"))


def test_a_specialist_is_opened_by_name(
    model_file: ModelFile,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bundled, "FOLDER", tmp_path)
    with pytest.raises(WeightsError, match=r"nuclei-fluo\.medseg is missing"):
        open_segmenter("nuclei-fluo", "cpu")
    made = Segmenter(model_file, "cpu", str(checkpoint))
    made.save(tmp_path / "nuclei-fluo.medseg")
    opened = open_segmenter("nuclei-fluo", "cpu")
    assert opened.identity == made.identity
    assert opened.classes == default_classes(3)


@pytest.mark.parametrize("name", list(SPECIALISTS))
def test_a_model_of_the_shelf_is_whole_and_tells_what_it_is(name: str) -> None:
    segmenter = open_segmenter(name, "cpu")  # refuses a file of another nano
    assert isinstance(segmenter, Segmenter)
    card = segmenter.model_file.card
    assert card.kind == SPECIALISTS[name].method and card.licence == "BSD-3-Clause"
    assert card.base.get("name", "") == ("nano" if card.kind == "ptsam" else "")
    assert SPECIALISTS[name].title in card.title
    assert [entry.name for entry in card.classes] in (
        ["background", "nucleus"],
        ["background", "cell"],
    )
    assert all(source["licence"] for source in card.provenance["trained_on"])
    assert card.scores["test"]["images"] > 0


TUNED = [name for name, entry in SPECIALISTS.items() if entry.method == "ptsam"]

NETWORKS = [name for name in SPECIALISTS if name not in TUNED]


@pytest.mark.parametrize("name", TUNED)
def test_a_specialist_is_better_than_sam_untuned(name: str) -> None:
    test = read_card(bundled.find(SPECIALISTS[name].file)).scores["test"]
    assert test["dice"] > test["untuned"]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_the_shelf_is_small_and_takes_grey_and_colour(name: str) -> None:
    path = bundled.find(SPECIALISTS[name].file)
    assert path.stat().st_size < 5_000_000
    grey = np.random.default_rng(0).random((1, 70, 90), np.float32)
    segmenter = open_segmenter(name, "cpu")
    found = segmenter.predict(grey).probabilities
    assert found.shape == (2, 70, 90) and np.isfinite(found).all()
    # colours become grey, whichever of them a stain was saved in
    blue = np.concatenate([np.zeros_like(grey), np.zeros_like(grey), grey])
    again = segmenter.predict(blue).probabilities
    np.testing.assert_allclose(again, found, atol=1e-2)


def test_a_model_that_sees_images_mirrored(
    model_file: ModelFile, checkpoint: Path, tmp_path: Path
) -> None:
    plain = Segmenter(model_file, "cpu", str(checkpoint))
    path = plain.save(tmp_path / "kerne.medseg")
    mirrored = open_segmenter(str(path), "cpu", mirrored=True)
    image = picture(64, 64)
    found = mirrored.predict(image).probabilities
    views = []
    for axes in ((), (1,), (2,), (1, 2)):
        view = plain.predict(np.flip(image, axes).copy()).probabilities
        views.append(np.flip(view, axes))
    np.testing.assert_allclose(found, np.mean(views, axis=0), atol=1e-3)
    # results of the one are not taken for those of the other
    assert mirrored.identity != plain.identity


@pytest.mark.parametrize("name", ["otsu", "everything", "phrase:cells"])
def test_what_is_no_model_does_not_see_images_mirrored(name: str) -> None:
    with pytest.raises(InputError, match="cannot see images mirrored"):
        open_segmenter(name, "cpu", mirrored=True)


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    names = r"neither a model file.*otsu.*nuclei-fluo, .*med2d-nuclei, .*nano, vit_b"
    with pytest.raises(InputError, match=names):
        open_segmenter("cellpose")
    with pytest.raises(WeightsError, match="models fetch vit_b"):
        open_segmenter("vit_b")


# --- training by the config's class


@dataclass(frozen=True)
class Settings:
    device: str = "cpu"
    sam: str = ""


@dataclass
class Result:
    model_file: ModelFile


RESULT: list[ModelFile] = []


def job(pairs: object, config: Settings, conduct: Conduct) -> Iterator[Progress]:
    yield Progress(1, 1, f"trained on {pairs} on {conduct.date}")
    return Result(RESULT[0])


def test_the_class_of_a_config_says_which_training(
    model_file: ModelFile, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = MethodEntry(
        name="ptsam",
        title="",
        description="",
        config=(__name__, "Settings"),
        train=(__name__, "job"),
        network=METHODS["ptsam"].network,
    )
    monkeypatch.setitem(globals(), "RESULT", [model_file])
    monkeypatch.setattr(api, "METHODS", {"ptsam": entry})
    # where nothing can be remembered, the checkpoint at hand is used
    monkeypatch.setenv("NAPARI_MEDSEG_WEIGHTS", str(checkpoint / "no folder"))
    segmenter = api.train("pairs", Settings(sam=str(checkpoint)), date="today")
    assert segmenter.model_file is model_file
    reports = list(api.train_job("pairs", Settings(), Conduct("today")))
    assert [report.message for report in reports] == ["trained on pairs on today"]
    with pytest.raises(TypeError, match="Plan is not the config of a training"):
        next(api.train_job("pairs", plan()))

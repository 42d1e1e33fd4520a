"""All objects of an image without prompts: which masks stay, and how they are put."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from networks import random_nano, save_nano
from segment_anything.utils.amg import build_point_grid
from skimage.measure import label

from napari_medseg._types import InputError, JobError, finish
from napari_medseg.instances import ClassConfig, ObjectConfig, labels_of
from napari_medseg.io.images import read_annotation, read_image
from napari_medseg.matching import average_precision
from napari_medseg.models import everything
from napari_medseg.models.backbone import Backbone
from napari_medseg.models.embeddings import EmbeddingCache
from napari_medseg.models.everything import (
    Everything,
    find_everything,
    open_everything,
)
from napari_medseg.models.everything_settings import EverythingConfig, usual_settings
from napari_medseg.models.grid import views_of
from napari_medseg.models.judging import stability
from napari_medseg.models.point_decoder import Answers
from napari_medseg.models.sam import PIXEL_MEAN, PIXEL_STD

if TYPE_CHECKING:
    from pathlib import Path

    from napari_medseg._types import AnySegmenter, FloatArray, LabelArray

STEP = 0.05
"""Brightness by which painted objects differ, where a painted image stands for SAM."""


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """A random nano that thinks well of its masks."""
    sam = random_nano(0, 64)
    with torch.no_grad():
        sam.mask_decoder.iou_prediction_head.layers[-1].bias += 10
    return Backbone(
        sam=sam,
        name="random",
        kind="nano",
        title="random",
        digest="0" * 64,
        working_size=64,
        licence="LicenseRef-unspecified",
        cache=EmbeddingCache(None),
    )


ALL = EverythingConfig(
    points_per_side=2, pred_iou=0, stability=0, overlap=0.9, min_part=0, batch=3
)
"""Settings by which a random network finds something, too."""

SURE = EverythingConfig(points_per_side=8, batch=20)


def picture(height: int, width: int) -> FloatArray:
    rng = np.random.default_rng(0)
    return rng.random((3, height, width), dtype=np.float32)


def discs(shape: tuple[int, int], *places: tuple[int, int, int]) -> LabelArray:
    """Return discs of row, column and radius, the first with id 1."""
    rows, columns = np.indices(shape)
    labels = np.zeros(shape, np.int32)
    for name, (row, column, radius) in enumerate(places, start=1):
        labels[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = name
    return labels


def painted(labels: LabelArray) -> FloatArray:
    """Return an image in which each object has a brightness of its own."""
    return np.repeat((labels * STEP).astype(np.float32)[None], 3, axis=0)


@pytest.fixture
def seeing(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Let SAM answer with what is painted under a point, and with rubbish besides.

    Of the three choices the first is the object, the second nearly the same, the
    third not sure of its outline. On the background it says: all of the image.
    Returns the shapes of what was asked.
    """
    asked = []

    def embed(self: Backbone, inputs: torch.Tensor, device: torch.device) -> Any:
        return inputs[:1] * PIXEL_STD[0] + PIXEL_MEAN[0]

    class Decoder:
        def __init__(self, sam: Any, embedding: torch.Tensor, size: int) -> None:
            ids = (embedding[0] / 255 / STEP).round().int()
            self.parts = torch.from_numpy(label(ids.numpy(), connectivity=1))
            self.size = size

        def ask(self, points: torch.Tensor, worst: float) -> Answers:
            asked.append(tuple(points.shape))
            columns, rows = points.round().long().clamp(0, self.size - 1).T
            under = self.parts[rows, columns]
            masks = self.parts[None] == under[:, None, None]
            masks[under == 0] = True
            wider = torch.nn.functional.max_pool2d(masks.float(), 3, 1, 1) > 0
            flawed = torch.full((len(points), self.size, self.size), 0.5)
            both = torch.stack([masks, wider], dim=1) * 16.0 - 8.0
            logits = torch.cat([both, flawed[:, None]], dim=1).flatten(0, 1)
            scores = torch.tensor([0.95, 0.9, 0.99]).repeat(len(points))
            return Answers(logits[scores > worst], scores[scores > worst])

    monkeypatch.setattr(Backbone, "embed", embed)
    monkeypatch.setattr(everything, "PointDecoder", Decoder)
    return asked


def assert_same_objects(found: LabelArray, truth: LabelArray) -> None:
    """Check that each object is found, whatever its number is."""
    assert found.max() == truth.max()
    numbers = np.zeros(int(truth.max()) + 1, np.int32)
    numbers[truth.ravel()] = found.ravel()
    np.testing.assert_array_equal(numbers[truth], found)
    assert len(np.unique(numbers)) == len(numbers)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_stability_is_the_iou_at_two_thresholds() -> None:
    logits = torch.randn(6, 9, 11, generator=torch.Generator().manual_seed(0)) * 3
    for offset in (0.0, 1.0, 2.5):
        wanted = [
            iou((each > offset).numpy(), (each > -offset).numpy()) for each in logits
        ]
        np.testing.assert_allclose(stability(logits, offset), wanted, rtol=1e-6)
    assert stability(torch.full((1, 4, 4), -9.0), 1.0).tolist() == [0.0]
    assert stability(torch.full((1, 4, 4), 0.5), 1.0).tolist() == [0.0]


@pytest.mark.parametrize("shape", [(128, 128), (96, 128), (250, 60)])
def test_points_are_those_of_segment_anything(shape: tuple[int, int]) -> None:
    (view,) = views_of(shape, 128)
    scale = 128 / max(shape)
    wanted = build_point_grid(8) * np.array(shape[::-1]) * scale - 0.5
    np.testing.assert_allclose(view.points(8), wanted, atol=1e-4)


def test_the_boxes_round_masks() -> None:
    masks = torch.zeros(2, 7, 9, dtype=torch.bool)
    masks[0, 2:5, 3:9] = True
    masks[1, 6, 0] = True
    assert everything._boxes_round(masks).tolist() == [[3, 2, 9, 5], [0, 6, 1, 7]]


def test_discs_are_found_once(
    backbone: Backbone, seeing: list[tuple[int, ...]]
) -> None:
    # the second touches the third, the last is cut by the image's edge
    truth = discs((128, 128), (40, 40, 25), (95, 30, 18), (95, 62, 13), (5, 120, 11))
    wider = replace(backbone, working_size=128)
    found = finish(find_everything(painted(truth), wider, SURE, "cpu"))
    assert found.dtype == np.int32
    assert_same_objects(found, truth)
    assert seeing == [(20, 2), (20, 2), (20, 2), (4, 2)]


@pytest.mark.usefixtures("seeing")
def test_a_ring_and_what_it_encloses_are_two(backbone: Backbone) -> None:
    truth = discs((128, 100), (64, 50, 40), (70, 55, 15))
    wider = replace(backbone, working_size=128)
    found = finish(find_everything(painted(truth), wider, SURE, "cpu"))
    assert_same_objects(found, truth)


@pytest.mark.usefixtures("seeing")
def test_an_image_of_background_alone_has_no_objects(backbone: Backbone) -> None:
    image = np.zeros((3, 64, 90), np.float32)
    assert not finish(find_everything(image, backbone, SURE, "cpu")).any()


@pytest.mark.usefixtures("seeing")
def test_a_large_image_is_seen_in_windows_and_whole(backbone: Backbone) -> None:
    small = [(20, 20, 6), (48, 100, 6), (150, 160, 6), (190, 12, 6), (8, 190, 6)]
    truth = discs((200, 200), (110, 80, 45), *small)
    sharper = replace(backbone, working_size=96)
    config = replace(SURE, points_per_side=12, batch=144)
    found = finish(find_everything(painted(truth > 0), sharper, config, "cpu"))
    assert found.max() == len(small) + 1
    # at their own resolution
    for name in range(2, len(small) + 2):
        assert len(np.unique(found[truth == name])) == 1
        np.testing.assert_array_equal(found == found[truth == name][0], truth == name)
    # from afar
    assert iou(found == found[110, 80], truth == 1) > 0.93


def test_small_objects_are_whole_in_some_window() -> None:
    views = views_of((300, 200), 64)
    longest = views[-1].above
    assert [view.above for view in views[:-1]] == [0.0] * (len(views) - 1)
    assert longest > 10
    rng = np.random.default_rng(0)
    starts = torch.from_numpy(rng.uniform(0, 1, (200, 2))) * (
        torch.tensor([200, 300]) - longest
    )
    boxes = torch.cat([starts, starts + longest - 1], dim=1)
    seen = torch.stack([view.fits(boxes) for view in views])
    assert seen[:-1].any(dim=0).all()
    assert not seen[-1].any()
    assert views[-1].fits(torch.tensor([[10.0, 10.0, 190.0, 290.0]])).all()


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 120), (120, 1), (5, 140), (64, 90), (64, 64)]
)
def test_any_shape(backbone: Backbone, shape: tuple[int, int]) -> None:
    found = finish(find_everything(picture(*shape), backbone, ALL, "cpu"))
    assert found.dtype == np.int32
    assert found.shape == shape
    np.testing.assert_array_equal(
        np.unique(np.append(found, 0)), range(found.max() + 1)
    )


def test_a_random_network_finds_the_same_twice(backbone: Backbone) -> None:
    image = picture(100, 120)
    first = finish(find_everything(image, backbone, ALL, "cpu"))
    assert 0 < (first > 0).mean() < 1
    fresh = replace(backbone, cache=EmbeddingCache(None))
    again = finish(find_everything(image, fresh, ALL, "cpu"))
    np.testing.assert_array_equal(first, again)


def test_progress_and_cancelling(backbone: Backbone) -> None:
    image = picture(64, 64)
    reports = list(find_everything(image, backbone, ALL, "cpu"))
    assert [(each.step, each.total) for each in reports] == [
        (step, 2) for step in range(3)
    ]
    assert all(each.message for each in reports)
    job = find_everything(image, backbone, ALL, "cpu")
    for _ in range(2):
        next(job)
    job.close()
    assert not torch.is_inference_mode_enabled()
    with pytest.raises(StopIteration):
        next(job)


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (RuntimeError("not enough memory: you tried"), JobError),
        (MemoryError(), JobError),
        (RuntimeError("something else"), RuntimeError),
    ],
)
def test_memory_that_runs_out(
    backbone: Backbone,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    shown: type[Exception],
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(everything.PointDecoder, "ask", fail)
    with pytest.raises(shown, match=r"Close other programs|something else"):
        finish(find_everything(picture(64, 64), backbone, ALL, "cpu"))


def test_fewer_points_at_a_time_where_memory_runs_out(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = picture(64, 64)
    whole = finish(find_everything(image, backbone, ALL, "cpu"))
    ask = everything.PointDecoder.ask

    def narrow(self: Any, points: torch.Tensor, worst: float) -> Answers:
        if len(points) > 1:
            raise MemoryError
        return ask(self, points, worst)

    monkeypatch.setattr(everything.PointDecoder, "ask", narrow)
    single = finish(find_everything(image, backbone, ALL, "cpu"))
    # sums in another order
    assert (single == whole).mean() > 0.98


@pytest.mark.parametrize("shape", [(64, 64), (1, 64, 64), (3, 0, 64), (4, 8, 8)])
def test_what_is_no_image_is_refused(
    backbone: Backbone, shape: tuple[int, ...]
) -> None:
    with pytest.raises(InputError, match="three"):
        finish(find_everything(np.zeros(shape, np.float32), backbone, ALL, "cpu"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"points_per_side": 0},
        {"points_per_side": 1000},
        {"pred_iou": 1.5},
        {"stability": -0.1},
        {"stability": float("nan")},
        {"stability_offset": -1.0},
        {"overlap": 2.0},
        {"min_part": -1},
        {"max_share": 0.0},
        {"batch": 0},
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        EverythingConfig(**wrong)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_segmenter_as_any_other(backbone: Backbone, channels: int) -> None:
    segmenter: AnySegmenter = Everything(backbone, ALL, "cpu")
    image = np.random.default_rng(0).normal(500, 90, (channels, 60, 70))
    image[0, :3, :3] = np.nan
    prediction = segmenter.predict(image.astype(np.float32))
    assert prediction.probabilities.dtype == np.float32
    assert prediction.probabilities.shape == (2, 60, 70)
    assert (prediction.probabilities.sum(axis=0) == 1).all()
    assert [item.name for item in segmenter.classes] == ["background", "object"]
    assert prediction.classes == segmenter.classes
    assert prediction.objects is not None
    np.testing.assert_array_equal(prediction.objects > 0, prediction.labels == 1)


def test_a_flat_image_is_no_segmenters_input(backbone: Backbone) -> None:
    with pytest.raises(InputError):
        Everything(backbone, ALL, "cpu").predict(np.zeros((20, 30), np.float32))


@pytest.mark.usefixtures("seeing")
def test_objects_that_touch_stay_apart_and_their_union_is_a_class(
    backbone: Backbone,
) -> None:
    truth = discs((128, 128), (40, 40, 25), (95, 30, 18), (95, 62, 13), (10, 110, 3))
    # a grid that is fine enough for the small one
    config = replace(SURE, points_per_side=32)
    wider = replace(backbone, working_size=128)
    prediction = Everything(wider, config, "cpu").predict(painted(truth))
    np.testing.assert_array_equal(labels_of(prediction, None), truth > 0)
    np.testing.assert_array_equal(labels_of(prediction, ClassConfig()), truth > 0)
    objects = labels_of(prediction, ObjectConfig(min_size=0))
    assert_same_objects(objects, truth)
    # threshold and splitting are about probabilities; the smallest size acts
    other = ObjectConfig(min_size=0, threshold=0.9, split="components", smoothing=9)
    np.testing.assert_array_equal(labels_of(prediction, other), objects)
    assert labels_of(prediction, ObjectConfig(min_size=40)).max() == 3
    assert labels_of(prediction, ObjectConfig(min_size=10**5)).max() == 0


def test_the_identity_tells_weights_and_settings(backbone: Backbone) -> None:
    one = Everything(backbone, ALL).identity
    assert one == Everything(replace(backbone), ALL, "cpu").identity
    other = replace(backbone, digest="1" * 64)
    identities = {
        one,
        Everything(backbone, SURE).identity,
        Everything(other, ALL).identity,
    }
    assert len(identities) == 3


def test_the_settings_suit_the_sam(tmp_path: Path) -> None:
    opened = open_everything(str(save_nano(tmp_path / "mine.pth")), "cpu")
    assert opened.config == usual_settings("nano")
    assert opened.backbone.kind == "nano"
    # a grid as fine and thresholds as high as those of SAM's authors, for their SAMs
    theirs = usual_settings("vit_b")
    assert theirs == usual_settings("vit_h") == EverythingConfig()
    assert (theirs.points_per_side, theirs.pred_iou, theirs.stability) == (
        32,
        0.88,
        0.95,
    )


def test_every_setting_is_explained() -> None:
    assert all(item.metadata["help"] for item in fields(EverythingConfig))


def test_nuclei_are_found(shared_data: Path) -> None:
    """The bundled SAM on a real image, by fewer points than it is offered with."""
    folder = shared_data / "dsb2018_nuclei"
    name = "fluo_10328b822b836e67"
    (image,) = (folder / "images").glob(f"{name}.*")
    (mask,) = (folder / "masks").glob(f"{name}.*")
    truth = read_annotation(mask).labels
    usual = open_everything("nano", "cpu")
    segmenter = replace(usual, config=replace(usual.config, points_per_side=12))
    prediction = segmenter.predict(read_image(image).plane())
    found = labels_of(prediction, ObjectConfig())
    assert average_precision(found, truth, 0.5) > 0.6

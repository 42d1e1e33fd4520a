"""One binary model a class: prepared, sampled, trained, merged, and trained again."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import torch
from skimage.exposure import equalize_adapthist
from typer.testing import CliRunner

from napari_medseg import api
from napari_medseg._types import InputError, ModelFileError, finish
from napari_medseg.cli.app import app
from napari_medseg.inference import Segmenter, open_segmenter
from napari_medseg.io import model_file
from napari_medseg.io.idrid import IMAGES, KINDS, MASKS, TRAINING, read_idrid
from napari_medseg.io.images import write_labels
from napari_medseg.io.pairs import Pair, Pairs, gather
from napari_medseg.io.preparation import Preparation, equalise, field_of_view, prepare
from napari_medseg.io.tiff import write_masks, write_probabilities
from napari_medseg.lesion_evaluation import evaluate_idrid
from napari_medseg.models.framing import Framing
from napari_medseg.models.med2d import Med2dSegNet
from napari_medseg.models.merged import merge, merged_shares, parts_of
from napari_medseg.overlapping import OverlappingSegmenter
from napari_medseg.precision_recall import EDGES, Ranking
from napari_medseg.training.conduct import Conduct
from napari_medseg.training.lesion_training import LesionTraining
from napari_medseg.training.losses import focal_tversky
from napari_medseg.training.positives import PositiveViews
from napari_medseg.training.views import Example, ViewConfig

if TYPE_CHECKING:
    from pathlib import Path

    from napari_medseg.training.report import Trained

QUICK = LesionTraining(
    class_network="med2d", steps=2, window=64, batch=2, validate=1, device="cpu"
)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the network small."""

    def build(kind: type[Med2dSegNet], channels: int, classes: int) -> Med2dSegNet:
        return kind(channels, classes, (8, 12, 16), blocks=1)

    monkeypatch.setattr(Med2dSegNet, "build", classmethod(build))


def pairs(count: int = 3, *, overlap: bool = False) -> Pairs:
    """Return images with a disc of class 1 and a small one of class 2."""
    made = []
    for number in range(count):
        rng = np.random.default_rng(number)
        rows, columns = np.mgrid[:64, :80]
        layers = np.stack(
            [
                (rows - y) ** 2 + (columns - x) ** 2 < size
                for size, (y, x) in zip(
                    (200, 30), rng.integers(16, 48, (2, 2)), strict=True
                )
            ]
        )
        image = rng.normal(0.2, 0.05, (1, 64, 80)) + layers[0] * 0.3 + layers[1] * 0.4
        labels = np.where(layers[1], 2, layers[0]).astype(np.int32)
        kept = layers if overlap else None
        made.append(Pair(f"im{number}", image.astype(np.float32), labels, layers=kept))
    return gather(made, annotation="dense")


def train(data: Pairs, config: LesionTraining = QUICK) -> Trained:
    return finish(api.train_job(data, config, Conduct()))


# ------------------------------------------------------------------------ merging


def test_merging_is_the_rule_pixel_by_pixel() -> None:
    rng = np.random.default_rng(0)
    found = rng.integers(0, 6, (3, 9, 11)).astype(np.float32) / 5
    thresholds, shares = (0.4, 0.6, 0.6), (0.2, 0.1, 0.01)
    labels = merge(found, thresholds, shares)
    for place in np.ndindex(9, 11):
        best, chosen = 0.0, 0
        for index in sorted(range(3), key=lambda each: shares[each]):
            p, t = found[(index, *place)], np.float32(thresholds[index])
            if p > t and p / t > best:
                best, chosen = p / t, index + 1
        assert labels[place] == chosen
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    merged = merged_shares(found, thresholds, labels)
    assert np.array_equal(merged.argmax(axis=0), labels)
    np.testing.assert_allclose(merged.sum(axis=0), 1.0, rtol=1e-5)


def test_of_equal_ones_the_rarest_wins() -> None:
    found = np.ones((2, 1, 1), np.float32)
    assert merge(found, (0.5, 0.5), (0.1, 0.001)) == 2
    assert merge(found, (0.5, 0.5), (0.001, 0.1)) == 1
    shares = merged_shares(found, (0.5, 0.5), np.array([[2]], np.int32))
    assert shares.argmax(axis=0) == 2
    assert merge(found, (1.0, 1.0), (0.1, 0.2)) == 0, "1 finds nothing"


# -------------------------------------------------------------------- preparation


def fundus(height: int = 60, width: int = 90) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    inside = (rows - 30) ** 2 + (columns - 50) ** 2 < 28**2
    rng = np.random.default_rng(0)
    image = rng.uniform(0.4, 1.0, (3, height, width)) * inside * 255
    image[:, 2, 3] = 255  # a speck in the surround
    return image.astype(np.float32)


def test_the_field_of_view_is_cut_out_squared_and_put_back() -> None:
    image = fundus()[:, 4:]  # its upper edge is cut off: the box is no square
    prepared, place = prepare(image, Preparation(colour=True, crop=True, clip=0))
    bright = image.max(axis=0) > 0.04 * np.percentile(image, 99.9)
    bright[2] = False  # the speck is in the second row
    rows, columns = (np.flatnonzero(bright.any(axis=axis)) for axis in (1, 0))
    assert (place.left, place.right) == (columns[0], columns[-1] + 1)
    assert place.bottom == rows[-1] + 1
    side = max(place.bottom - place.top, place.right - place.left)
    assert prepared.shape == (3, side, side)
    labels = np.arange(image[0].size).reshape(image[0].shape)
    back = place.put_back(place.cut(labels, -1), -5)
    box = (slice(place.top, place.bottom), slice(place.left, place.right))
    assert np.array_equal(back[box], labels[box])
    assert (back == -5).sum() == labels.size - labels[box].size


def test_without_a_large_field_the_whole_image_is_kept() -> None:
    scaled = np.zeros((1, 20, 30), np.float32)
    scaled[:, 3:5, 3:5] = 1
    for image in (scaled, np.zeros_like(scaled)):
        place = field_of_view(image, Preparation(crop=True))
        assert np.array_equal(place.put_back(place.cut(image)), image)
        assert place.cut(image).shape == image.shape


def test_contrast_is_equalised_on_lightness_alone() -> None:
    rng = np.random.default_rng(1)
    grey = rng.uniform(0.4, 0.5, (1, 64, 64)).astype(np.float32)
    found = equalise(grey, Preparation(clip=2.0, grid=4))
    wanted = equalize_adapthist(grey[0], (16, 16), 2.0 / 256, 256)
    np.testing.assert_allclose(found[0], wanted, atol=1e-6)
    assert found.std() > grey.std()
    from skimage.color import rgb2lab

    hue = np.array([0.8, 0.5, 0.4], np.float32)[:, None, None]
    colours = np.broadcast_to(hue, (3, 64, 64)) * grey / 0.5
    lab = rgb2lab(colours, channel_axis=0)
    # in gamut, so that hues come back as they were
    changed = equalise(colours.astype(np.float32), Preparation(True, clip=1.0, grid=1))
    after = rgb2lab(changed, channel_axis=0)
    inside = (changed.max(axis=0) < 1) & (changed.min(axis=0) > 0)
    assert inside.any() and np.abs(after[0] - lab[0]).max() > 5
    np.testing.assert_allclose(after[1:, inside], lab[1:, inside], atol=0.1)
    flat = np.full((1, 8, 8), 0.3, np.float32)
    assert np.array_equal(equalise(flat, Preparation()), flat)


# ---------------------------------------------------------- windows, loss, scores


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_the_windows_shows_the_class(share: float) -> None:
    """Of an image in which it is one pixel in 40,000, and one without it."""
    target = np.zeros((400, 400), np.int32)
    target[390, 2] = target[37, 211] = target[200, 200] = target[5, 399] = 1
    image = np.zeros((1, 400, 400), np.float32)
    empty = Example("empty", image, np.zeros_like(target))
    examples = [Example("a", image, target), empty]
    config = ViewConfig(Framing(tile=32, size=32), 2, 1, seed=0)
    views = PositiveViews(examples, config, batch=4, share=share)
    batches = [views(step) for step in range(5)]
    shown = torch.cat([batch.shares[:, 1].amax(dim=(1, 2)) > 0 for batch in batches])
    assert share <= shown.float().mean() <= share + 0.1
    again = views(3)
    assert torch.equal(again.shares, batches[3].shares)
    assert len(PositiveViews([empty], config, 2, share=share)(0).inputs) == 2


def test_focal_tversky_is_the_published_equation() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 5, 6, requires_grad=True)
    positive = (torch.rand(2, 5, 6) < 0.2).float()
    weight = (torch.rand(2, 5, 6) < 0.8).float()
    p = logits.softmax(dim=1)[:, 1]
    hits = missed = wrong = torch.tensor(0.0)
    for place in np.ndindex(2, 5, 6):
        hits = hits + weight[place] * p[place] * positive[place]
        missed = missed + weight[place] * (1 - p[place]) * positive[place]
        wrong = wrong + weight[place] * p[place] * (1 - positive[place])
    index = (hits + 1) / (hits + 0.7 * missed + 0.3 * wrong + 1)
    shares = torch.stack([1 - positive, positive], dim=1)
    found = focal_tversky(logits, shares, weight)
    torch.testing.assert_close(found, (1 - index) ** 0.75)
    found.backward()
    sure = torch.stack([-99 * shares[:, 1] + 50, 99 * shares[:, 1] - 50], dim=1)
    sure.requires_grad_()
    focal_tversky(sure, shares, torch.ones_like(weight)).backward()
    assert sure.grad is not None and torch.isfinite(sure.grad).all()


def test_scores_are_those_of_plain_loops() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((30, 40)) < 0.1
    found = (0.5 * truth + rng.random((30, 40))).astype(np.float32) / 2
    known = rng.random((30, 40)) < 0.9
    ranking = Ranking()
    ranking.add(found, truth, known)
    p, t = found[known], truth[known]
    order = np.argsort(-p)
    hits, area = 0, 0.0
    for rank, index in enumerate(order, 1):
        hits += t[index]
        area += t[index] * hits / rank
    assert ranking.aupr == pytest.approx(area / t.sum(), abs=0.001)

    def f1(edge: float) -> float:
        above = p > edge
        return 2 * (above & t).sum() / (above.sum() + t.sum())

    best = max(f1(edge) for edge in EDGES)
    assert ranking.dice(ranking.threshold) == pytest.approx(best)
    assert f1(ranking.threshold) == pytest.approx(best), "as in use"
    from scipy import ndimage

    lesions, count = ndimage.label(truth & known, np.ones((3, 3)))
    hit = [(found[lesions == each] > 0.4).any() for each in range(1, count + 1)]
    assert ranking.lesion_recall(0.4) == pytest.approx(np.mean(hit))
    empty = Ranking()
    empty.add(found, np.zeros_like(truth))
    assert empty.threshold == 0.5 and np.isnan(empty.aupr)


# ----------------------------------------------------------------------- training


def test_classes_are_trained_merged_and_told(tmp_path: Path) -> None:
    config = replace(QUICK, steps=40, per_class="2: loss=focal-tversky, positive=0.9")
    trained = train(pairs(4, overlap=True), config)
    report = trained.report.to_dict()
    assert set(report["classes"]) == {"class 1", "class 2"}
    scores = report["classes"]["class 1"]
    assert set(scores) == {"dice", "aupr", "lesion_recall", "threshold", "images"}
    assert scores["dice"] > 0.6 and report["held_out_scores"]["aupr"] > 0.6
    path = model_file.save(tmp_path / "a.medseg", trained.model_file)
    first, second = parts_of(model_file.load(path))
    assert first.model_file.card.config["loss"] == "dice-bce"
    assert second.model_file.card.config["loss"] == "focal-tversky"
    segmenter = open_segmenter(str(path), "cpu")
    assert isinstance(segmenter, OverlappingSegmenter)
    fresh = pairs(9, overlap=True)[8]
    found = segmenter.predict(fresh.image)
    assert found.stack is not None and found.stack.shape == (3, 64, 80)
    wanted = merge(found.stack[1:], segmenter.thresholds, segmenter.shares)
    assert np.array_equal(found.labels, wanted)
    disc = found.stack[1] > first.threshold
    assert fresh.layers is not None
    assert 2 * (disc & fresh.layers[0]).sum() > 0.6 * (
        disc.sum() + fresh.layers[0].sum()
    )
    with pytest.raises(ModelFileError, match="one model for each class"):
        Segmenter(trained.model_file)


def test_one_class_trained_again_leaves_the_others(tmp_path: Path) -> None:
    first = train(pairs())
    path = model_file.save(tmp_path / "a.medseg", first.model_file)
    again = replace(QUICK, keep_from=str(path), retrain="class 2", seed=3, steps=3)
    second = train(pairs(4), again)
    assert set(second.report.classes) == {"class 2"}
    before, after = first.model_file, second.model_file
    assert before.tensors.keys() == after.tensors.keys()
    same = {
        name
        for name, item in before.tensors.items()
        if item.tobytes() == after.tensors[name].tobytes()
    }
    ones = {name for name in before.tensors if name.startswith("1/")}
    assert ones <= same and len(same) < len(before.tensors)
    assert before.card.config["parts"][0] == after.card.config["parts"][0]
    assert before.card.config["preparation"] == after.card.config["preparation"]
    assert str(tmp_path) not in json.dumps(dict(after.card.config))
    # where only that class is annotated
    alone = gather(
        [
            replace(each, annotation=np.where(each.annotation == 2, 2, 0))
            for each in pairs()
        ],
        annotation="dense",
    )
    third = train(alone, replace(again, retrain="2"))
    assert len(parts_of(third.model_file)) == 2
    with pytest.raises(InputError, match="no class 'nuclei'; there is 1"):
        train(pairs(), replace(again, retrain="nuclei"))
    with pytest.raises(InputError, match="belong together"):
        replace(QUICK, retrain="1")


def test_a_run_whose_time_was_given_is_repeated_with_the_steps_it_planned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planned = iter([12, 15])
    monkeypatch.setattr(
        "napari_medseg.training.study.affordable_steps", lambda *_: next(planned)
    )
    trained = train(pairs(4), replace(QUICK, steps=40, minutes=5.0))
    assert [part.split("/")[0] for part in trained.config.class_steps.split(";")] == [
        "12",
        "15",
    ]
    again = train(pairs(4), trained.config)
    for name, values in trained.model_file.tensors.items():
        np.testing.assert_array_equal(again.model_file.tensors[name], values)


def test_the_same_again_and_a_replay() -> None:
    first, second = train(pairs()), train(pairs())
    digest = model_file.digest(first.model_file)
    assert model_file.digest(second.model_file) == digest
    third = train(pairs(), first.config)
    assert model_file.digest(third.model_file) == model_file.digest(
        train(pairs(), third.config).model_file
    )
    assert {
        name: item.tobytes() for name, item in third.model_file.tensors.items()
    } == {name: item.tobytes() for name, item in first.model_file.tensors.items()}


def test_stopped_before_a_class_it_finds_nothing_of_it() -> None:
    asked = iter([False] * 2)
    conduct = Conduct(stop=lambda: next(asked, True))
    trained = finish(api.train_job(pairs(), QUICK, conduct))
    last = parts_of(trained.model_file)[-1]
    assert last.threshold == 1.0
    assert any(
        "class 2: the training was stopped" in w for w in trained.report.warnings
    )


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"per_class": "1 loss"}, "cannot be used"),
        ({"per_class": "1: colour=red"}, "no setting of a class"),
        ({"per_class": "1: window=wide"}, "window is 'wide'"),
        ({"label_noise": "spatial"}, "--label-noise cannot be used"),
    ],
)
def test_settings_that_cannot_be_used_are_told(
    settings: dict[str, str], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        LesionTraining(**settings)  # type: ignore[arg-type]


# -------------------------------------------------------------------------- IDRiD


def idrid(root: Path, count: int = 3) -> Path:
    """Write a folder of that layout with generated photographs."""
    images = root / IMAGES / TRAINING
    images.mkdir(parents=True)
    for number in range(1, count + 1):
        rng = np.random.default_rng(number)
        image = np.moveaxis(fundus(90, 110), 0, -1)
        for kind in KINDS[:2]:
            folder = root / MASKS / TRAINING / kind.folder
            folder.mkdir(parents=True, exist_ok=True)
            row, column = rng.integers((20, 35), (40, 55))
            size = 3 if kind.letters == "MA" else 8
            mask = np.zeros((90, 110, 4), np.uint8)
            mask[..., 3] = 255
            mask[row : row + size, column : column + size, 0] = 255
            image[mask[..., 0] > 0] = (255, 0, 0)
            if kind.letters == "MA" or number > 1:
                path = folder / f"IDRiD_{number:02}_{kind.letters}.tif"
                tifffile.imwrite(path, mask, photometric="rgb", extrasamples=[2])
        tifffile.imwrite(images / f"IDRiD_{number:02}.tif", image.astype(np.uint8))
    return root


def test_the_folders_of_idrid_are_read(tmp_path: Path) -> None:
    root = idrid(tmp_path / "A. Segmentation")
    # as macOS leaves them behind
    (root / IMAGES / TRAINING / "._IDRiD_01.tif").write_bytes(b"Mac OS X")
    found = read_idrid(tmp_path)
    assert found.class_names == ("background", "microaneurysms", "haemorrhages")
    assert found.rgb and len(found) == 3
    first = found[0]
    assert first.layers is not None
    assert first.layers[0].sum() == 9 and not first.layers[1].any(), "no such mask"
    both = found[1]
    assert both.layers is not None and both.layers[1].sum() == 64
    assert (both.annotation[both.layers[0]] == 1).all(), "the smaller is uppermost"
    assert (
        found.digest
        != replace(
            found, pairs=tuple(replace(each, layers=None) for each in found)
        ).digest
    )
    with pytest.raises(InputError, match="has not the folders of IDRiD"):
        read_idrid(root / MASKS)


def test_idrid_from_the_command_line_to_masks(tmp_path: Path) -> None:
    root, out = idrid(tmp_path / "data"), tmp_path / "model.medseg"
    run = CliRunner()
    words = ["train", "--images", root, "--layout", "idrid", "--method", "lesions"]
    words += ["--class-network", "med2d", "--steps", 2, "--window", 64, "--batch", 2]
    words += ["--validate", 1, "--device", "cpu", "--out", out, "--json"]
    done = run.invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert set(report["classes"]) == {"microaneurysms", "haemorrhages"}
    card = model_file.read_card(out)
    assert card.config["preparation"]["crop"] is True
    assert [each.name for each in card.classes][1] == "microaneurysms"
    replayed = ["train", "--config", out.with_suffix(".run.yaml"), "--out"]
    again = tmp_path / "again.medseg"
    assert run.invoke(app, [*map(str, replayed), str(again)]).exit_code == 0
    assert all(
        item.tobytes() == model_file.load(again).tensors[name].tobytes()
        for name, item in model_file.load(out).tensors.items()
    )
    retrain = [*words[:-3], "--out", tmp_path / "b.medseg", "--keep-from", out]
    retrain += ["--retrain", "haemorrhages"]
    told = run.invoke(app, list(map(str, retrain)))
    assert told.exit_code == 0 and "lesions found" in told.output
    images, masks = root / IMAGES / TRAINING, tmp_path / "found"
    words = ["segment", images, "--model", out, "--out", masks, "--probabilities"]
    words.append("--masks")
    done = run.invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    labels = tifffile.imread(masks / "IDRiD_01.tif")
    assert labels.shape == (90, 110)
    stack = tifffile.imread(masks / "probabilities" / "IDRiD_01_probabilities.tiff")
    assert stack.shape == (3, 90, 110)
    assert not stack[1:, :, :10].any(), "nothing is found in the surround"
    alone = tifffile.imread(masks / "masks" / "IDRiD_01_masks.tiff")
    assert alone.dtype == np.uint8 and alone.shape == (2, 90, 110)
    thresholds = [part.threshold for part in parts_of(model_file.load(out))]
    for mask, probability, limit in zip(alone, stack[1:], thresholds, strict=True):
        near = abs(probability - limit) < 1 / 4096  # as finely as they are written
        np.testing.assert_array_equal(mask[~near], probability[~near] > limit)
    np.testing.assert_array_equal(alone.any(axis=0), labels > 0)
    words = ["evaluate", "--pred", masks, "--truth", root, "--layout", "idrid"]
    done = run.invoke(app, [*map(str, words), "--json"])
    assert done.exit_code == 0, done.output
    scores = json.loads(done.stdout)
    assert scores["kind"] == "overlapping" and len(scores["per_image"]) == 3
    assert 0 <= scores["pooled"]["aupr_MA"] <= 1 and "aupr_HE" in scores["mean"]


def lesions_found(folder: Path, root: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Write labels as a model that knows two kinds in another order would."""
    folder.mkdir()
    truths = {}
    for pair in read_idrid(root):
        assert pair.layers is not None
        small, large = pair.layers
        labels = np.where(small, 2, np.where(large, 1, 0)).astype(np.int32)
        labels[0, :3] = 1  # wrong
        write_labels(folder / f"{pair.name}.tif", labels, axes="YX")
        stack = np.stack([np.zeros(small.shape), large, small])
        (folder / "probabilities").mkdir(exist_ok=True)
        write_probabilities(
            folder / "probabilities" / f"{pair.name}_probabilities.tiff",
            stack / 2,
            ["background", "haemorrhages", "microaneurysms"],
        )
        truths[pair.name] = pair.layers
    names = ["background", "haemorrhages", "microaneurysms"]
    (folder / "medseg.json").write_text(json.dumps({"classes": names}))
    return folder, truths


def test_predictions_are_scored_against_the_folders_of_idrid(tmp_path: Path) -> None:
    root, found = idrid(tmp_path / "data"), tmp_path / "found"
    folder, truths = lesions_found(found, root)
    (folder / "IDRiD_03.tif").unlink()
    write_labels(folder / "other.tif", np.zeros((4, 4), np.int32), axes="YX")
    result = finish(evaluate_idrid(folder, root))
    assert result.kind == "overlapping" and set(result.per_image) == set(truths) - {
        "IDRiD_03"
    }
    assert len(result.unmatched) == 2, "a photograph, and a prediction"
    second = result.per_image["IDRiD_02"]
    assert second["dice_MA"] == second["aupr_MA"] == second["lesion_recall_MA"] == 1
    large = truths["IDRiD_02"][1]
    # of those that both have, the label image gives the pixels to the smaller
    hits = (large & ~truths["IDRiD_02"][0]).sum()
    assert second["dice_HE"] == pytest.approx(2 * hits / (hits + 3 + large.sum()))
    assert second["aupr_HE"] == 1, "probabilities overlap"
    target = folder / "masks" / "IDRiD_02_masks.tiff"
    target.parent.mkdir()
    write_masks(target, truths["IDRiD_02"][::-1], ["haemorrhages", "microaneurysms"])
    by_masks = finish(evaluate_idrid(folder, root)).per_image["IDRiD_02"]
    assert by_masks["dice_HE"] == by_masks["dice_MA"] == 1, "masks overlap"
    # where none is, what is found is wrong, and there is nothing to rank
    first = result.per_image["IDRiD_01"]
    assert first["dice_HE"] == 0 and np.isnan(first["aupr_HE"])
    assert result.pooled == {"aupr": 1, "aupr_HE": 1, "aupr_MA": 1}


def test_a_table_of_scores_and_what_does_not_go_with_idrid(tmp_path: Path) -> None:
    root = idrid(tmp_path / "data")
    folder, _ = lesions_found(tmp_path / "found", root)
    run, table = CliRunner(), tmp_path / "scores.csv"
    words = ["evaluate", "--pred", str(folder), "--truth", str(root)]
    idrids = [*words, "--layout", "idrid"]
    done = run.invoke(app, [*idrids, "--out", str(table)])
    assert done.exit_code == 0 and "all pixels" in done.output
    (line,) = [each for each in done.output.splitlines() if "MA" in each]
    assert line.count("1.000") == 6, "Dice, IoU, boundary F, recall and AUPR, twice"
    heading, *rows = table.read_text().splitlines()
    assert heading.startswith("image,dice,") and "aupr_MA" in heading
    assert [row.split(",")[0] for row in rows] == ["IDRiD_01", "IDRiD_02", "IDRiD_03"]
    again = run.invoke(app, [*idrids, "--out", str(table)])
    assert again.exit_code == 2 and "--overwrite" in again.output
    for more, told in (
        (["--layout", "idrid", "--instances"], "--instances"),
        (["--layout", "messidor"], "pairs, idrid"),
    ):
        done = run.invoke(app, [*words, *more])
        assert done.exit_code == 2 and told in done.output
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="No prediction in"):
        finish(evaluate_idrid(empty, root))


def test_a_layout_that_there_is_not(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.tif", np.zeros((4, 4), np.int32), axes="YX")
    words = ["train", "--images", str(tmp_path), "--layout", "messidor"]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "a.medseg")])
    assert done.exit_code == 2 and "pairs, idrid" in done.output


def test_masks_are_for_classes_that_overlap(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.tif", np.eye(20, dtype=np.int32), axes="YX")
    words = ["segment", tmp_path / "a.tif", "--model", "otsu", "--masks"]
    done = CliRunner().invoke(app, [*map(str, words), "--out", str(tmp_path / "out")])
    assert done.exit_code in (1, 2) and "do not overlap" in done.output
    assert "Traceback" not in done.output

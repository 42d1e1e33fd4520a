"""Images without annotation: the published equations, and what they change."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch
from folders import QUICK as QUICK_OPTIONS
from folders import assert_refused, command, write_pairs
from torch import Tensor, nn

from napari_medseg import api
from napari_medseg._config import from_dict, to_dict
from napari_medseg._types import InputError, finish
from napari_medseg.io import model_file
from napari_medseg.io.pairs import Pair, Pairs, gather
from napari_medseg.models.med2d import Med2dSegNet
from napari_medseg.models.networks import Network
from napari_medseg.models.wavelet import XNetPlus
from napari_medseg.training import losses
from napari_medseg.training.conduct import Conduct
from napari_medseg.training.network_training import (
    Med2dTraining,
    NetworkTraining,
    XnetTraining,
)
from napari_medseg.training.prompt_tuning import PromptTuning
from napari_medseg.training.semi import MeanTeacher, SemiConfig, likeliest, mix
from napari_medseg.training.supervised import LabelledBatch
from napari_medseg.training.trainer import FitConfig, fit
from napari_medseg.training.unlabelled import read_unlabelled

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 64

QUICK = Med2dTraining(steps=4, window=SIZE, batch=2, device="cpu", validate=0)


class Tiny(Network):
    """A network of one convolution a branch, with as many outputs as asked for."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.branches = nn.ModuleList(
            nn.Conv2d(1, 2, 3, padding=1) for _ in range(outputs)
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.branches[0](self.norm(images))
        return logits

    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        seen = self.norm(images)
        return tuple(branch(seen) for branch in self.branches)


def views(seed: int, count: int = 4, side: int = 12) -> LabelledBatch:
    """Return random views, partly annotated."""
    generator = torch.Generator().manual_seed(seed)
    known = torch.rand(count, side, side, generator=generator)
    return LabelledBatch(
        torch.randn(count, 1, side, side, generator=generator),
        torch.stack([1 - known.round(), known.round()], dim=1),
        torch.rand(count, side, side, generator=generator),
        torch.arange(count),
        torch.zeros(count, 2, 3),
    )


def teacher_of(**settings: Any) -> MeanTeacher:
    return MeanTeacher(lambda step: views(100 + step), 8, 0, SemiConfig(**settings))


def begin(objective: MeanTeacher, outputs: int = 1, done: int = 0) -> Tiny:
    torch.manual_seed(0)
    model = Tiny(outputs)
    objective.parameters(model)
    objective.done = done
    return model


@pytest.mark.parametrize("coarse", [1, 4])
def test_pasting_is_that_of_a_loop(coarse: int) -> None:
    """Inputs, labels and weights, each on its own grid."""
    around, hole = views(1), views(2)
    if coarse > 1:  # as embeddings are
        around, hole = (
            item._replace(inputs=item.inputs[..., ::coarse, ::coarse])
            for item in (around, hole)
        )
    frame = teacher_of().frame(around)
    assert frame.shape == (12 // coarse, 12 // coarse)
    assert int((frame == 0).sum()) == (8 // coarse) ** 2
    found = mix(around, hole, frame)
    for name in ("inputs", "shares", "weight"):
        result, one, other = (getattr(item, name) for item in (found, around, hole))
        grain = result.shape[-1] // frame.shape[-1]
        for row in range(result.shape[-2]):
            for column in range(result.shape[-1]):
                stays = frame[row // grain, column // grain] == 1
                wanted = one if stays else other
                place = (..., row, column)
                assert torch.equal(result[place], wanted[place]), name


def test_rectangles_move_and_are_repeatable() -> None:
    objective = teacher_of()
    frames = []
    for step in (0, 1, 2, 0):
        objective.done = step
        frames.append(objective.frame(views(0, side=32)))
    assert torch.equal(frames[0], frames[3])
    assert not torch.equal(frames[0], frames[1]) or not torch.equal(*frames[1:3])


def test_the_teacher_is_a_moving_average() -> None:
    """It begins after the first phase; statistics follow too, counts are copied."""
    objective = teacher_of(decay=0.9)
    model = begin(objective)
    weight = model.branches[0].weight
    expected = weight.detach().clone()
    for step in range(1, 6):
        with torch.no_grad():
            weight.add_(1.0)
            model.norm.running_mean.add_(2.0)
            model.norm.num_batches_tracked.add_(1)
        objective.after_step(model, step)
        if step == 2:  # a quarter of eight
            expected = weight.detach().clone()
            mean = model.norm.running_mean.clone()
        elif step > 2:
            expected = 0.9 * expected + 0.1 * weight.detach()
            mean = 0.9 * mean + 0.1 * model.norm.running_mean
    torch.testing.assert_close(objective.teacher["branches.0.weight"], expected)
    torch.testing.assert_close(objective.teacher["norm.running_mean"], mean)
    assert int(objective.teacher["norm.num_batches_tracked"]) == 5


def test_the_loss_is_that_of_the_equations() -> None:
    """Half the sum over both mixes; regions by themselves, guessed ones half."""
    objective = teacher_of(consistency=0.5)
    model = begin(objective, outputs=3, done=4)
    batch, others = views(3), views(104)
    with torch.no_grad():
        guessed = others._replace(shares=likeliest(model(others.inputs)))
    frame = objective.frame(batch)

    def part(item: LabelledBatch, half: slice) -> LabelledBatch:
        return LabelledBatch(*(each[half] for each in item))

    first, second = slice(0, 2), slice(2, 4)
    out = mix(part(guessed, first), part(batch, first), frame)
    into = mix(part(batch, second), part(guessed, second), frame)
    logits = model.outputs(torch.cat([out.inputs, into.inputs]))
    wanted = torch.zeros(())
    for output in logits:
        for half, mixed, weights in (
            (first, out, (0.5, 1.0)),
            (second, into, (1.0, 0.5)),
        ):
            for factor, region in zip(weights, (frame, 1 - frame), strict=True):
                target = mixed.shares, mixed.weight * region
                wanted = wanted + 0.5 * factor * (
                    losses.soft_dice(output[half], *target)
                    + losses.soft_cross_entropy(output[half], *target)
                )
    main, low, high = (output[first] for output in logits)
    apart = torch.zeros(())
    for one, other in ((low, main), (high, main), (main, low), (main, high)):
        apart = apart + losses.soft_dice(one, likeliest(other), out.weight)
    # the third of the six steps with a teacher
    wanted = wanted + 0.5 * 3 / 6 * apart
    model.norm.reset_running_stats()
    loss, figures = objective.step(model, batch)
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(figures["consistency"], apart)


def test_consistency_reaches_the_gradient() -> None:
    """Of every branch: with it the gradient is another one than without."""
    found = []
    for weight in (0.0, 0.5):
        objective = teacher_of(consistency=weight)
        model = begin(objective, outputs=3, done=7)
        loss, _ = objective.step(model, views(3))
        loss.backward()
        found.append([branch.weight.grad for branch in model.branches])
    for without, with_it in zip(*found, strict=True):
        assert without is not None and with_it is not None
        assert (without - with_it).abs().max() > 1e-5


@pytest.mark.parametrize("count", [1, 2, 3])
def test_small_batches(count: int) -> None:
    objective = teacher_of()
    model = begin(objective, outputs=2, done=5)
    loss, _ = objective.step(model, views(3, count=count))
    loss.backward()
    assert torch.isfinite(loss)


def test_the_teacher_is_kept_in_checkpoints(tmp_path: Path) -> None:
    """A run that was killed in either phase goes on as if it had not been."""

    def run(steps: int, path: Path | None) -> Tiny:
        objective = teacher_of(decay=0.5)
        torch.manual_seed(0)
        model = Tiny(2)
        config = FitConfig(steps=8, stop_at=steps, device="cpu", learning_rate=0.05)
        finish(fit(model, objective, views, config, checkpoint=path))
        return model

    expected = run(8, None).state_dict()
    for stop in (1, 5):
        path = tmp_path / f"{stop}.safetensors"
        run(stop, path)
        resumed = run(8, path).state_dict()
        for name, item in expected.items():
            assert torch.equal(item, resumed[name]), (stop, name)


# --- whole trainings --------------------------------------------------------------


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the network small; `test_networks` has it in full."""

    def build(kind: type[Med2dSegNet], channels: int, classes: int) -> Med2dSegNet:
        return kind(channels, classes, (8, 12, 16), blocks=1)

    monkeypatch.setattr(Med2dSegNet, "build", classmethod(build))


def picture(number: int) -> Pair:
    """Return a noisy image with one disc."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:SIZE, : SIZE + 10]
    y, x = rng.integers(12, SIZE - 12, 2)
    labels = ((rows - y) ** 2 + (columns - x) ** 2 < 120).astype(np.int32)
    image = 0.4 * labels + rng.normal(0.2, 0.05, labels.shape)
    return Pair(f"im{number}", image.astype(np.float32)[None], labels)


def pairs(count: int) -> Pairs:
    return gather([picture(number) for number in range(count)])


def folder_of(path: Path, numbers: range) -> str:
    path.mkdir()
    for number in numbers:
        tifffile.imwrite(path / f"im{number}.tif", picture(number).image[0])
    return str(path)


def train(config: NetworkTraining | PromptTuning, **conduct: Any) -> Any:
    return finish(api.train_job(pairs(2), config, Conduct(**conduct)))


def digest(trained: Any) -> str:
    return model_file.digest(trained.model_file)


def weights_of(trained: Any) -> np.ndarray:
    tensors = trained.model_file.tensors
    return np.concatenate([tensors[name].ravel() for name in sorted(tensors)])


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("method", ["med2d", "xnet", "ptsam", "ptsam-encoder"])
def test_images_without_annotation_change_a_training(
    method: str, sam: str, tmp_path: Path
) -> None:
    """The card says how many and not where; a run file gives the same again."""
    few = {"steps": 4, "batch": 2, "device": "cpu", "validate": 0}
    tuning = PromptTuning(sam=sam, working_size=SIZE, views=1, **few)
    config: Any = {
        "med2d": QUICK,
        "xnet": XnetTraining(window=SIZE, width=8, **few),
        "ptsam": tuning,
        "ptsam-encoder": replace(tuning, encoder_prompts=1),
    }[method]
    first = folder_of(tmp_path / "first", range(5))
    second = folder_of(tmp_path / "second", range(7, 10))
    found = train(replace(config, unlabelled=first))
    card = found.model_file.card
    # the first two are annotated
    assert card.provenance["unlabelled"]["images"] == found.report.unlabelled == 3
    assert "2 images and 3 without labels" in card.title
    assert card.config["unlabelled"] == "first"
    assert str(tmp_path) not in json.dumps(card.config)
    values = json.loads(json.dumps(to_dict(found.config)))
    again = train(from_dict(type(config), values, "run.yaml"))
    assert digest(again) == digest(found)
    alone = train(config)
    assert "unlabelled" not in alone.model_file.card.provenance
    other = train(replace(config, unlabelled=second))
    assert np.abs(weights_of(found) - weights_of(other)).max() > 1e-5
    assert np.abs(weights_of(found) - weights_of(alone)).max() > 1e-5


@pytest.mark.usefixtures("_small")
def test_a_killed_run_is_resumed(tmp_path: Path) -> None:
    config = replace(QUICK, unlabelled=folder_of(tmp_path / "more", range(2, 5)))
    expected = train(config)
    folder = tmp_path / "checkpoints"
    job = api.train_job(pairs(2), config, Conduct(checkpoints=folder))
    while next(job).message != "training":
        pass
    next(job)
    next(job)
    job.close()
    assert digest(train(config, checkpoints=folder)) == digest(expected)
    # other images are another training
    tifffile.imwrite(tmp_path / "more" / "im9.tif", picture(9).image[0])
    train(config, checkpoints=folder)
    assert len(list(folder.glob("*.safetensors"))) == 2


def test_noise_and_images_without_annotation_exclude_one_another(
    tmp_path: Path,
) -> None:
    config = replace(QUICK, unlabelled=str(tmp_path), label_noise="spatial")
    with pytest.raises(InputError, match="--label-noise and --unlabelled"):
        train(config)


# --- reading ----------------------------------------------------------------------


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "more", range(4))
    (tmp_path / "more" / "broken.tif").write_bytes(b"no image")
    tifffile.imwrite(tmp_path / "more" / "flat.tif", np.ones((20, 20), np.float32))
    tifffile.imwrite(
        tmp_path / "more" / "two.tif",
        np.random.rand(2, 20, 20).astype(np.float32),
        photometric="minisblack",
        metadata={"axes": "CYX"},
    )
    tifffile.imwrite(
        tmp_path / "more" / "im3_mask.tif", picture(3).annotation.astype(np.uint8)
    )
    stack = np.random.rand(3, 20, 20).astype(np.float32)
    tifffile.imwrite(
        tmp_path / "more" / "stack.tif",
        stack,
        photometric="minisblack",
        metadata={"axes": "ZYX"},
    )
    found = finish(read_unlabelled(folder, pairs(2), 0))
    assert sorted(found.names) == ["im2.tif", "im3.tif", *["stack.tif"] * 3]
    (note,) = found.notes
    assert note.startswith("3 of the files")
    for name in ("broken.tif", "flat.tif is constant", "two.tif has 2 channels"):
        assert name in note
    assert finish(read_unlabelled("", pairs(2), 0)).images == ()


def test_colours_beside_grey_annotated_images_become_grey(tmp_path: Path) -> None:
    annotated = pairs(2)
    for place in range(3):
        colours = np.stack([picture(place).image[0]] * 3, axis=-1)
        tifffile.imwrite(tmp_path / f"im{place}.tif", colours, photometric="rgb")
    found = finish(read_unlabelled(str(tmp_path), annotated, 0))
    # the other two are annotated, though saved otherwise
    assert found.names == ("im2.tif",)
    np.testing.assert_array_equal(found.images[0], picture(2).image)


def test_a_folder_that_gives_nothing_is_refused(tmp_path: Path) -> None:
    def refused(folder: Path | str) -> str:
        with pytest.raises(InputError) as caught:
            finish(read_unlabelled(str(folder), pairs(2), 0))
        return str(caught.value)

    assert "does not exist" in refused(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "holds no image" in refused(tmp_path / "empty")
    assert "are annotated" in refused(folder_of(tmp_path / "same", range(2)))
    (tmp_path / "empty" / "broken.tif").write_bytes(b"no image")
    assert "broken.tif" in refused(tmp_path / "empty")


def test_of_many_some_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_medseg.training.unlabelled.MOST", 3)
    folder = folder_of(tmp_path / "more", range(2, 12))
    first, again, other = (
        finish(read_unlabelled(folder, pairs(2), seed)) for seed in (0, 0, 1)
    )
    assert len(first) == 3
    assert first.digest == again.digest != other.digest


def test_an_image_beyond_the_memory_left_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_medseg.training.unlabelled.MOST_BYTES", 1 << 16)
    folder = folder_of(tmp_path / "more", range(2, 4))
    tifffile.imwrite(tmp_path / "more" / "slide.tif", np.zeros((4000, 4000), np.uint8))
    found = finish(read_unlabelled(folder, pairs(2), 0))
    assert "slide.tif" not in found.names
    assert "slide.tif has 4000 × 4000 pixels, too many" in found.notes[0]


def test_a_replay_on_other_images_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "more", range(2, 4))
    done = finish(read_unlabelled(folder, pairs(2), 0))
    done.check_same((done.digest,))
    done.check_same(())
    (tmp_path / "more" / "im3.tif").unlink()
    less = finish(read_unlabelled(folder, pairs(2), 0))
    with pytest.raises(InputError, match="added, taken away or changed"):
        less.check_same((done.digest,))


def test_from_the_command_line(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "data")
    more = write_pairs(tmp_path / "more", 3, seed=9) / "images"
    out = tmp_path / "a.medseg"
    words = ("train", "--images", data / "images", "--masks", data / "masks")
    result = command(
        *words, "--out", out, *QUICK_OPTIONS, "--unlabelled", more, "--json"
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["unlabelled"] == 3
    run = out.with_suffix(".run.yaml")
    assert str(more.absolute()) in run.read_text(encoding="utf-8")
    again = tmp_path / "b.medseg"
    result = command("train", "--config", run, "--out", again)
    assert result.exit_code == 0, result.output
    assert again.read_bytes() == out.read_bytes()
    third = ("--out", tmp_path / "c.medseg", *QUICK_OPTIONS)
    nowhere = command(*words, *third, "--unlabelled", tmp_path / "nowhere")
    assert_refused(nowhere, "nowhere does not exist")


def test_xnet_says_the_same_alone_as_with_its_branches() -> None:
    torch.manual_seed(0)
    network = XNetPlus(2, 3, 8).eval()
    images = torch.randn(2, 2, 48, 33)
    with torch.no_grad():
        main, low, high = network.outputs(images)
        assert torch.equal(network(images), main)
    assert low.shape == high.shape == main.shape
    assert not torch.equal(low, main)


def test_without_wavelets_all_of_xnet_sees_the_image_itself() -> None:
    """The weights are the same in number, so that the wavelets alone make the odds."""
    torch.manual_seed(0)
    plain = XNetPlus.build(1, 2, width=8, bands="none").eval()
    usual = XNetPlus.build(1, 2, width=8, bands=None).eval()
    usual.load_state_dict(plain.state_dict())
    seen: list[torch.Tensor] = []
    plain.low_encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    images = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        first, second = plain(images), usual(images)
    assert torch.equal(seen[0], images)
    assert not torch.equal(first, second)

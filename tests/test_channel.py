"""A channel added to a UNETR: what stays, what is learned, files and commands."""

from __future__ import annotations

import builtins
import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from monai.networks.nets.unetr import UNETR
from typer.testing import CliRunner

from napari_medseg import api
from napari_medseg._types import InputError, MedsegError, ModelFileError, finish
from napari_medseg.cli.app import app
from napari_medseg.inference import Segmenter, load, open_segmenter
from napari_medseg.io import model_file
from napari_medseg.io.images import read_annotation
from napari_medseg.io.pairs import Pair, Pairs, gather
from napari_medseg.models.adapter_settings import AdapterConfig
from napari_medseg.models.adapters import (
    MODES,
    AddedChannel,
    Mode,
    Present,
    WithoutAdapter,
    adapter_state,
)
from napari_medseg.models.unetr import GRID, PATCH, Unetr
from napari_medseg.training.channel import (
    ModalityDropout,
    NewChannel,
    channels_of,
    study_of,
)
from napari_medseg.training.channel_training import ChannelTraining
from napari_medseg.training.checkpoint import changing
from napari_medseg.training.conduct import Conduct
from napari_medseg.training.network_training import UnetrTraining
from napari_medseg.training.supervised import LabelledBatch, Supervised

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

SIZE = 64

SMALL = {"hidden": 32, "depth": 4, "heads": 2}

KINDS = ("lora", "dora")


def base(channels: int = 1, classes: int = 2) -> Unetr:
    torch.manual_seed(0)
    return Unetr.build(channels, classes, **SMALL)


def added(
    old: Unetr | None = None, *, moved: bool = False, **config: Any
) -> AddedChannel:
    """Return a network with a channel more, as it begins or as if it were trained."""
    network = AddedChannel(old or base(), AdapterConfig(**config))
    if moved:
        torch.manual_seed(5)
        with torch.no_grad():
            for item in adapter_state(network).values():
                item.add_(0.1 * torch.randn(item.shape))
    return network


def windows(count: int = 2, channels: int = 2) -> Tensor:
    return torch.randn(
        count, channels, 48, 70, generator=torch.Generator().manual_seed(1)
    )


# --------------------------------------------------------------------------- UNETR


def test_unetr_is_that_of_monai() -> None:
    """In the window whose places are learned, number by number."""
    settings = {"hidden_size": 48, "mlp_dim": 192, "num_heads": 3, "spatial_dims": 2}
    side = GRID * PATCH
    torch.manual_seed(0)
    published = UNETR(2, 3, side, feature_size=16, **settings)
    network = Unetr(2, 3, hidden=48, heads=3)
    found = network.body.load_state_dict(published.state_dict(), strict=False)
    assert not found.missing_keys
    assert all("cross_attn" in key for key in found.unexpected_keys)
    images = torch.randn(1, 2, side, side)
    with torch.no_grad():
        assert torch.equal(network(images), published(images))


def test_heads_divide_the_tokens() -> None:
    with pytest.raises(InputError, match="5 heads do not divide; choose 60"):
        UnetrTraining(hidden=64, heads=5)


# ------------------------------------------------------------- the old network stays


@pytest.mark.parametrize("adapter", KINDS)
@pytest.mark.parametrize("precise", [True, False])
def test_it_begins_as_the_old_network_bit_for_bit(adapter: str, precise: bool) -> None:
    """With both channels and with the old one alone; in training and in use."""
    old, images = base(), windows()
    network = added(old, adapter=adapter)
    for training in (True, False):
        network.train(training)
        with (
            torch.no_grad(),
            torch.autocast("cpu", torch.bfloat16, enabled=not precise),
        ):
            wanted = old(images[:, :1])
            assert torch.equal(network(images), wanted)
            assert torch.equal(network(images, "old"), wanted)
            assert torch.equal(network(images[:, :1], "old"), wanted)
            assert not torch.equal(network(images, "new"), wanted)


@pytest.mark.parametrize("adapter", KINDS)
def test_without_what_was_added_the_old_network_is_back(adapter: str) -> None:
    """After a training that moved every number."""
    images = windows()
    untouched, old = base(), base()
    network = added(old, moved=True, adapter=adapter)
    with torch.no_grad():
        wanted = untouched(images[:, :1])
        assert not torch.equal(network(images, "old"), wanted)
        assert torch.equal(WithoutAdapter(network.base)(images), wanted)
    for name, item in untouched.state_dict().items():
        assert torch.equal(item, old.state_dict()[name])


def test_each_mode_sees_its_channels_alone() -> None:
    network, images = added(moved=True).eval(), windows()
    other_new, other_old = images.clone(), images.clone()
    other_new[:, -1] += 1.0
    other_old[:, 0] += 1.0
    with torch.no_grad():
        given = {mode: network(images, mode) for mode in MODES}
        assert torch.equal(network(other_new, "old"), given["old"])
        assert torch.equal(network(other_old, "new"), given["new"])
        assert torch.equal(network(images[:, -1:], "new"), given["new"])
        assert not torch.equal(network(other_new), given["both"])
        assert not torch.equal(network(other_old), given["both"])
        # no channel of zeros stands for one that is missing
        zeros = images * torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
        assert not torch.equal(network(zeros), given["old"])
        for mode in MODES:
            assert torch.equal(Present(network, mode)(images), given[mode])


def test_several_old_channels() -> None:
    old, images = base(channels=3), windows(channels=4)
    network = added(old)
    with torch.no_grad():
        assert torch.equal(network(images), old(images[:, :3]))


# -------------------------------------------------------------------- what is learned


@pytest.mark.parametrize("adapter", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_gradients_reach_what_was_added_alone(mode: Mode, adapter: str) -> None:
    network, images = added(moved=True, adapter=adapter), windows()
    (network(images, mode) ** 2).mean().backward()
    assert all(item.grad is None for item in network.base.parameters())
    reached = {
        name
        for name, item in network.named_parameters()
        if item.grad is not None and item.grad.any()
    }
    state = adapter_state(network)
    parts = {
        "both": ("embedding.", "fusion.", "path.", "joint.", "blocks.both."),
        "old": ("blocks.old.",),
        "new": ("embedding.", "alone.", "path.", "joint.", "blocks.new."),
    }[mode]
    assert reached == {name for name in state if name.startswith(parts)}


def test_what_is_trained_is_what_a_file_holds() -> None:
    network = added()
    assert set(changing(network)) == set(adapter_state(network))
    full = AddedChannel(Unetr.build(1, 2), AdapterConfig())
    count = sum(item.numel() for item in adapter_state(full).values())
    whole = sum(item.numel() for item in full.base.parameters())
    assert 0.07 < count / whole < 0.08


@pytest.mark.parametrize("adapter", KINDS)
def test_low_rank_changes_are_those_of_the_equations(adapter: str) -> None:
    """W + (α/r) B A; DoRA: m (W + (α/r) B A) / |W + (α/r) B A|, an output row each."""
    network = added(moved=True, adapter=adapter, rank=4, alpha=12).eval()
    tokens = torch.randn(2, 5, SMALL["hidden"])
    for mode in MODES:
        block: Any = network.get_submodule(f"blocks.{mode}.1.attn")
        for name in ("qkv", "out_proj"):
            layer, plain = (
                getattr(block, name),
                getattr(network.base.blocks[1].attn, name),
            )
            state = layer.state_dict()
            down, up = state["lora_A.default.weight"], state["lora_B.default.weight"]
            change = sum(torch.outer(up[:, each], down[each]) for each in range(4))
            weight = plain.weight + 12 / 4 * change
            if adapter == "dora":
                lengths = state["lora_magnitude_vector.default.weight"]
                weight = lengths[:, None] * weight / weight.norm(dim=1, keepdim=True)
            wanted = torch.nn.functional.linear(tokens, weight, plain.bias)
            torch.testing.assert_close(layer(tokens), wanted, rtol=1e-4, atol=1e-5)


def test_channels_are_left_out_as_often_as_published() -> None:
    torch.manual_seed(0)
    drawn = Counter(ModalityDropout(Supervised()).draw() for _ in range(4000))
    for mode, share in (("both", 0.6), ("old", 0.2), ("new", 0.2)):
        assert abs(drawn[mode] / 4000 - share) < 0.025
    always = ModalityDropout(Supervised(), both=0.0, old=0.0)
    assert {always.draw() for _ in range(20)} == {"new"}


def test_a_step_sees_what_was_drawn() -> None:
    network, images = added(moved=True).eval(), windows()[..., :48]
    shares = torch.full((2, 2, 48, 48), 0.5)
    batch = LabelledBatch(
        images, shares, torch.ones(2, 48, 48), torch.arange(2), torch.eye(2, 3)
    )
    plain = Supervised()
    for mode, often in (("both", (1.0, 0.0)), ("old", (0.0, 1.0)), ("new", (0.0, 0.0))):
        found, _ = ModalityDropout(plain, *often).step(network, batch)
        wanted, _ = plain.step(Present(network, mode), batch)  # type: ignore[arg-type]
        assert torch.equal(found, wanted)


def test_shares_and_settings_that_exclude_one_another() -> None:
    with pytest.raises(InputError, match="more than all"):
        ChannelTraining(both=0.9, old_alone=0.2)
    with pytest.raises(InputError, match="domains cannot be used"):
        ChannelTraining(domains="prefix")


@pytest.mark.parametrize(
    ("old", "count", "new", "wanted"),
    [
        ((0,), 2, None, (0, 1)),
        ((0,), 2, 1, (0, 1)),
        ((0,), 2, 0, (1, 0)),
        ((1,), 2, None, (1, 0)),
        ((0, 1), 3, 0, (1, 2, 0)),
        ((0,), 4, 2, (0, 2)),
    ],
)
def test_which_channel_is_which(
    old: tuple[int, ...], count: int, new: int | None, wanted: tuple[int, ...]
) -> None:
    assert channels_of(old, count, new) == wanted


@pytest.mark.parametrize(
    ("old", "count", "new", "told"),
    [
        ((0,), 3, None, "say which is the new one"),
        ((0,), 1, None, "have 1 channel, and"),
        ((0,), 2, 2, "channels 0 to 1"),
        ((0,), 4, 0, "Save images"),
    ],
)
def test_channels_that_cannot_be_told(
    old: tuple[int, ...], count: int, new: int | None, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        channels_of(old, count, new)


# ------------------------------------------------------------------------ from images


def pair(number: int) -> Pair:
    """Return an image with a disc that each of two channels shows in its own way."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:SIZE, : SIZE + 10]
    y, x = rng.integers(14, SIZE - 14, 2)
    labels = ((rows - y) ** 2 + (columns - x) ** 2 < 150).astype(np.int32)
    image = rng.normal(0.3, 0.1, (2, *labels.shape))
    image[0] -= 0.3 * labels
    image[1] += 0.5 * labels
    return Pair(f"im{number}", image.astype(np.float32), labels)


def pairs(count: int) -> Pairs:
    return gather([pair(number) for number in range(count)])


def first_channel(data: Pairs) -> Pairs:
    return gather([replace(item, image=item.image[:1]) for item in data])


OLD = UnetrTraining(steps=3, window=SIZE, batch=2, device="cpu", validate=1, **SMALL)

CHANNEL = ChannelTraining(steps=4, batch=2, device="cpu", validate=1)


@pytest.fixture(scope="module")
def old_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the model file of a small UNETR that knows one channel."""
    trained = finish(api.train_job(first_channel(pairs(4)), OLD, Conduct()))
    path = tmp_path_factory.mktemp("old") / "old.medseg"
    return model_file.save(path, trained.model_file)


@pytest.fixture(scope="module")
def channel_file(old_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a channel that was added to it, in another folder."""
    config = replace(CHANNEL, start_from=str(old_file))
    trained = finish(api.train_job(pairs(4), config, Conduct()))
    path = tmp_path_factory.mktemp("channel") / "both.medseg"
    return model_file.save(path, trained.model_file)


def test_the_file_is_small_and_names_its_base(
    old_file: Path, channel_file: Path
) -> None:
    old, found = model_file.load(old_file), model_file.load(channel_file)
    assert found.card.kind == "unetr-channel"
    assert found.card.base["sha256"] == model_file.digest(old)
    assert found.card.base["name"] == found.card.config["start_from"] == "old.medseg"
    assert found.card.normalisation["channels"] == [0, 1]
    assert found.card.framing == old.card.framing
    assert set(found.tensors) == set(adapter_state(added()))
    assert {"untuned", "old_alone", "new_alone"} <= set(found.card.scores)


def test_what_was_added_goes_round(old_file: Path, channel_file: Path) -> None:
    """The network of the file is the one that was trained, in every mode."""
    config = replace(CHANNEL, start_from=str(old_file))
    study = study_of(pairs(4), config)
    finish(study.run())
    trained = study.trained.eval()
    network: Any = load(channel_file, "cpu", str(old_file)).network
    with torch.no_grad():
        for mode in MODES:
            assert torch.equal(network(windows(), mode), trained(windows(), mode))


def test_another_base_is_refused(
    old_file: Path, channel_file: Path, tmp_path: Path
) -> None:
    stranger = replace(OLD, seed=1, steps=1)
    trained = finish(api.train_job(first_channel(pairs(2)), stranger, Conduct()))
    other = model_file.save(tmp_path / "other.medseg", trained.model_file)
    with pytest.raises(
        ModelFileError, match=r"another model than .*old.medseg.*--base"
    ):
        load(channel_file, "cpu", str(other))
    # weights folders of tests are empty, so that nothing was noted
    with pytest.raises(ModelFileError, match=r"not here.*same folder.*--base"):
        load(channel_file, "cpu")
    # beside it, without being named; and a training notes where it was
    copied = tmp_path / "both.medseg"
    copied.write_bytes(channel_file.read_bytes())
    (tmp_path / "old.medseg").write_bytes(old_file.read_bytes())
    load(copied, "cpu")
    load(channel_file, "cpu")


def test_a_damaged_file_is_refused(old_file: Path, channel_file: Path) -> None:
    found = model_file.load(channel_file)
    tensors = dict(found.tensors)
    del tensors["fusion.bias"]
    with pytest.raises(ModelFileError, match="do not fit its card"):
        Segmenter(replace(found, tensors=tensors), "cpu", str(old_file))
    ranked = replace(found.card, config={**found.card.config, "rank": 2})
    with pytest.raises(ModelFileError, match="do not fit its card"):
        Segmenter(replace(found, card=ranked), "cpu", str(old_file))


def test_either_channel_alone(old_file: Path, channel_file: Path) -> None:
    """From images that have both, and from such that have just the one."""
    image = pair(9).image
    both = load(channel_file, "cpu", str(old_file))
    found = {"": both.predict(image).probabilities}
    for alone, channel in (("old", 0), ("new", 1)):
        one = open_segmenter(str(channel_file), "cpu", str(old_file), alone)
        assert one.identity != both.identity
        found[alone] = one.predict(image).probabilities
        lonely = one.predict(image[channel : channel + 1]).probabilities
        np.testing.assert_array_equal(lonely, found[alone])
    assert not np.array_equal(found["old"], found["new"])
    assert not np.array_equal(found["old"], found[""])
    with pytest.raises(InputError, match=r"1 channel.*--alone old, or --alone new"):
        both.predict(image[:1])
    with pytest.raises(InputError, match="Only a model that a channel was added to"):
        open_segmenter(str(old_file), "cpu", alone="new")
    with pytest.raises(InputError, match="sees all the channels"):
        open_segmenter("otsu", "cpu", alone="new")


def test_a_run_is_replayed_and_reported(old_file: Path) -> None:
    config = replace(CHANNEL, start_from=str(old_file), adapter="dora")
    first = finish(api.train_job(pairs(4), config, Conduct()))
    again = finish(api.train_job(pairs(4), first.config, Conduct()))
    assert model_file.digest(first.model_file) == model_file.digest(again.model_file)
    report = first.report
    assert report.compared is not None
    assert report.compared[0] == "the old model on its own channel"
    assert set(report.alone) == {"old", "new"}
    told = json.loads(json.dumps(report.to_dict()))
    assert {"old_alone", "new_alone"} <= set(told)
    assert told["untuned_name"] == report.compared[0]
    assert any("went on from another model" in item for item in report.warnings)


def test_it_begins_with_the_score_of_the_old_model(old_file: Path) -> None:
    """Before the first step both channels are worth what the old one was."""
    config = replace(CHANNEL, start_from=str(old_file), learning_rate=0.0)
    report = finish(api.train_job(pairs(4), config, Conduct())).report
    assert report.held_out == report.untuned == report.alone["old"]


def test_what_a_channel_cannot_be_added_to(
    old_file: Path, channel_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="Which model shall get another channel"):
        NewChannel.of(CHANNEL)
    with pytest.raises(InputError, match="made by the method unetr-channel"):
        NewChannel.of(replace(CHANNEL, start_from=str(channel_file)))
    found = model_file.load(old_file)
    joint = {**found.card.normalisation, "joint": True}
    coloured = replace(found, card=replace(found.card, normalisation=joint))
    path = model_file.save(tmp_path / "colours.medseg", coloured)
    with pytest.raises(InputError, match="trained on colour images"):
        study_of(pairs(2), replace(CHANNEL, start_from=str(path)))
    more = [replace(item, annotation=2 * item.annotation) for item in pairs(2)]
    more[0] = pair(0)
    study = study_of(gather(more), replace(CHANNEL, start_from=str(old_file)))
    with pytest.raises(InputError, match=r"knows 1 classes .* show 2"):
        study.model((0, 1))


def test_without_peft_a_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name == "peft":
            raise ModuleNotFoundError("No module named 'peft'")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    old = base()
    with pytest.raises(MedsegError, match=r'pip install "napari-medseg\[adapters\]"'):
        AddedChannel(old, AdapterConfig())


def test_from_the_command_line(tmp_path: Path) -> None:
    """The old channel, then both; folders with both, and with either alone."""
    import tifffile

    folders = {name: tmp_path / name for name in ("one", "two", "new", "masks")}
    for folder in folders.values():
        folder.mkdir()
    for item in pairs(3):
        named = f"{item.name}.tif"
        axes = {"axes": "CYX"}
        tifffile.imwrite(folders["two"] / named, item.image[::-1].copy(), metadata=axes)
        tifffile.imwrite(folders["one"] / named, item.image[0])
        tifffile.imwrite(folders["new"] / named, item.image[1])
        tifffile.imwrite(folders["masks"] / named, item.annotation)
    old, both = tmp_path / "old.medseg", tmp_path / "both.medseg"
    short = ("--steps", "2", "--batch", "2", "--validate", "1", "--json")
    shape = ("--window", "64", "--hidden", "32", "--depth", "4", "--heads", "2")
    masks = ("--masks", folders["masks"])
    command("train", "--method", "unetr", "--images", folders["one"], *masks,
            "--out", old, *short, *shape)  # fmt: skip
    told = command("train", "--method", "unetr-channel", "--start-from", old,
                   "--add-channel", "0", "--images", folders["two"], *masks,
                   "--out", both, *short)  # fmt: skip
    assert 0.0 <= json.loads(told)["new_alone"] <= 1.0
    assert model_file.read_card(both).normalisation["channels"] == [1, 0]
    results = {}
    for name, folder, alone in (
        ("both", "two", ()),
        ("old", "one", ("--alone", "old")),
        ("new", "new", ("--alone", "new")),
        ("old of two", "two", ("--alone", "old")),
    ):
        out = tmp_path / f"labels of {name}"
        command("segment", folders[folder], "--model", both, "--out", out, *alone)
        found = sorted(out.glob("*.tif"))
        assert len(found) == 3
        results[name] = read_annotation(found[0]).labels
    np.testing.assert_array_equal(results["old"], results["old of two"])


def command(*words: str | Path) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.stdout

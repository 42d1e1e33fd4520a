"""Files of several stains: which channel a model sees, and where it is remembered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile
import yaml
from folders import QUICK, assert_refused, command, write_pairs

from napari_medseg import large, reviewing
from napari_medseg._types import InputError, Progress, finish
from napari_medseg.batch import BatchSettings, read_ledger
from napari_medseg.batch.ledger import Recipe
from napari_medseg.batch.process import Task, worker_of
from napari_medseg.io.channel_choice import ALL, ChannelChoice
from napari_medseg.io.image_file import ImageFile
from napari_medseg.io.images import read_annotation, read_image
from napari_medseg.io.model_file import ModelCard, read_card
from napari_medseg.io.pairs import check_pairs, read_pairs
from napari_medseg.io.pixels import FilePixels
from napari_medseg.quality.settings import QualitySettings
from napari_medseg.remembered import trained_channels
from napari_medseg.reviewing import References, estimate_folder
from napari_medseg.training.unlabelled import read_unlabelled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_medseg.quality.estimating import Estimate


def composite(path: Path, data: NDArray[Any], axes: str = "CYX") -> Path:
    """Write channels that are no colours."""
    tifffile.imwrite(path, data, imagej=True, metadata={"axes": axes})
    return path


def as_composites(folder: Path, *, place: int = 2, count: int = 3) -> None:
    """Put each image of a folder into one of several channels; the others are noise."""
    rng = np.random.default_rng(5)
    for path in sorted(folder.glob("*.tif")):
        image = tifffile.imread(path)
        stains = rng.integers(0, 255, (count, *image.shape)).astype(image.dtype)
        stains[place] = image
        path.unlink()
        composite(path, stains)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of annotated cells that are in channel 2 of three."""
    folder = write_pairs(tmp_path / "stains")
    as_composites(folder / "images")
    return folder


@pytest.fixture
def single(tmp_path: Path) -> Path:
    """The same cells, in images of one channel."""
    return write_pairs(tmp_path / "single")


def trained(folder: Path, out: Path, *options: Any) -> Path:
    """Train for a second by the command."""
    done = command(
        "train",
        *("--images", folder / "images", "--masks", folder / "masks"),
        *("--out", out, "--validate", 0, *QUICK, *options),
    )
    assert done.exit_code == 0, done.output
    return out


def labels_in(folder: Path) -> dict[str, NDArray[Any]]:
    """Return the label images of a run by name."""
    return {path.name: read_annotation(path).labels for path in folder.glob("*.tif")}


# --- files ------------------------------------------------------------------------


@pytest.fixture(params=["memory", "file"])
def stack(tmp_path: Path, request: pytest.FixtureRequest) -> ImageFile:
    """A stack of two slices and four channels, in memory or as it lies in a file."""
    data = np.arange(2 * 4 * 5 * 6, dtype=np.uint16).reshape(2, 4, 5, 6)
    image = read_image(composite(tmp_path / "a.tif", data, "ZCYX"))
    assert image.axes == "ZCYX"
    if request.param == "memory":
        return ImageFile(image.path, data, "ZCYX")
    return image


def test_only_the_channels_that_were_chosen_are_read(stack: ImageFile) -> None:
    whole = [plane for _, plane in stack.slices()]
    for chosen in ((2,), (3, 0), (1, 2), (2, 2)):
        seen = stack.of_channels(chosen)
        assert seen.channels == len(chosen)
        assert (seen.slice_count, seen.size) == (2, (5, 6))
        for (index, plane), before in zip(seen.slices(), whole, strict=True):
            np.testing.assert_array_equal(plane, before[list(chosen)])
            part = FilePixels(seen, index).region(slice(1, 3), slice(2, 6))
            np.testing.assert_array_equal(part, plane[:, 1:3, 2:6])
            np.testing.assert_array_equal(seen.sample(index), plane)


def test_a_choice_among_chosen_channels_is_of_those(stack: ImageFile) -> None:
    again = stack.of_channels((3, 1)).of_channels((1,))
    first = next(plane for _, plane in stack.slices())
    np.testing.assert_array_equal(again.region({"Z": 0}), first[[1]])


def test_channels_that_are_not_there_are_named(stack: ImageFile) -> None:
    with pytest.raises(InputError, match=r"a\.tif has no channel 4 \(there are 4,"):
        stack.of_channels((0, 4))


def test_channels_of_colours_are_no_colours(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (8, 9, 3), np.uint8)
    imageio.imwrite(tmp_path / "a.png", colours)
    image = read_image(tmp_path / "a.png")
    assert image.rgb
    blue = image.of_channels((2,))
    assert not blue.rgb
    np.testing.assert_array_equal(blue.plane()[0], colours[..., 2])


def test_a_grey_image_has_channel_0_alone(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.eye(9, dtype=np.uint8))
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.of_channels((0,)).plane(), image.plane())
    with pytest.raises(InputError, match=r"no channel 1 \(there is 1,"):
        image.of_channels((1,))


# --- the rule ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "channels", "seen", "told"),
    [
        (ALL, 3, (), False),
        (ChannelChoice(chosen=(1,)), 3, (1,), False),
        (ChannelChoice(chosen=(1,), learned=(2,), needed=1), 3, (1,), False),
        (ChannelChoice(chosen=(1,)), 1, (), False),
        (ChannelChoice(learned=(2,), needed=1), 3, (2,), False),
        (ChannelChoice(learned=(2,), needed=1), 1, (), False),
        (ChannelChoice(learned=(2,), needed=1), 2, (0,), True),
        (ChannelChoice(needed=1), 3, (0,), True),
        (ChannelChoice(needed=1), 1, (), False),
        (ChannelChoice(needed=2), 4, (0, 1), True),
        (ChannelChoice(needed=3), 2, (), False),
    ],
)
def test_who_chose_comes_first_then_what_was_learned(
    choice: ChannelChoice, channels: int, seen: tuple[int, ...], told: bool
) -> None:
    image = ImageFile(Path("a.tif"), np.zeros((channels, 4, 4)), "CYX")
    assert choice.of(image).shown == seen
    assert bool(choice.note(image)) == told


def test_colours_are_left_to_the_model_that_learned_nothing_else() -> None:
    colours = ImageFile(Path("a.png"), np.zeros((3, 4, 4)), "CYX", rgb=True)
    assert ChannelChoice(needed=1).of(colours) is colours
    assert ChannelChoice(needed=1).note(colours) == ""
    assert ChannelChoice(learned=(2,), needed=1).of(colours).shown == (2,)


def test_channels_below_0_are_refused() -> None:
    with pytest.raises(InputError, match="counted from 0"):
        ChannelChoice(chosen=(-1,))


# --- annotated images -------------------------------------------------------------


def test_pairs_of_a_channel_are_those_of_its_images(data: Path, single: Path) -> None:
    seen = read_pairs(
        data / "images", data / "masks", channels=ChannelChoice(chosen=(2,))
    )
    plain = read_pairs(single / "images", single / "masks")
    assert seen.channels == 1
    assert seen.shown == (2,)
    assert seen.digest == plain.digest


def test_images_of_other_channels_can_be_mixed_where_one_is_chosen(data: Path) -> None:
    path = data / "images" / "cell 1.tif"
    composite(path, tifffile.imread(path)[1:])
    folders = data / "images", data / "masks"
    assert any("2 channels" in str(each) for each in check_pairs(*folders))
    assert not check_pairs(*folders, channels=ChannelChoice(chosen=(1,)))
    (told,) = check_pairs(*folders, channels=ChannelChoice(chosen=(2,)))
    assert "cell 1.tif has no channel 2" in str(told)


def test_images_without_annotation_are_seen_by_the_same_channel(
    data: Path, single: Path
) -> None:
    pairs = read_pairs(
        data / "images", data / "masks", channels=ChannelChoice(chosen=(2,))
    )
    others = write_pairs(single.parent / "others", seed=8)
    plain = finish(read_unlabelled(str(others / "images"), pairs, 0))
    assert [len(image) for image in plain.images] == [1] * 4
    as_composites(others / "images")
    found = finish(read_unlabelled(str(others / "images"), pairs, 0))
    for one, other in zip(found.images, plain.images, strict=True):
        np.testing.assert_array_equal(one, other)
    path = others / "images" / "cell 1.tif"
    composite(path, tifffile.imread(path)[:2])
    fewer = finish(read_unlabelled(str(others / "images"), pairs, 0))
    assert len(fewer.images) == 3
    assert "cell 1.tif has no channel 2" in fewer.notes[0]


# --- a model ----------------------------------------------------------------------


def test_a_model_remembers_the_channel_that_it_was_trained_on(
    data: Path, single: Path, tmp_path: Path
) -> None:
    """The very model of images of one channel, which finds the channel by itself."""
    own = trained(data, tmp_path / "own.medseg", "--channels", "2")
    plain = trained(single, tmp_path / "plain.medseg")
    assert read_card(own).provenance["channels"] == [2]
    assert "channels" not in read_card(plain).provenance
    found = []
    for model, folder, options in (
        (plain, single, ()),
        (own, data, ()),
        (own, single, ()),
        (plain, data, ("--channels", "2")),
    ):
        out = tmp_path / f"out {len(found)}"
        done = command(
            "segment", folder / "images", "--model", model, "--out", out, *options
        )
        assert done.exit_code == 0, done.output
        assert "channel" not in done.stderr
        found.append(labels_in(out))
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for name, labels in found[0].items():
            np.testing.assert_array_equal(other[name], labels)


@pytest.mark.parametrize("written", ["2", [-1], [True], ["2"], [1.5], 2, None])
def test_what_a_card_says_amiss_is_not_believed(written: Any) -> None:
    card = ModelCard("ptsam", "a", (), {}, provenance={"channels": written})
    assert trained_channels(card) == ()


def test_a_run_file_repeats_the_choice(data: Path, tmp_path: Path) -> None:
    model = trained(data, tmp_path / "a.medseg", "--channels", " 2")
    run = tmp_path / "a.run.yaml"
    values = yaml.safe_load(run.read_text())
    assert values["channels"] == " 2"
    values["channels"] = 2  # as a person writes it
    run.write_text(yaml.safe_dump(values))
    again = tmp_path / "b.medseg"
    assert command("train", "--config", run, "--out", again).exit_code == 0
    assert again.read_bytes() == model.read_bytes()
    values["channels"] = [2]
    run.write_text(yaml.safe_dump(values))
    refused = command("train", "--config", run, "--out", tmp_path / "c.medseg")
    assert_refused(refused, "a.run.yaml", "channels is [2]")


@pytest.mark.parametrize("typed", ["", "x", "1,", "-1", "1.0", "٢"])
def test_what_is_no_channel_is_refused(data: Path, tmp_path: Path, typed: str) -> None:
    refused = command(
        "segment",
        *(data / "images", "--model", "otsu", "--out", tmp_path / "out"),
        *("--channels", typed),
    )
    assert_refused(refused, "--channels", "such as 2 or 0,2")
    assert not (tmp_path / "out").exists()


def test_photographs_of_lesions_have_no_channels_to_choose(tmp_path: Path) -> None:
    refused = command(
        "train",
        *("--images", tmp_path, "--layout", "idrid", "--method", "lesions"),
        *("--channels", "1", "--out", tmp_path / "a.medseg"),
    )
    assert_refused(refused, "--channels", "Leave it out")


# --- a folder ---------------------------------------------------------------------


def test_a_run_says_where_the_first_channel_was_taken(
    data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = command(
        "segment",
        *(data / "images", "--model", "nuclei-fluo", "--out", out, "--json"),
    )
    told = json.loads(done.stdout)["notes"]
    assert len(told) == 4
    assert all("3 channels" in note and "--channels" in note for note in told.values())
    with read_ledger(out) as ledger:
        assert all("saw the first" in row.note for row in ledger.rows())


def test_measurements_are_of_all_channels(data: Path, tmp_path: Path) -> None:
    """What another stain is where the nuclei are is why there are several."""
    out = tmp_path / "out"
    done = command(
        "segment",
        *(data / "images", "--model", "otsu", "--out", out, "--channels", "2"),
        *("--export", "csv", "--instances"),
    )
    assert done.exit_code == 0, done.output
    (table,) = out.glob("objects.csv")
    heading = table.read_text().splitlines()[0]
    assert all(f"mean_intensity_{channel}" in heading for channel in range(3))


def test_another_channel_is_another_recipe() -> None:
    plain = Recipe.of(BatchSettings("otsu"), "otsu")
    assert "channels" not in plain.settings  # as of runs of earlier versions
    second = Recipe.of(BatchSettings("otsu", channels=(2,)), "otsu")
    assert not plain.is_like(second)


def test_large_images_are_seen_by_the_same_channel(
    data: Path, single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--model", "otsu", "--instances")
    command("segment", single / "images", "--out", tmp_path / "plain", *options)
    monkeypatch.setattr(large, "LARGE_PIXELS", 100)
    done = command(
        "segment",
        *(data / "images", "--out", tmp_path / "large", "--channels", "2", *options),
    )
    assert done.exit_code == 0, done.output
    plain, found = labels_in(tmp_path / "plain"), labels_in(tmp_path / "large")
    for name, labels in plain.items():
        np.testing.assert_array_equal(found[name] > 0, labels > 0)


def test_quality_is_predicted_of_the_same_channel(
    data: Path, single: Path, tmp_path: Path
) -> None:
    model = trained(single, tmp_path / "a.medseg")
    settings = QualitySettings(working_size=128, device="cpu")

    def estimated(folder: Path, channels: tuple[int, ...] = ()) -> Estimate:
        for name in ("cell 2", "cell 3"):
            for path in folder.rglob(f"{name}*.tif"):
                path.unlink()
        image = folder / "images" / "cell 0.tif"
        known = References(folder)
        return finish(
            estimate_folder(image, str(model), known, settings, channels=channels)
        )

    plain, told = estimated(single), estimated(data)
    chosen = estimated(data, (2,))
    name = "cell 0.tif"
    assert chosen.to_dict()["per_image"] == plain.to_dict()["per_image"]
    assert chosen.per_image[name].note == plain.per_image[name].note
    assert "saw the first" in told.per_image[name].note


def test_quality_of_a_run_is_predicted_by_the_same_channel_of_references(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def prepare_for(_: Any, known: References, __: Any, choice: ChannelChoice) -> Any:
        yield Progress(0, None, "")
        seen.append(known.read(choice).channels)

    monkeypatch.setattr(reviewing, "prepare_for", prepare_for)
    for channels in ((2,), ()):
        settings = BatchSettings(
            "otsu", channels=channels, references=str(data), device="cpu"
        )
        worker_of(Task(settings, tmp_path))
    assert seen == [1, 3]

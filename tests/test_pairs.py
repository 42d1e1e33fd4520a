"""Images find their masks; what is wrong is named; classes are those drawn."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile

from napari_medseg._types import InputError
from napari_medseg.io import images as images_module
from napari_medseg.io import tiff
from napari_medseg.io.pairs import (
    Finding,
    Pair,
    check_pairs,
    gather,
    match_files,
    read_pairs,
)

DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    return tmp_path / "images", tmp_path / "masks"


def picture(seed: int = 0, shape: tuple[int, ...] = (40, 48)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, shape, dtype=np.uint8)


def mask(*values: int, dtype: str = "uint8") -> np.ndarray:
    """Return a mask with one block of 4 × 4 pixels for each value."""
    result = np.zeros((40, 48), dtype)
    for place, value in enumerate(values):
        row, column = divmod(place, 8)
        result[row * 6 : row * 6 + 4, column * 6 : column * 6 + 4] = value
    return result


def fill(folders: tuple[Path, Path], *masks: np.ndarray) -> None:
    for number, labels in enumerate(masks):
        tifffile.imwrite(folders[0] / f"im{number}.tif", picture(number))
        tifffile.imwrite(folders[1] / f"im{number}.tif", labels)


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()


def names_of(pairs: list[tuple[Path, Path]]) -> list[tuple[str, str]]:
    return [(image.name, mask.name) for image, mask in pairs]


def test_names_match(folders: tuple[Path, Path]) -> None:
    touch(folders[0], "a.tif", "b.ome.tif", "c d.png", "e_seg.tif", "f.tif", "g.jpg")
    touch(folders[1], "a.png", "b_mask.tif", "c d_Label.png", "e_seg.png")
    touch(folders[1], "f_labels.ome.tif", "g_seg.npy")
    assert names_of(match_files(*folders)) == [
        ("a.tif", "a.png"),
        ("b.ome.tif", "b_mask.tif"),
        ("c d.png", "c d_Label.png"),
        ("e_seg.tif", "e_seg.png"),
        ("f.tif", "f_labels.ome.tif"),
        ("g.jpg", "g_seg.npy"),
    ]


def test_accents_match_however_they_are_stored(folders: tuple[Path, Path]) -> None:
    touch(folders[0], unicodedata.normalize("NFC", "zelle ä.tif"))
    touch(folders[1], unicodedata.normalize("NFD", "zelle ä_mask.tif"))
    assert len(match_files(*folders)) == 1


def test_one_folder_for_both(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif", "a_mask.tif", "b.tif", "b_labels.png", "c.tif")
    expected = [("a.tif", "a_mask.tif"), ("b.tif", "b_labels.png")]
    assert names_of(match_files(tmp_path, tmp_path)) == expected
    other_spelling = tmp_path / ".." / tmp_path.name
    assert names_of(match_files(tmp_path, other_spelling)) == expected


def test_folders_of_one_name_belong_together(tmp_path: Path) -> None:
    images, masks = tmp_path, tmp_path / "annotations"
    for folder, inside in ((images, ""), (images, "day 1"), (images, "day 2/left")):
        (folder / inside).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / inside / "im.tif", picture(1))
        (masks / inside).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(masks / inside / "im.tif", mask(1))
    touch(images / "other", "alone.tif")
    touch(masks / "originals", "im_mask.png")
    pairs = read_pairs(images, masks)
    assert [pair.name for pair in pairs] == ["im", "day 1/im", "day 2/left/im"]
    assert not check_pairs(images, masks)


@pytest.mark.parametrize(
    ("images", "masks", "named"),
    [
        (["a.tif", "a.png"], ["a.tif"], ["a.tif", "a.png"]),
        (["a.tif", "a.ome.tif"], ["a.tif"], ["a.tif", "a.ome.tif"]),
        (["a.tif"], ["a.tif", "a.png"], ["a.tif", "a.png"]),
        (["a.tif"], ["a.tif", "a_mask.tif"], ["a.tif", "a_mask.tif"]),
        (["a.tif"], ["a_seg.tif", "a_mask.tif"], ["a_seg.tif", "a_mask.tif"]),
        (["a.tif"], ["b.tif"], ["a.tif", "b.tif", "_labels"]),
        (["a.tif"], [], ["masks holds no images"]),
        ([], ["a.tif"], ["images holds no images"]),
    ],
)
def test_ambiguity_names_the_files(
    folders: tuple[Path, Path], images: list[str], masks: list[str], named: list[str]
) -> None:
    touch(folders[0], *images)
    touch(folders[1], *masks)
    with pytest.raises(InputError) as caught:
        match_files(*folders)
    assert all(name in str(caught.value) for name in named)
    (finding,) = check_pairs(*folders)
    assert finding.severity == "error"


def test_missing_folder(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        match_files(folders[0], tmp_path / "nowhere")


def test_pairs_are_read(folders: tuple[Path, Path]) -> None:
    fill(folders, mask(1), mask(1, 1))
    pairs = read_pairs(*folders)
    assert (len(pairs), pairs.annotation_kind, pairs.classes) == (2, "dense", 2)
    assert [pair.name for pair in pairs] == ["im0", "im1"]
    assert pairs.findings == ()
    first = pairs[0]
    np.testing.assert_array_equal(first.image[0], picture(0))
    assert first.image.dtype == np.float32 and first.annotation.dtype == np.int32
    np.testing.assert_array_equal(pairs.targets(1), mask(1, 1))
    assert first.image_path == folders[0] / "im0.tif"
    assert check_pairs(*folders) == []


def test_single_files(folders: tuple[Path, Path]) -> None:
    fill(folders, mask(1))
    tifffile.imwrite(folders[1] / "other.tif", mask(1))
    assert len(read_pairs(folders[0] / "im0.tif", folders[1] / "other.tif")) == 1


def test_every_file_is_read_once(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folders, mask(1), mask(1))
    seen: list[Path] = []

    def counted(path: Path) -> object:
        seen.append(path)
        return tiff.read_tiff(path)

    monkeypatch.setattr(images_module, "read_tiff", counted)
    read_pairs(*folders)
    assert len(seen) == len(set(seen)) == 4


def test_binary_masks_of_0_and_255(folders: tuple[Path, Path]) -> None:
    fill(folders, mask(255), mask(255, 255))
    pairs = read_pairs(*folders)
    assert pairs.class_values == (0, 255)
    np.testing.assert_array_equal(pairs.targets(0), mask(1))


def test_class_values_keep_their_order_over_all_pairs(
    folders: tuple[Path, Path],
) -> None:
    fill(folders, mask(80), mask(10, 200), mask())
    pairs = read_pairs(*folders, annotation="dense")
    assert pairs.class_values == (0, 10, 80, 200) and pairs.classes == 4
    np.testing.assert_array_equal(pairs.targets(0), mask(2))
    np.testing.assert_array_equal(pairs.targets(1), mask(1, 3))
    part = pairs.subset([2, 0])
    assert [pair.name for pair in part] == ["im2", "im0"]
    np.testing.assert_array_equal(part.targets(1), mask(2))
    assert pairs[1:].classes == 4


def test_scribbles(folders: tuple[Path, Path]) -> None:
    fill(folders, mask(1, 2), mask(3))
    pairs = read_pairs(*folders, annotation="sparse")
    assert pairs.classes == 3
    np.testing.assert_array_equal(pairs.targets(0), mask(1, 2).astype(int) - 1)
    np.testing.assert_array_equal(np.unique(pairs.targets(1)), [-1, 2])


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_scribbles_with_a_value_of_their_own(
    folders: tuple[Path, Path], kind: str
) -> None:
    labels = mask(1, 2) + np.uint8(0)
    labels[20:] = 255
    fill(folders, labels)
    pairs = read_pairs(*folders, annotation=kind, ignore=255)  # type: ignore[arg-type]
    assert pairs.class_values == (0, 1, 2)
    expected = labels.astype(int)
    expected[20:] = -1
    np.testing.assert_array_equal(pairs.targets(0), expected)


def test_255_beside_classes_is_pointed_at(folders: tuple[Path, Path]) -> None:
    fill(folders, mask(1, 2, 255))
    (finding,) = read_pairs(*folders).findings
    assert "ignore=255" in str(finding)


def test_scribbles_without_background(folders: tuple[Path, Path]) -> None:
    fill(folders, mask(2, 3))
    with pytest.raises(InputError, match="background"):
        read_pairs(*folders, annotation="sparse")


@pytest.mark.parametrize(
    ("masks", "kind", "warned"),
    [
        ([mask(*range(1, 21))], "instances", False),
        ([mask(*range(1, 20))], "dense", False),
        ([mask(1, 2, 3, dtype="uint16")], "instances", True),
        ([mask(1, 2, dtype="uint16")], "dense", False),
        ([mask(1, 1, 2, 3, 3, 3, dtype="uint16")], "dense", False),
        ([mask(1, 2, 3), mask(1, 2, 3, 4), mask(1, 2)], "instances", True),
        ([mask(1, 2, 3), mask(1, 3), mask(2)], "dense", False),
    ],
)
def test_objects_are_told_from_classes(
    folders: tuple[Path, Path], masks: list[np.ndarray], kind: str, warned: bool
) -> None:
    fill(folders, *masks)
    pairs = read_pairs(*folders)
    assert pairs.annotation_kind == kind
    assert bool(pairs.findings) == warned
    if kind == "instances":
        assert pairs.class_values == (0, 1)
        np.testing.assert_array_equal(pairs.targets(0), masks[0] > 0)


def findings_of(folders: tuple[Path, Path], name: str) -> str:
    return "\n".join(str(item) for item in check_pairs(*folders) if name in item.file)


def test_a_photograph_with_a_note_to_turn_it_is_told(
    folders: tuple[Path, Path],
) -> None:
    from PIL import Image

    images, masks = folders
    upright = Image.fromarray(picture(shape=(40, 48, 3)).astype(np.uint8))
    note = Image.Exif()
    note[0x0112] = 3
    upright.save(images / "turned.jpg", exif=note)
    upright.save(images / "usual.jpg")
    for name in ("turned", "usual"):
        tifffile.imwrite(masks / f"{name}.tif", mask(1))
    assert "EXIF" in findings_of(folders, "turned.jpg")
    assert findings_of(folders, "usual.jpg") == ""


def test_bad_files_are_all_named(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    fill(folders, *(mask(1) for _ in range(9)))
    (images / "im0.tif").write_bytes(b"")
    (images / "im1.tif").write_text("this is text")
    (masks / "im2.tif").write_bytes((masks / "im2.tif").read_bytes()[:900])
    tifffile.imwrite(images / "im3.tif", picture(shape=(40, 50)))
    tifffile.imwrite(images / "im4.tif", picture(shape=(12, 40, 48)))
    _stains(images / "im5.tif")
    tifffile.imwrite(images / "im6.tif", np.full((40, 48), np.nan))
    tifffile.imwrite(images / "im7.tif", picture(shape=(1, 1)))
    with pytest.raises(InputError) as caught:
        read_pairs(*folders)
    lines = str(caught.value).splitlines()
    assert len(lines) == 9  # the 1 × 1 image also differs from its mask in size
    words = ["0 bytes", "cannot be read", "im2.tif", "50 × 40", "stack of 12"]
    words += ["3 channels", "NaN", "only 1 × 1"]
    assert all(word in str(caught.value) for word in words)
    assert all(line.endswith(".") for line in lines)
    assert {item.severity for item in check_pairs(*folders)} == {"error"}


def test_grey_images_among_colours_are_colours(folders: tuple[Path, Path]) -> None:
    fill(folders, *(mask(1) for _ in range(4)))
    colours = picture(9, (40, 48, 3))
    iio.imwrite(folders[0] / "tissue.png", colours)
    iio.imwrite(folders[1] / "tissue.png", mask(1))
    found = read_pairs(*folders)
    assert (found.channels, found.rgb) == (3, True)
    assert found.normalisation().joint
    for pair in found[:4]:
        assert pair.image.shape == (3, 40, 48)
        assert (pair.image == pair.image[0]).all()
    np.testing.assert_array_equal(found[4].image, np.moveaxis(colours, -1, 0))
    (told,) = check_pairs(*folders)
    assert told.severity == "warning"
    assert "im0.tif is grey, like 3 others, among colour images" in str(told)
    together = gather(
        Pair(str(place), image, mask(1), rgb=len(image) == 3)
        for place, image in enumerate((found[4].image, found[0].image[:1]))
    )
    assert (together.channels, together.rgb) == (3, True)


def _stains(path: Path) -> None:
    """Write an image of three channels that are no colours."""
    tifffile.imwrite(
        path,
        picture(shape=(3, 40, 48)),
        photometric="minisblack",
        metadata={"axes": "CYX"},
    )


def test_three_stains_are_no_colours(folders: tuple[Path, Path]) -> None:
    fill(folders, mask(1), mask(1))
    _stains(folders[0] / "im1.tif")
    with pytest.raises(InputError, match="3 channels, but most images have 1"):
        read_pairs(*folders)
    grey, stains = (
        Pair(str(count), np.zeros((count, 40, 48), np.float32), mask(1))
        for count in (1, 3)
    )
    with pytest.raises(InputError, match="3 has 3 channels, but 1 has 1"):
        gather([grey, stains])


def test_annotated_slices_of_stacks_are_pairs(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    stack = picture(shape=(12, 40, 48))
    labels = np.zeros((12, 40, 48), np.uint8)
    labels[3], labels[10] = mask(1), mask(1, 1)
    for folder, data in ((images, stack), (masks, labels)):
        tifffile.imwrite(folder / "a.ome.tif", data, metadata={"axes": "ZYX"})
    fill(folders, mask(1))
    pairs = read_pairs(*folders)
    assert [pair.name for pair in pairs] == ["a z03", "a z10", "im0"]
    np.testing.assert_array_equal(pairs[0].image, stack[3][None])
    np.testing.assert_array_equal(pairs[1].annotation, labels[10])
    assert not check_pairs(*folders)


def test_slices_along_two_axes_are_named_by_both(folders: tuple[Path, Path]) -> None:
    labels = np.zeros((2, 3, 40, 48), np.uint8)
    labels[1, 2] = mask(1)
    stack = picture(shape=labels.shape)
    for folder, data in zip(folders, (stack, labels), strict=True):
        tifffile.imwrite(folder / "a.ome.tif", data, metadata={"axes": "TZYX"})
    assert [pair.name for pair in read_pairs(*folders)] == ["a t1 z2"]


def test_a_stack_without_annotation_is_left_out(folders: tuple[Path, Path]) -> None:
    for folder in folders:
        tifffile.imwrite(folder / "a.tif", np.zeros((12, 40, 48), np.uint8))
    with pytest.raises(InputError, match="without an annotated slice"):
        read_pairs(*folders)
    fill(folders, mask(1))
    assert [pair.name for pair in read_pairs(*folders)] == ["im0"]
    assert "without an annotated slice" in findings_of(folders, "a.tif")


def test_a_mask_of_another_number_of_slices(folders: tuple[Path, Path]) -> None:
    tifffile.imwrite(folders[0] / "a.tif", picture(shape=(12, 40, 48)))
    tifffile.imwrite(folders[1] / "a.tif", np.stack([mask(1)] * 11))
    told = findings_of(folders, "a.tif")
    assert "stack of 12 slices" in told
    assert "stack of 11 slices" in told


def test_long_lists_are_cut(folders: tuple[Path, Path]) -> None:
    for number in range(23):
        touch(folders[0], f"im{number}.tif")
        iio.imwrite(folders[1] / f"im{number}.png", mask(1))
    with pytest.raises(InputError) as caught:
        read_pairs(*folders)
    lines = str(caught.value).splitlines()
    assert len(lines) == 21 and "3 more" in lines[-1]


def test_swapped_sizes_are_said(folders: tuple[Path, Path]) -> None:
    fill(folders, mask(1).T)
    assert "48 × 40" in findings_of(folders, "masks")
    assert "swapped" in findings_of(folders, "masks")


def test_empty_masks_are_warnings_beside_others(folders: tuple[Path, Path]) -> None:
    everywhere = np.ones((40, 48), np.uint8)
    fill(folders, mask(1), mask(), everywhere)
    pairs = read_pairs(*folders)
    found = {Path(item.file).name: item for item in pairs.findings}
    assert set(found) == {"im1.tif", "im2.tif"}
    assert "empty" in found["im1.tif"].problem
    assert "one class" in found["im2.tif"].problem
    assert {item.severity for item in pairs.findings} == {"warning"}


@pytest.mark.parametrize(
    ("value", "kind", "ignore"),
    [(0, "dense", None), (1, "dense", None), (0, "sparse", None), (255, "dense", 255)],
)
def test_masks_that_all_teach_nothing(
    folders: tuple[Path, Path], value: int, kind: str, ignore: int | None
) -> None:
    labels = np.full((40, 48), value, np.uint8)
    fill(folders, labels, labels)
    with pytest.raises(InputError, match=r"im0.*\n.*im1"):
        read_pairs(*folders, annotation=kind, ignore=ignore)  # type: ignore[arg-type]


def test_constant_image_and_lonely_files_are_warnings(
    folders: tuple[Path, Path],
) -> None:
    fill(folders, mask(1), mask(1))
    tifffile.imwrite(folders[0] / "im1.tif", np.full((40, 48), 7, np.uint8))
    tifffile.imwrite(folders[0] / "image alone.tif", picture())
    tifffile.imwrite(folders[1] / "mask alone.tif", mask(1))
    pairs = read_pairs(*folders)
    assert len(pairs) == 2
    text = "\n".join(map(str, pairs.findings))
    assert "im1.tif is constant" in text
    assert "image alone.tif has no mask" in text
    assert "mask alone.tif has no image" in text


def test_negative_values(folders: tuple[Path, Path]) -> None:
    fill(folders, mask(1, -1, dtype="int16"))
    with pytest.raises(InputError, match="ignore=-1"):
        read_pairs(*folders)
    pairs = read_pairs(*folders, ignore=-1)
    np.testing.assert_array_equal(pairs.targets(0), mask(1, -1, dtype="int32"))


def test_a_finding_is_a_sentence() -> None:
    finding = Finding("a.tif", "is empty", "copy it again", "error")
    assert str(finding) == "a.tif is empty: copy it again."


def test_digest_changes_with_the_data(folders: tuple[Path, Path]) -> None:
    fill(folders, mask(1), mask(1))
    before = read_pairs(*folders).digest
    assert before == read_pairs(*folders).digest and len(before) == 64
    labels = mask(1)
    labels[-1, -1] = 1
    tifffile.imwrite(folders[1] / "im1.tif", labels)
    changed = read_pairs(*folders).digest
    (folders[0] / "im1.tif").rename(folders[0] / "im2.tif")
    (folders[1] / "im1.tif").rename(folders[1] / "im2.tif")
    assert len({before, changed, read_pairs(*folders).digest}) == 3


def test_layers_make_pairs() -> None:
    image = picture()[np.newaxis].astype(np.float32)
    pairs = gather([Pair("layer", image, mask(3).astype(np.int32))])
    assert pairs.class_values == (0, 3)
    assert pairs.normalisation().channels == (0, 0, 0)
    np.testing.assert_array_equal(pairs.targets(0), mask(1))
    with pytest.raises(InputError, match="size"):
        gather([Pair("layer", image, np.zeros((4, 4), np.int32))])
    with pytest.raises(InputError, match="at least one"):
        gather([])


@pytest.mark.parametrize("count", [1, 2, 3, 15, 16, 17])
def test_any_number_of_pairs(folders: tuple[Path, Path], count: int) -> None:
    fill(folders, *(mask(1) for _ in range(count)))
    assert len(read_pairs(*folders)) == count


@pytest.mark.parametrize(
    ("folder", "masks", "options", "kind", "classes"),
    [
        ("usiigaci_phase_contrast", "masks", {}, "instances", 2),
        ("bbbc010_worms_bf_gfp", "masks", {}, "instances", 2),
        ("vnc_sstem_multiclass", "masks", {}, "dense", 5),
        (
            "acdc_cardiac_mri_scribbles",
            "masks_scribble",
            {"annotation": "sparse", "ignore": 255},
            "sparse",
            4,
        ),
    ],
)
def test_real_pairs(
    tmp_path: Path,
    folder: str,
    masks: str,
    options: dict[str, object],
    kind: str,
    classes: int,
) -> None:
    source = DATA / folder
    if not source.is_dir():
        pytest.skip(f"the real images of {folder} are not here")
    for name in ("images", masks):
        (tmp_path / name).mkdir()
        for path in sorted((source / name).iterdir())[:3]:
            (tmp_path / name / path.name).write_bytes(path.read_bytes())
    pairs = read_pairs(tmp_path / "images", tmp_path / masks, **options)  # type: ignore[arg-type]
    assert (len(pairs), pairs.annotation_kind, pairs.classes) == (3, kind, classes)
    for index in range(3):
        found = np.unique(pairs.targets(index))
        assert found.min() >= -1 and found.max() < classes

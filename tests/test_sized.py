"""A SAM that knows objects of one size only answers for objects of any size."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from networks import save_nano
from torch.nn import functional

from napari_medseg._types import finish
from napari_medseg.models import interactive, parts, sized
from napari_medseg.models import sam as sams
from napari_medseg.models.backbone import Backbone, load_backbone
from napari_medseg.models.clicks import Asked, Prompt, as_asked
from napari_medseg.models.found import Drawn, by_sam
from napari_medseg.models.framing import Box, Framing
from napari_medseg.models.interactive import InteractiveImage
from napari_medseg.models.judging import (
    filling,
    inside,
    likeness,
    meant,
    obeying,
)
from napari_medseg.models.looks import Look, looks_ahead, looks_at, looks_round
from napari_medseg.models.parts import Edges, Part
from napari_medseg.models.registry import SAMS, KnownSizes

if TYPE_CHECKING:
    from segment_anything.modeling import MaskDecoder
    from torch import Tensor

SIZES = KnownSizes(
    window=256, sides=(32, 64, 128), zooms=((0.5, 256), (1.0, 512), (2.0, 256))
)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    file = save_nano(tmp_path_factory.mktemp("sam") / "nano.pth")
    return replace(load_backbone(str(file)), sizes=SIZES)


@pytest.fixture
def one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let SAM find what is bright if it is 50 to 80 pixels long, and else nonsense."""

    def embed(self: Backbone, inputs: Tensor, device: torch.device) -> Tensor:
        del self, device
        return functional.pixel_unshuffle(inputs[:1], 8)

    def decode(
        decoder: object,
        embeddings: Tensor,
        code: Tensor,
        tokens: Tensor,
        dense: Tensor,
        which: slice = sams.ALL,
    ) -> sams.Decoded:
        del decoder, code, tokens, dense
        masks, iou = [], []
        for bright in functional.pixel_shuffle(embeddings, 8)[:, 0] > 0:
            known = 50 <= int(bright.any(dim=1).sum()) <= 80
            logits = (
                20 * bright.float() - 10 if known else torch.full(bright.shape, 2.0)
            )
            masks.append(logits.expand(4, -1, -1)[which])
            iou.append(torch.full((4,), 0.9 if known else 0.5))
        drawn = torch.stack(masks)
        return sams.Decoded(drawn, torch.stack(iou), drawn)

    monkeypatch.setattr(Backbone, "embed", embed)
    monkeypatch.setattr(sized.sams, "decode", decode)


def disc(shape: tuple[int, int], middle: tuple[int, int], radius: int) -> np.ndarray:
    y, x = np.ogrid[: shape[0], : shape[1]]
    found: np.ndarray = (y - middle[0]) ** 2 + (x - middle[1]) ** 2 <= radius**2
    return found


def answered(image: np.ndarray, backbone: Backbone, prompt: Prompt) -> np.ndarray:
    view = InteractiveImage(
        np.repeat(image[None].astype(np.float32), 3, axis=0), backbone, "cpu"
    )
    finish(view.embed())
    answer = view.answer(prompt)
    mask = np.zeros(image.shape, bool)
    mask[answer.region.slices] = answer.masks[0]
    return mask


@pytest.mark.parametrize("radius", [4, 12, 30, 90, 110])
@pytest.mark.usefixtures("one_size")
def test_a_box_finds_an_object_of_any_size(backbone: Backbone, radius: int) -> None:
    truth = disc((400, 500), (190, 210), radius)
    box = (190 - radius, 210 - radius, 190 + radius, 210 + radius)
    assert likeness(answered(truth, backbone, Prompt(box=box)), truth) > 0.9


@pytest.mark.parametrize("radius", [16, 30, 60])
@pytest.mark.usefixtures("one_size")
def test_a_click_finds_objects_of_several_sizes(
    backbone: Backbone, radius: int
) -> None:
    truth = disc((512, 512), (190, 210), radius)
    prompt = Prompt(((190, 210),), (True,))
    found = [
        likeness(answered(truth, each, prompt), truth)
        for each in (backbone, replace(backbone, sizes=None))
    ]
    assert found[0] > 0.9
    # a single look knows the middle one alone
    assert (found[1] > 0.9) == (radius == 30)


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(((190, 210),), (True,)),
        Prompt(((190, 210), (5, 5)), (True, False)),
        Prompt(box=(150, 170, 230, 260)),
    ],
)
@pytest.mark.usefixtures("one_size")
def test_what_a_prompt_may_mean_is_told_once(
    backbone: Backbone, prompt: Prompt
) -> None:
    image = disc((512, 512), (190, 210), 30).astype(np.float32)
    view = InteractiveImage(np.stack([image] * 3), backbone, "cpu")
    answer = view.answer(prompt)
    assert 1 <= len(answer.masks) <= 3
    for index, mask in enumerate(answer.masks):
        for other in answer.masks[:index]:
            assert likeness(mask, other) < interactive.ALIKE
    assert list(answer.scores) == sorted(answer.scores, reverse=True)


@pytest.mark.parametrize("row", [300, 301])
def test_a_click_on_the_last_row_counts(row: int) -> None:
    """Its look is 302 pixels high, of which 77.3 lines of the window are made."""
    box = Box(0, 0, 302, 1000)
    look = Look(Framing(tile=1000, size=256), box)
    logits = torch.full((1, 256, 256), -5.0)
    logits[:, 60 : look.framing.scaled(box.shape)[0], 100:140] = 5.0
    asked = as_asked(Prompt(((row, 470),), (True,)))
    drawn = Drawn(Part(0, 0, 32), logits.repeat(4, 1, 1), [0.9] * 4)
    found = by_sam(look, drawn, asked, (302, 1000), 32)
    assert min(each.score for each in found) > 0.5


@pytest.mark.usefixtures("one_size")
def test_a_box_offers_what_else_is_in_it(backbone: Backbone) -> None:
    # half of the box is light: by colour either side may be meant
    image = np.zeros((512, 512), np.float32)
    image[150:231, 170:215] = 1
    view = InteractiveImage(np.stack([image] * 3), backbone, "cpu")
    answer = view.answer(Prompt(box=(150, 170, 230, 260)))
    assert len(answer.masks) > 1


def test_only_the_bundled_sam_looks_several_times() -> None:
    assert {name for name, entry in SAMS.items() if entry.sizes} == {"nano"}


def recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> list[tuple[Tensor, Tensor, sams.Decoded]]:
    """Return position codes, tokens and answers of all that is decoded from now on."""
    calls = []
    usual = sams.decode

    def decode(
        decoder: MaskDecoder,
        embeddings: Tensor,
        code: Tensor,
        tokens: Tensor,
        dense: Tensor,
    ) -> sams.Decoded:
        answer = usual(decoder, embeddings, code, tokens, dense)
        calls.append((code, tokens, answer))
        return answer

    monkeypatch.setattr(sized.sams, "decode", decode)
    return calls


@pytest.fixture
def draws_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw in whole windows, and not only round the click."""
    monkeypatch.setattr(parts, "CLOSE", 64)


@pytest.mark.usefixtures("draws_all")
def test_one_look_at_the_whole_is_what_sam_says(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window as large as the working image gets the position codes of all of it."""
    rng = np.random.default_rng(0)
    image = rng.random((3, 512, 512), dtype=np.float32)
    calls = recorded(monkeypatch)
    whole = KnownSizes(window=512, sides=(64,), zooms=((1.0, 512),))
    view = sized.SizedView(image, backbone, whole, torch.device("cpu"))
    points, labels = torch.tensor([[60.0, 20.0], [0, 0]]), torch.tensor([1, -1])
    found = view.find(Asked(points, labels, boxed=False), (20, 60, 20, 60))
    sam, look = backbone.sam, found[0].look
    embedding = backbone.embed(look.framing.window(image, look.box), view.device)
    with torch.inference_mode():
        sparse, dense = sam.prompt_encoder(
            (points[None, :1], labels[None, :1]), None, None
        )
        masks, _ = sam.mask_decoder.predict_masks(
            embedding.float()[None], sam.prompt_encoder.get_dense_pe(), sparse, dense
        )
    ((_, _, answer),) = calls
    # bfloat16 against float32
    assert float(((answer.masks > 0) == (masks > 0)).float().mean()) > 0.97


def test_round_a_click_sam_draws_what_it_does_of_those_cells(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    image = rng.random((3, 512, 512), dtype=np.float32)
    calls = recorded(monkeypatch)
    whole = KnownSizes(window=512, sides=(64,), zooms=((1.0, 512),))
    view = sized.SizedView(image, backbone, whole, torch.device("cpu"))
    points, labels = torch.tensor([[300.0, 20.0], [0, 0]]), torch.tensor([1, -1])
    found = view.find(Asked(points, labels, boxed=False), (20, 300, 20, 300))
    rows, columns = slice(0, 32), slice(22, 54)  # the click lies in cell (2, 37)
    sam, look = backbone.sam, found[0].look
    embedding = backbone.embed(look.framing.window(image, look.box), view.device)
    with torch.inference_mode():
        sparse, dense = sam.prompt_encoder(
            (points[None, :1], labels[None, :1]), None, None
        )
        masks, _ = sam.mask_decoder.predict_masks(
            embedding.float()[None, :, rows, columns],
            sam.prompt_encoder.get_dense_pe()[..., rows, columns],
            sparse,
            dense[..., rows, columns],
        )
    ((_, _, answer),) = calls
    assert float(((answer.masks > 0) == (masks > 0)).float().mean()) > 0.97
    # SAM finds nothing elsewhere
    drawn = [each for each in found if not each.parted]
    assert len(drawn) == 4
    assert all((each.logits[256:] < 0).all() for each in drawn)
    assert all((each.logits[:, :176] < 0).all() for each in drawn)


@pytest.mark.parametrize("boxed", [True, False])
@pytest.mark.parametrize("dark", [True, False])
def test_what_differs_in_colour_is_offered_though_sam_does_not_know_it(
    backbone: Backbone, boxed: bool, dark: bool
) -> None:
    truth = disc((400, 500), (190, 210), 40) & ~disc((400, 500), (190, 230), 30)
    image = np.repeat((truth ^ dark)[None].astype(np.float32), 3, axis=0)
    view = sized.SizedView(image, backbone, SIZES, torch.device("cpu"))
    prompt = Prompt(((190.0, 185.0),), (True,))
    if boxed:
        prompt = replace(prompt, box=(150.0, 170.0, 230.0, 250.0))
    scores = []
    for each in view.offered(as_asked(prompt), prompt.extent):
        mask = np.zeros(truth.shape, bool)
        mask[each.look.box.slices] = each.in_image()
        scores.append((likeness(mask, truth), each.parted))
    assert max(scores) > (0.8, True)


@pytest.mark.parametrize(
    ("prompt", "most"),
    [
        (Prompt(box=(150.0, 170.0, 230.0, 250.0)), 2),
        (Prompt(((190.0, 210.0),), (True,)), 6),
        # corrected: what was meant is known better than by its colour
        (Prompt(((190.0, 210.0), (20.0, 30.0)), (True, False)), 0),
    ],
)
def test_in_an_image_of_one_colour_sam_alone_is_asked(
    backbone: Backbone, prompt: Prompt, most: int
) -> None:
    rng = np.random.default_rng(0)
    grain = rng.random((1, 400, 500), dtype=np.float32).repeat(3, axis=0)
    for image, wanted in ((np.full_like(grain, 0.5), 0), (grain, most)):
        view = sized.SizedView(image, backbone, SIZES, torch.device("cpu"))
        found = view.offered(as_asked(prompt), prompt.extent)
        assert sum(each.parted for each in found) == wanted


def test_clicks_that_are_far_apart_are_drawn_in_the_whole_window() -> None:
    near = torch.tensor([[10.0, 40.0], [20.0, 50.0]])
    assert Part.near(near, 64) == Part(24, 0, 32)
    assert Part.near(torch.tensor([[10.0, 40.0], [60.0, 50.0]]), 64) == Part(0, 0, 64)
    assert Part.near(near, 32) == Part(0, 0, 32)


def test_an_object_ends_unseen_at_the_edges_of_a_part_but_not_of_the_image() -> None:
    look = Look.at((0, 0, 511, 511), 512, 512, (512, 512))
    mask = np.zeros((512, 512), bool)
    mask[100:140, 0:256] = True  # from the image's edge to the part's
    assert Edges.of(look, Part(0, 0, 256), (512, 512)).cut(mask)
    assert not Edges.of(look, Part(0, 0, 512), (512, 512)).cut(mask)
    mask[:, 200:] = False
    assert not Edges.of(look, Part(0, 0, 256), (512, 512)).cut(mask)


def test_no_click_waits_for_the_encoder_where_sam_looked_around(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    image = rng.random((3, 160, 140), dtype=np.float32)
    view = InteractiveImage(image, backbone, "cpu")
    finish(view.embed())
    finish(view.look_around())

    def encode(encoder: object, inputs: Tensor) -> Tensor:
        raise AssertionError("an embedding was computed")

    monkeypatch.setattr(sams, "encode", encode)
    for place in ((0.0, 0.0), (159.0, 139.0), (81.0, 47.0), (34.0, 122.0)):
        view.answer(Prompt((place,), (True,)))


def test_sam_looks_round_a_place_first() -> None:
    place = (700.0, 300.0)
    looks = looks_ahead(place, (1000, 1000), 512, SIZES, 10)
    near = looks_round((704.0, 320.0), (704, 320, 704, 320), (1000, 1000), 512, SIZES)
    assert len(looks) == 10
    assert set(near) <= set(looks)


def test_a_piece_lies_in_the_middle_of_a_working_image(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pixels of a window and the points on it have codes of the same places."""
    calls = recorded(monkeypatch)
    image = np.zeros((3, 256, 256), np.float32)
    one = KnownSizes(window=256, sides=(64,), zooms=((1.0, 256),))
    view = sized.SizedView(image, backbone, one, torch.device("cpu"))
    # a box whose window shows each pixel as one pixel
    extent = (107.5, 99.5, 170.5, 162.5)
    points = torch.tensor([[99.5, 107.5], [162.5, 170.5]])
    view.find(Asked(points, torch.tensor([2, 3]), boxed=True), extent)
    ((code, tokens, _),) = calls
    look = looks_at(extent, (256, 256), one)[0]
    assert look.framing.scale == 1
    encoder = backbone.sam.prompt_encoder
    corner = tokens[0, 0] - encoder.point_embeddings[2].weight[0]
    alike = torch.einsum("chw,c->hw", code[0].float(), corner.float())
    row, column = divmod(int(alike.argmax()), 32)
    x, y = look.to_window(points)[0].tolist()
    assert abs(8 * row + 3.5 - y) <= 4.5
    assert abs(8 * column + 3.5 - x) <= 4.5


def test_corrective_clicks_need_no_new_embedding(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = InteractiveImage(np.zeros((3, 300, 400), np.float32), backbone, "cpu")
    view.answer(Prompt(((140, 200),), (True,)))
    monkeypatch.setattr(Backbone, "embed", None)
    view.answer(Prompt(((140, 200), (150, 190)), (True, False)))


@pytest.mark.parametrize("shape", [(1, 1), (40, 700), (3000, 2500)])
@pytest.mark.parametrize("box", [(0, 0, 0, 0), (0, 0, 0.6, 0.9), (0.5, 0.5, 0.51, 1)])
def test_looks_hold_the_box(
    shape: tuple[int, int], box: tuple[float, float, float, float]
) -> None:
    ends = (shape[0] - 1, shape[1] - 1) * 2
    top, left, bottom, right = (
        round(share * end) for share, end in zip(box, ends, strict=True)
    )
    extent = (float(top), float(left), float(bottom), float(right))
    looks = looks_at(extent, shape, SIZES)
    assert looks
    for look in looks:
        assert look.shows(extent)
        assert 0 <= look.box.top < look.box.bottom <= shape[0]
        assert 0 <= look.box.left < look.box.right <= shape[1]
        assert look.framing.size == SIZES.window


def test_a_box_is_magnified_to_the_sides_that_are_known() -> None:
    looks = looks_at((300.0, 300.0, 339.0, 339.0), (1000, 1000), SIZES)
    sides = [40 * look.framing.scale for look in looks]
    assert sides == pytest.approx(SIZES.sides, rel=0.02)


def test_neighbouring_clicks_look_through_the_same_windows() -> None:
    def looks(row: float, column: float) -> set[Look]:
        click = (row, column)
        return set(looks_round(click, (*click, *click), (4000, 4000), 512, SIZES))

    assert len(looks(1990, 1995) & looks(1994, 1991)) == len(SIZES.zooms)
    assert not looks(2000, 2000) & looks(3000, 2000)


def test_clicks_far_apart_are_seen_together() -> None:
    click = (10.0, 10.0)
    for look in looks_round(
        click, (10.0, 10.0, 3900.0, 3900.0), (4000, 4000), 512, SIZES
    ):
        assert look.shows((10.0, 10.0, 3900.0, 3900.0))


def test_nothing_outside_the_box_is_kept() -> None:
    mask = np.ones((60, 60), bool)
    kept = inside(mask, (10, 20, 29, 39))
    rows, columns = np.nonzero(kept)
    assert (rows.min(), rows.max()) == (9, 30)
    assert (columns.min(), columns.max()) == (19, 40)


def test_the_part_that_was_clicked_is_kept_without_holes() -> None:
    mask = disc((80, 80), (20, 20), 15) ^ disc((80, 80), (20, 20), 5)
    both = mask | disc((80, 80), (60, 60), 18)
    whole = disc((80, 80), (20, 20), 15)
    np.testing.assert_array_equal(meant(both, [(20, 10)]), whole)
    # the largest part where none was clicked
    assert not meant(both)[20, 10]
    # a ring stays a ring where somebody says so
    np.testing.assert_array_equal(meant(both, [(20, 10)], [(20, 20)]), mask)
    assert not meant(np.zeros((5, 5), bool), [(2, 2)]).any()


def test_a_mask_fills_its_box() -> None:
    mask = np.zeros((50, 50), bool)
    assert filling(mask, (10, 10, 19, 19)) == 0
    mask[10:20, 10:20] = True
    assert filling(mask, (10, 10, 19, 19)) == 1
    assert filling(mask, (10, 10, 19, 29)) == pytest.approx(0.5)
    assert filling(mask, (30, 30, 40, 40)) == 0


def test_clicks_are_obeyed() -> None:
    mask = np.eye(4, dtype=bool)
    assert obeying(mask, [], []) == 1
    assert obeying(mask, [(0, 0), (0, 1)], [True, False]) == 1
    assert obeying(mask, [(0, 0), (0, 1)], [True, True]) == 0.5

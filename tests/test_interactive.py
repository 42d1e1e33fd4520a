"""Clicks and boxes: SAM's own answers, in the pixels of the user's image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import save_nano

from napari_medseg._types import InputError, finish
from napari_medseg.models.backbone import Backbone, load_backbone
from napari_medseg.models.clicks import Prompt, corrected, deepest
from napari_medseg.models.framing import Framing
from napari_medseg.models.interactive import InteractiveImage

SIZE = 512


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A SAM that knows objects of all sizes."""
    file = save_nano(tmp_path_factory.mktemp("sam") / "nano.pth")
    return replace(load_backbone(str(file)), sizes=None)


def picture(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.random((3, height, width), dtype=np.float32)


def interactive(backbone: Backbone, height: int, width: int) -> InteractiveImage:
    view = InteractiveImage(picture(height, width), backbone, "cpu")
    finish(view.embed())
    return view


def reference(view: InteractiveImage, prompt: Prompt) -> torch.Tensor:
    """Return logits ``(4, size, size)`` by segment-anything's own prompt handling."""
    sam, framing = view.backbone.sam, view.whole
    scale = framing.scale
    points = boxes = None
    if prompt.points:
        places = (torch.tensor(prompt.points).flip(-1) + 0.5) * scale - 0.5
        labels = torch.tensor([int(adds) for adds in prompt.adds])
        points = (places[None], labels[None])
    if prompt.box is not None:
        top, left, bottom, right = prompt.box
        corners = torch.tensor([[left, top, right, bottom]])
        boxes = (corners + 0.5) * scale - 0.5
    sparse, dense = sam.prompt_encoder(points=points, boxes=boxes, masks=None)
    embedding = view.backbone.embed(
        framing.window(view.image, framing.boxes(view.shape)[0]), view.device
    )
    masks, _ = sam.mask_decoder.predict_masks(
        embedding.float()[None], sam.prompt_encoder.get_dense_pe(), sparse, dense
    )
    return masks[0]


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(((20, 60),), (True,)),
        Prompt(((20, 60), (90, 10)), (True, False)),
        Prompt(box=(10, 20, 60, 90)),
        Prompt(((20, 60),), (True,), (10, 20, 60, 90)),
    ],
)
def test_answers_are_those_of_segment_anything(
    backbone: Backbone, prompt: Prompt
) -> None:
    view = interactive(backbone, SIZE // 2, SIZE // 2)
    answer = view.answer(prompt)
    with torch.inference_mode():
        logits = reference(view, prompt)
    several = len(prompt.points) == 1 and prompt.box is None
    assert len(answer.masks) == (3 if several else 1)
    wanted = view.whole.unwindow(logits, answer.region).numpy() > 0
    candidates = wanted[1:] if several else wanted[:1]
    for mask in answer.masks:
        agreement = max(float((mask == other).mean()) for other in candidates)
        # bfloat16 against float32
        assert agreement > 0.97
    assert list(answer.scores) == sorted(answer.scores, reverse=True)


@pytest.mark.parametrize("shape", [(40, 700), (500, 300), (1, 1), (9, 2000)])
def test_any_shape_gives_masks_of_its_own_pixels(
    backbone: Backbone, shape: tuple[int, int]
) -> None:
    view = interactive(backbone, *shape)
    answer = view.answer(Prompt(((0, shape[1] - 1),), (True,)))
    assert answer.masks.shape[1:] == answer.region.shape
    assert answer.region.bottom <= shape[0]
    assert answer.region.right <= shape[1]


def test_large_images_are_seen_at_their_own_resolution(backbone: Backbone) -> None:
    view = interactive(backbone, 1400, 1400)
    near = view.answer(Prompt(((1300, 1300),), (True,)))
    assert near.region.shape == (SIZE, SIZE)
    assert near.region.bottom == 1400
    far = view.answer(Prompt(box=(100, 100, 1300, 1300)))
    assert far.region.shape == (1400, 1400)


def test_the_image_is_embedded_once(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = interactive(backbone, 200, 300)
    monkeypatch.setattr(Backbone, "embed", None)
    view.answer(Prompt(((3, 4),), (True,)))
    view.answer(Prompt(box=(3, 4, 50, 60)))


def test_a_click_moves_with_the_window(backbone: Backbone) -> None:
    """Content in a window and a click on it give the same mask wherever it lies."""
    image = np.zeros((3, 1400, 1400), np.float32)
    image[:, -SIZE:, -SIZE:] = picture(SIZE, SIZE)
    moved = InteractiveImage(image, backbone, "cpu")
    alone = InteractiveImage(picture(SIZE, SIZE), backbone, "cpu")
    shift = 1400 - SIZE
    first = alone.answer(Prompt(((300, 310),), (True,)))
    second = moved.answer(Prompt(((300 + shift, 310 + shift),), (True,)))
    np.testing.assert_array_equal(first.masks, second.masks)


def test_a_click_outside_is_refused(backbone: Backbone) -> None:
    view = interactive(backbone, 50, 60)
    for place in ((-1, 5), (5, 60), (50, 5)):
        with pytest.raises(InputError, match="outside"):
            view.answer(Prompt((place,), (True,)))


def test_a_prompt_says_something() -> None:
    with pytest.raises(InputError, match="Click"):
        Prompt()


def test_a_mask_as_prompt() -> None:
    mask = np.zeros((30, 40), bool)
    mask[5:12, 20:33] = True
    prompt = Prompt.of_mask(mask)
    assert prompt.box == (5, 20, 11, 32)
    assert mask[tuple(int(place) for place in prompt.points[0])]
    with pytest.raises(InputError, match="no pixel"):
        Prompt.of_mask(np.zeros((4, 4), bool))


def test_the_deepest_pixel_counts_the_edge_of_the_image() -> None:
    mask = np.zeros((9, 20), bool)
    mask[:5] = True
    row, _ = deepest(mask)
    assert row == 2


def test_a_correction_is_set_in_the_larger_wrong_region() -> None:
    wanted = np.zeros((40, 40), bool)
    wanted[5:15, 5:15] = True
    start = Prompt(((10, 10),), (True,))
    spilt = wanted.copy()
    spilt[5:15, 15:35] = True
    after = corrected(start, spilt, wanted)
    assert after.adds == (True, False)
    assert spilt[tuple(map(int, after.points[1]))]
    assert not wanted[tuple(map(int, after.points[1]))]
    missing = np.zeros_like(wanted)
    assert corrected(start, missing, wanted).adds == (True, True)
    assert corrected(start, wanted, wanted) is start


def test_every_shape_up_to_twice_the_working_size_is_seen_whole(
    backbone: Backbone,
) -> None:
    view = InteractiveImage(picture(1024, 30), backbone, "cpu")
    assert view.near.tile == Framing.for_images([(1024, 30)], SIZE).tile == 1024

"""One mask out of many: their mean, the image's edges, and clicks that are obeyed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import save_nano
from test_judge import SIZES, candidates

from napari_medseg.models.backbone import Backbone, load_backbone
from napari_medseg.models.candidates import GRID
from napari_medseg.models.clicks import Prompt
from napari_medseg.models.interactive import InteractiveImage
from napari_medseg.models.refining import mean_mask


def test_the_mean_counts_masks_by_their_weight_wherever_they_were_seen() -> None:
    some = candidates()
    weight = torch.linspace(0, 2, 8).softmax(dim=0)
    found = mean_mask(some, weight, 0)
    # a cell of the first look, and where it lies in the second
    row, column = 40, 12
    (top, left, cell), (other_top, other_left, other_cell) = some.frames.tolist()
    place = (
        int((top + (row + 0.5) * cell - other_top) / other_cell),
        int((left + (column + 0.5) * cell - other_left) / other_cell),
    )
    places = [(row, column)] * 4 + [place] * 4
    wanted = sum(
        float(weight[index] * some.masks[index][at]) for index, at in enumerate(places)
    )
    assert found.shape == (GRID, GRID)
    assert float(found[row, column]) == pytest.approx(wanted, abs=1e-5)
    assert 0 < wanted < 1


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    file = save_nano(tmp_path_factory.mktemp("sam") / "nano.pth")
    return replace(load_backbone(str(file)), sizes=SIZES)


def squares() -> np.ndarray:
    """Return an image of two bright squares on dark."""
    noise = np.random.default_rng(0).normal(0.2, 0.02, (3, 120, 160))
    image = noise.astype(np.float32)
    image[:, 30:90, 20:70] += 0.5
    image[:, 30:90, 95:145] += 0.5
    return image.clip(0, 1)


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(((60, 45), (60, 120)), (True, False)),
        Prompt(((60, 45), (50, 30), (100, 45), (10, 80)), (True, True, False, False)),
        Prompt(((40, 30), (80, 60)), (True, True), (28, 18, 91, 71)),
        Prompt(((60, 45), (61, 82), (0, 0), (119, 159)), (True, False, False, False)),
    ],
)
def test_every_click_is_obeyed(backbone: Backbone, prompt: Prompt) -> None:
    view = InteractiveImage(squares(), backbone, "cpu")
    answer = view.answer(prompt)
    whole = np.zeros(view.shape, bool)
    whole[answer.region.slices] = answer.masks[0]
    places = [(round(row), round(column)) for row, column in prompt.points]
    assert [bool(whole[place]) for place in places] == list(prompt.adds)


def test_clicks_find_an_object_that_no_mask_showed(backbone: Backbone) -> None:
    """The SAM of this test knows nothing: edges and six clicks are enough."""
    on = [(60, 45), (38, 28), (82, 62), (38, 62)]
    off = [(60, 82), (15, 45), (105, 45), (60, 120)]
    prompt = Prompt((*on, *off), (True,) * 4 + (False,) * 4)
    view = InteractiveImage(squares(), backbone, "cpu")
    answer = view.answer(prompt)
    found = np.zeros(view.shape, bool)
    found[answer.region.slices] = answer.masks[0]
    truth = np.zeros(view.shape, bool)
    truth[30:90, 20:70] = True
    assert (found & truth).sum() / (found | truth).sum() > 0.8


def test_nothing_beyond_a_box_is_found(backbone: Backbone) -> None:
    view = InteractiveImage(squares(), backbone, "cpu")
    answer = view.answer(Prompt(box=(28, 18, 91, 71)))
    found = np.zeros(view.shape, bool)
    found[answer.region.slices] = answer.masks[0]
    assert not found[:, 76:].any()
    assert not found[97:].any()

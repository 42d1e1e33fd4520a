"""What chooses among masks: its features by plain loops, and what it promises."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from networks import save_nano
from safetensors.torch import save_file
from scipy import ndimage

from napari_medseg._types import WeightsError
from napari_medseg.models import bundled
from napari_medseg.models.backbone import Backbone, load_backbone
from napari_medseg.models.candidates import COARSE, GRID, Candidates, means
from napari_medseg.models.clicks import Prompt, as_asked
from napari_medseg.models.interactive import InteractiveImage
from napari_medseg.models.judge import ABSENT, Judge, load_judge
from napari_medseg.models.mask_features import NAMES, agreement, describe
from napari_medseg.models.mask_geometry import grown
from napari_medseg.models.registry import SAMS, KnownSizes
from napari_medseg.models.sized import SizedView

if TYPE_CHECKING:
    from pathlib import Path

SIZES = KnownSizes(window=256, sides=(32, 64), zooms=((0.5, 256), (2.0, 256)))

CELLS = ((10.0, 4.0, 0.5), (0.0, 0.0, 1.25))
"""Where the windows of two looks begin, and the pixels along a cell."""


def squares(*edges: tuple[int, int, int, int]) -> torch.Tensor:
    """Return masks that are rectangles, of top, left, bottom and right behind them."""
    masks = torch.zeros(len(edges), GRID, GRID, dtype=torch.bool)
    for mask, (top, left, bottom, right) in zip(masks, edges, strict=True):
        mask[top:bottom, left:right] = True
    return masks


def candidates(boxed: bool = False, seed: int = 0) -> Candidates:
    """Return eight masks of two looks, with pictures and logits of noise."""
    generator = torch.Generator().manual_seed(seed)
    rows = [(20, 30, 60, 90), (0, 10, 128, 20), (50, 50, 51, 51), (30, 30, 90, 70)]
    masks = torch.cat([squares(*rows), squares(*rows[::-1])])
    masks[5] = False
    noise = torch.randn(8, GRID, GRID, generator=generator)
    points = [[24.0, 30.0], [0.0, 0.0]]
    labels = [1, -1]
    if boxed:
        points, labels = [[24.0, 30.0], [19.0, 20.0], [49.0, 40.0]], [1, 2, 3]
    return Candidates(
        logits=torch.where(masks, 4.0, -4.0) + noise,
        masks=masks,
        look=torch.arange(8) // 4,
        expected=torch.rand(8, generator=generator),
        parted=torch.arange(8) >= 7,
        rule=torch.rand(8, generator=generator),
        within=torch.randn(8, 256, generator=generator),
        around=torch.randn(8, 256, generator=generator),
        pictures=torch.randn(2, 3, GRID, GRID, generator=generator),
        frames=torch.tensor(CELLS),
        shown=torch.tensor([[128.0, 128.0], [100.5, 128.0]]),
        open=torch.tensor([[True, False, True, True], [False] * 4]),
        pixels=torch.tensor([2.0, 4.0]),
        points=torch.tensor(points),
        labels=torch.tensor(labels),
    )


def feature(of: Candidates, name: str) -> list[float]:
    table = describe(of, agreement(of))
    assert table.shape == (len(of.look), len(NAMES))
    assert torch.isfinite(table).all()
    values: list[float] = table[:, NAMES.index(name)].tolist()
    return values


def test_masks_grow_as_by_plain_dilation() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((3, 20, 17)) > 0.97
    for cells in (1, 2, 6, 30):
        square = np.ones((2 * cells + 1, 2 * cells + 1), bool)
        plain = [ndimage.binary_dilation(mask, square) for mask in masks]
        found = grown(torch.from_numpy(masks), cells)
        np.testing.assert_array_equal(found.numpy(), np.stack(plain))


def test_masks_of_one_look_agree_by_their_iou() -> None:
    of = candidates()
    found = agreement(of).numpy()
    masks = of.masks.numpy()
    for look in (0, 1):
        for i in range(4 * look, 4 * look + 4):
            for j in range(4 * look, 4 * look + 4):
                either = (masks[i] | masks[j]).sum()
                both = (masks[i] & masks[j]).sum()
                wanted = both / either if either else 0
                assert found[i, j] == pytest.approx(wanted, abs=1e-4)


def test_masks_of_two_looks_agree_where_they_lie_in_the_image() -> None:
    """Rectangles of known edges in the image: their IoU is plain arithmetic."""
    of = candidates()
    found = agreement(of)
    np.testing.assert_allclose(found, found.T)
    edges = [(20, 30, 60, 90), (30, 30, 90, 70)]
    placed = []
    for (row, column, cell), (top, left, bottom, right) in zip(
        CELLS, edges, strict=True
    ):
        ends = (row + cell * top, row + cell * bottom)
        placed.append((*ends, column + cell * left, column + cell * right))
    one, other = placed
    down = min(one[1], other[1]) - max(one[0], other[0])
    across = min(one[3], other[3]) - max(one[2], other[2])
    both = max(0, down) * max(0, across)
    areas = [(each[1] - each[0]) * (each[3] - each[2]) for each in placed]
    wanted = both / (sum(areas) - both)
    # within a cell along each edge
    assert wanted > 0
    assert float(found[0, 4]) == pytest.approx(wanted, abs=0.03)


def test_contrast_is_the_difference_of_plain_means() -> None:
    of = candidates()
    look, mask = 0, of.masks[0].numpy()
    seam = ndimage.binary_dilation(mask, np.ones((5, 5))) & ~mask
    picture = of.pictures[look].numpy()
    apart = [abs(plane[mask].mean() - plane[seam].mean()) for plane in picture]
    usual = np.mean([plane.std() for plane in picture])
    assert feature(of, "contrast near")[0] == pytest.approx(
        max(apart) / usual, rel=0.02
    )


def test_masks_are_described_as_well_where_looks_offer_more_or_fewer() -> None:
    of = candidates()
    kept = torch.tensor([0, 1, 4, 5, 6, 7])
    per_mask = ("logits", "masks", "look", "expected", "parted", "rule")
    fewer = of._replace(
        **{name: getattr(of, name)[kept] for name in (*per_mask, "within", "around")}
    )
    for name in ("contrast near", "evenness", "edges at the outline", "log side"):
        wanted = [feature(of, name)[index] for index in kept.tolist()]
        assert feature(fewer, name) == pytest.approx(wanted, rel=1e-4)


def test_masks_of_sam_and_of_colours_are_told_apart() -> None:
    of = candidates()
    assert feature(of, "parted by colour") == [0.0] * 7 + [1.0]
    assert feature(of, "mask 3") == [0.0, 0.0, 0.0, 1.0] + [0.0] * 4


def test_nothing_is_compared_with_the_margin() -> None:
    of = candidates()
    changed = of.pictures.clone()
    changed[1, :, 101:] = 50.0
    for name in ("contrast far", "clearness far", "edges at the outline"):
        usual = feature(of, name)[4]
        there = feature(of._replace(pictures=changed), name)[4]
        # mask 4 ends ten cells above the margin, mask 6 lies across it
        assert there == pytest.approx(usual, rel=0.05)


def test_a_click_is_as_deep_as_the_nearest_cell_beside_the_mask() -> None:
    of = candidates()
    depth, off = (
        feature(of, "depth of the first click"),
        feature(of, "first click off the middle"),
    )
    # x 24, y 30 of the image is row 40.5, column 40.5 of the first look
    radius = np.sqrt(40 * 60 / np.pi)
    row, column = 40.5, 40.5
    distances = ndimage.distance_transform_edt(of.masks[0].numpy())
    assert depth[0] == pytest.approx(distances[40, 40] / radius, abs=0.1)
    middle = ndimage.center_of_mass(of.masks[0].numpy())
    away = np.hypot(row - middle[0], column - middle[1])
    assert off[0] == pytest.approx(away / radius, abs=0.02)
    assert feature(of, "clicks obeyed")[:3] == [1, 0, 0]


def test_a_mask_that_fills_its_box_is_known() -> None:
    of = candidates(boxed=True)
    # the box of the first mask: rows 20 to 39.5 of the image are 20 to 59 of cells
    assert feature(of, "fills the box")[0] > 0.9
    assert feature(of, "fills the box")[2] < 0.1
    assert set(feature(candidates(), "fills the box")) == {0}
    assert set(feature(of, "boxed")) == {1}


def test_masks_that_end_with_the_window_are_known() -> None:
    open_, image = (
        feature(candidates(), "at open sides"),
        feature(candidates(), "at the image's edge"),
    )
    side = np.sqrt(128 * 10)
    # top and bottom of the first window are not those of the image
    assert open_[1] == pytest.approx(20 / side)
    assert image[1] == 0
    assert open_[6] == 0
    assert image[6] == pytest.approx(20 / side)
    assert open_[0] == image[0] == 0


def test_embeddings_are_averaged_on_and_round_a_mask() -> None:
    gist = torch.zeros(256, COARSE, COARSE)
    gist[0, 10:14, 10:14] = 1
    mask = torch.zeros(1, COARSE, COARSE)
    mask[0, 10:14, 10:14] = 1
    within, around = means(gist, mask)
    assert float(within[0, 0]) == pytest.approx(1)
    assert float(around.abs().max()) == 0


def test_before_training_the_rule_decides() -> None:
    of = candidates()
    order = Judge().eval().scores(of).argsort().tolist()
    assert order == of.rule.clamp(0.02, 0.98).argsort().tolist()


def trained() -> Judge:
    """Return a judge with random weights, which listens to everything."""
    torch.manual_seed(0)
    judge = Judge()
    with torch.no_grad():
        for parameter in judge.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    return judge.eval()


def test_the_order_of_masks_and_empty_places_do_not_matter() -> None:
    judge = trained()
    table = torch.rand(1, 6, len(NAMES))
    alike = torch.rand(1, 6, 6)
    there = torch.tensor([[1.0, 1, 1, 1, 0, 0]])
    with torch.inference_mode():
        usual = judge(table, alike, there)
        turned = judge(
            table[:, [2, 0, 3, 1, 4, 5]],
            alike[:, [2, 0, 3, 1, 4, 5]][:, :, [2, 0, 3, 1, 4, 5]],
            there,
        )
        fewer = judge(table[:, :4], alike[:, :4, :4], there[:, :4])
    torch.testing.assert_close(turned[:, :4], usual[:, [2, 0, 3, 1]])
    torch.testing.assert_close(fewer, usual[:, :4])
    assert (usual[:, 4:] == ABSENT).all()


def test_masks_hear_from_those_that_lie_where_they_lie() -> None:
    judge, table = trained(), torch.rand(1, 3, len(NAMES))
    there = torch.ones(1, 3)
    apart, together = torch.eye(3)[None], torch.ones(1, 3, 3)
    with torch.inference_mode():
        assert not torch.allclose(
            judge(table, apart, there), judge(table, together, there)
        )


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    file = save_nano(tmp_path_factory.mktemp("sam") / "nano.pth")
    return replace(load_backbone(str(file)), sizes=SIZES)


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(((40, 50),), (True,)),
        Prompt(((40, 50), (60, 70)), (True, False)),
        Prompt(((40, 50),), (True,), (20, 30, 60, 90)),
        Prompt(box=(0, 0, 0, 0)),
        Prompt(box=(0, 0, 99, 179)),
    ],
)
def test_the_best_by_the_judge_comes_first(backbone: Backbone, prompt: Prompt) -> None:
    rng = np.random.default_rng(0)
    image = rng.random((3, 100, 180), dtype=np.float32)
    judge = trained()
    judged = replace(backbone)
    judged.judge = judge
    view = SizedView(image, judged, SIZES, torch.device("cpu"))
    asked = as_asked(prompt)
    offered = view.offered(asked, prompt.extent)
    wanted = judge.scores(view.candidates(offered, asked))
    found = view.find(asked, prompt.extent)
    # where more is known than a click, a mask made of all stands before them
    best = found if asked.single else found[1:]
    scores = [each.score for each in best]
    assert scores == pytest.approx(sorted(wanted.tolist(), reverse=True), abs=1e-5)
    np.testing.assert_array_equal(best[0].mask, offered[int(wanted.argmax())].mask)
    assert found[0].score == best[0].score and found[0].look == best[0].look
    answer = InteractiveImage(image, judged, "cpu").answer(prompt)
    assert answer.scores[0] == pytest.approx(scores[0], abs=1e-5)
    assert 0 <= answer.scores[0] <= 1


def test_a_judge_is_for_the_weights_that_it_was_trained_on() -> None:
    entry = SAMS["nano"]
    assert entry.judge is not None
    nano = load_backbone("nano")
    assert nano.judge is not None
    card = bundled.card(entry.judge)
    assert card["judges"] == nano.digest
    # the very same weights under another name are somebody's own
    own = load_backbone(str(bundled.find(entry.weights.name)))
    assert own.judge is None
    assert {name for name, each in SAMS.items() if each.judge} == {"nano"}


def test_a_damaged_judge_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundled, "FOLDER", tmp_path)
    with pytest.raises(WeightsError, match="missing"):
        load_judge("judge.safetensors")
    file = tmp_path / "judge.safetensors"
    file.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="damaged"):
        load_judge(file.name)
    save_file({"mean": torch.zeros(3)}, file)
    with pytest.raises(WeightsError, match="damaged"):
        load_judge(file.name)

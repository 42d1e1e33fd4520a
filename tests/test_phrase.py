"""Segmenting by a phrase: each step against plain loops, and all of it offline."""

from __future__ import annotations

from itertools import pairwise, product
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention
from diffusion_models import GRID, save_diffusion, unet
from scipy.cluster.vq import kmeans2
from torch.nn import functional

from napari_medseg._types import InputError, finish
from napari_medseg.inference import open_segmenter
from napari_medseg.instances import ObjectConfig, labels_of
from napari_medseg.models.attention_maps import (
    Recorded,
    aggregate,
    recording,
    word_map,
)
from napari_medseg.models.framing import Box, Framing
from napari_medseg.models.merging import (
    anchors,
    distances,
    merged,
    proposed,
    refined,
    segmented,
)
from napari_medseg.models.partition import Partition, joined, two_means
from napari_medseg.models.phrase import PhraseSegmenter, open_phrase
from napari_medseg.models.phrase_look import owned
from napari_medseg.models.phrase_settings import PhraseConfig, is_phrase, phrase_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_medseg._types import FloatArray


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Compute on one thread: the networks are so small that others only wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_diffusion(tmp_path_factory.mktemp("diffusion") / "small")


@pytest.fixture(scope="module")
def segmenter(model: Path) -> PhraseSegmenter:
    return open_phrase(PhraseConfig("infected wound", tau=0.5), "cpu", str(model))


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def spread(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return rows with a sum of 1."""
    return (3 * some(*shape, seed=seed)).softmax(dim=-1)


def picture(channels: int = 3, height: int = 90, width: int = 140) -> FloatArray:
    rng = np.random.default_rng(0)
    image = rng.random((channels, height, width), dtype=np.float32)
    image[:, height // 4 : height // 2, width // 4 : width // 2] += 2
    return image


# ---------------------------------------------------------------------- attention


def test_recording_does_not_change_what_the_model_says() -> None:
    network = unet()
    latent, states = some(1, 4, GRID, GRID), some(1, 7, 16)
    with torch.inference_mode():
        plain = network(latent, 300, states).sample
        before = dict(network.attn_processors)
        with recording(network, some(1, 7, 16, seed=1)) as record:
            found = network(latent, 300, states).sample
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)
    assert dict(network.attn_processors) == before
    # as Stable Diffusion: down and up at each resolution, once at the coarsest
    assert record.layers == {16: 3, 8: 3, 4: 3, 2: 1}
    for side, count in record.layers.items():
        assert record.own[side].shape == (side**2, side**2)
        assert record.words[side].shape == record.others[side].shape == (side**2, 7)
        for kind in (record.own, record.words, record.others):
            sums = kind[side].sum(dim=1)
            torch.testing.assert_close(sums, torch.full_like(sums, count))
        assert not torch.allclose(record.words[side], record.others[side])


def test_what_is_recorded_is_the_attention_that_diffusers_computes() -> None:
    torch.manual_seed(0)
    for width in (None, 6):
        layer = Attention(12, cross_attention_dim=width, heads=3, dim_head=4).eval()
        hidden, states = some(1, 16, 12), None if width is None else some(1, 5, 6)
        source = hidden if states is None else states
        with torch.no_grad():
            queries = layer.head_to_batch_dim(layer.to_q(hidden))
            keys = layer.head_to_batch_dim(layer.to_k(source))
            wanted = layer.get_attention_scores(queries, keys).mean(dim=0)
            network = Layers(layer)
            with recording(network) as record:
                layer(hidden, encoder_hidden_states=states)
                layer(hidden, encoder_hidden_states=states)
        kind = record.own if states is None else record.words
        torch.testing.assert_close(kind[4], 2 * wanted)


class Layers:
    """One layer of attention, in place of a UNet."""

    def __init__(self, layer: Attention) -> None:
        self.layer = layer

    @property
    def attn_processors(self) -> dict[str, object]:
        return {"layer": self.layer.processor}

    def set_attn_processor(self, processor: object) -> None:
        one = processor["layer"] if isinstance(processor, dict) else processor
        self.layer.set_processor(one)


def test_aggregation_is_that_of_plain_loops() -> None:
    grid, sides = 8, (8, 4, 2)
    own = {side: spread(side**2, side**2, seed=side) * 5 for side in sides}
    wanted = torch.zeros(grid, grid, grid, grid)
    for side in sides:
        maps = own[side].view(side, side, side, side)
        times = grid // side
        for row, column in product(range(grid), range(grid)):
            one = maps[row // times, column // times][None, None]
            finer = functional.interpolate(
                one, size=(grid, grid), mode="bilinear", align_corners=False
            )[0, 0]
            wanted[row, column] += finer / finer.sum() * side / sum(sides)
    found = aggregate(Recorded(own=own), grid)
    torch.testing.assert_close(found, wanted.view(grid**2, grid**2))
    sums = found.sum(dim=1)
    torch.testing.assert_close(sums, torch.ones_like(sums))


def test_the_maps_of_several_tokens_are_averaged() -> None:
    words = {4: spread(16, 6) * 2, 2: spread(4, 6, seed=1)}
    layers, shape = {4: 2, 2: 1}, (9, 9)
    found = word_map(words, layers, [2, 3], shape)
    wanted = torch.zeros(shape)
    for column in (2, 3):
        total = torch.zeros(shape)
        for side, count in layers.items():
            one = words[side][:, column].view(1, 1, side, side) / count
            total += functional.interpolate(
                one, size=shape, mode="bilinear", align_corners=False
            )[0, 0]
        wanted += total / total.square().sum().sqrt() / 2
    torch.testing.assert_close(found, wanted)


# ------------------------------------------------------------------------ merging


def divergence(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the symmetric divergence of two distributions, by its definition."""
    one, other = first.double() + 1e-8, second.double() + 1e-8
    total = 0.0
    for p, q in zip(one.tolist(), other.tolist(), strict=True):
        total += 0.5 * (p * np.log(p / q) + q * np.log(q / p))
    return total


def test_distances_are_symmetric_divergences() -> None:
    first, second = spread(5, 12), spread(7, 12, seed=1)
    first[0] = torch.eye(12)[3]  # zeros, too
    found = distances(first, second)
    for row, column in product(range(5), range(7)):
        wanted = divergence(first[row], second[column])
        assert found[row, column].item() == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    torch.testing.assert_close(distances(second, first), found.T, rtol=1e-4, atol=1e-6)
    assert distances(first, first).diagonal().max() < 1e-6


def test_anchors_are_spread_evenly() -> None:
    assert anchors(8, 2).tolist() == [2 * 8 + 2, 2 * 8 + 6, 6 * 8 + 2, 6 * 8 + 6]
    assert anchors(4, 16).tolist() == list(range(16))


def test_proposals_and_merging_are_those_of_plain_loops() -> None:
    groups = [spread(1, 20, seed=seed) for seed in range(3)]
    maps = torch.cat([(g + 0.02 * spread(6, 20, seed=9)) / 1.02 for g in groups])
    begin, tau = torch.tensor([0, 3, 7, 8, 14]), 0.3
    found = proposed(maps, distances(maps[begin], maps), tau)
    for row, start in enumerate(begin.tolist()):
        near = [one for one in maps if divergence(maps[start], one) < tau]
        torch.testing.assert_close(found[row], torch.stack(near).mean(dim=0))
    wanted, matched = [], set()
    for index, one in enumerate(found):
        if index in matched:
            continue
        near = [n for n, each in enumerate(found) if divergence(one, each) < tau]
        matched |= {index, *near}
        wanted.append(torch.stack([found[n] for n in near]).mean(dim=0))
    torch.testing.assert_close(merged(found, tau), torch.stack(wanted))
    assert len(wanted) == 3
    assert len(merged(found, 100.0)) == 1
    assert len(merged(found, 0.0)) == len(found)


def test_refining_is_k_means() -> None:
    maps = torch.cat(
        [
            spread(8, 10, seed=s) * 0.3 + 0.7 * spread(1, 10, seed=s + 50)
            for s in range(3)
        ]
    )
    start = maps[[0, 9, 17]]
    wanted, labels = kmeans2(
        maps.double().numpy(), start.double().numpy(), iter=10, minit="matrix"
    )
    found = refined(maps, start)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4, atol=1e-6)
    assert len(set(labels)) == 3
    # nothing is nearest to what is far from everything
    far = torch.cat([start, torch.full((1, 10), 5.0)])
    np.testing.assert_allclose(refined(maps, far)[:3], found, rtol=1e-5, atol=1e-7)


def test_each_pixel_belongs_to_the_highest_proposal() -> None:
    proposals = spread(37, 36)
    found = segmented(proposals, 6, (15, 15))
    finer = functional.interpolate(
        proposals.view(1, -1, 6, 6), size=(15, 15), mode="bilinear", align_corners=False
    )[0]
    for row, column in product(range(15), range(15)):
        values = finer[:, row, column].tolist()
        assert found[row, column] == values.index(max(values))


# ------------------------------------------------------------------------- choice


def test_two_means_is_the_best_split() -> None:
    rng = np.random.default_rng(0)
    for count in (2, 3, 7, 20):
        scores = rng.normal(size=count).astype(np.float32)
        ordered = sorted(scores.astype(float))

        def spread_of(values: list[float]) -> float:
            return sum((value - np.mean(values)) ** 2 for value in values)

        best = min(
            range(1, count),
            key=lambda cut: spread_of(ordered[:cut]) + spread_of(ordered[cut:]),
        )
        wanted = np.mean(ordered[:best]), np.mean(ordered[best:])
        assert two_means(scores) == pytest.approx(wanted)


def test_segments_above_the_midpoint_are_meant() -> None:
    segments = np.array([[1, 1, 2], [3, 4, 4]], np.int32)
    partition = Partition(segments, np.array([0.1, 0.9, 0.2, 0.8], np.float32))
    assert (partition.likely() > 0.5).tolist() == [False, True, False, True]
    assert partition.areas.tolist() == [2, 1, 1, 2]
    found = partition.probabilities()
    np.testing.assert_allclose(found.sum(axis=0), 1)
    assert (found[1] > 0.5).tolist() == [[False, False, True], [False, True, True]]
    # equal scores say nothing
    same = Partition(segments, np.full(4, 0.3, np.float32))
    assert not same.likely().any()


def test_clicks_add_segments_and_take_them_away() -> None:
    segments = np.array([[1, 1, 2], [3, 4, 4]], np.int32)
    partition = Partition(segments, np.array([0.1, 0.9, 0.2, 0.8], np.float32))
    clicks, adds = [(0.4, 0.6), (0, 2), (1, 0), (1.2, -0.3)], [True, False, True, False]
    found = partition.chosen(clicks, adds) > 0.5
    assert found.tolist() == [True, False, False, True]
    with pytest.raises(InputError, match="rows 0 to 1 and columns 0 to 2"):
        partition.at((2, 0))


def test_windows_share_an_image_without_gaps() -> None:
    for shape in ((50, 130), (64, 64), (200, 64), (129, 191)):
        boxes = Framing(tile=64).boxes(shape)
        seen = np.zeros(shape, int)
        for box, (rows, columns) in zip(boxes, owned(boxes), strict=True):
            seen[rows, columns] += 1
            assert box.top <= rows.start < rows.stop <= box.bottom
            assert box.left <= columns.start < columns.stop <= box.right
        assert (seen == 1).all()
    boxes = [Box(0, 0, 4, 6), Box(0, 4, 4, 10)]
    assert [c for _, c in owned(boxes)] == [slice(0, 5), slice(5, 10)]


def test_partitions_of_windows_are_put_together() -> None:
    left = np.array([[1, 3], [3, 3]], np.int32)
    right = np.array([[2], [1]], np.int32)
    whole = joined(
        (2, 3),
        [
            ((slice(0, 2), slice(0, 2)), left, np.array([0.1, 0.2, 0.3], np.float32)),
            ((slice(0, 2), slice(2, 3)), right, np.array([0.4, 0.5], np.float32)),
        ],
    )
    assert whole.segments.tolist() == [[1, 2, 4], [2, 2, 3]]
    np.testing.assert_allclose(whole.scores, [0.1, 0.3, 0.4, 0.5])


# ----------------------------------------------------------------------- settings


def test_a_name_says_all_settings() -> None:
    config = phrase_of("phrase: infected wound ; tau=1; window=256;refine=True")
    assert config == PhraseConfig("infected wound", tau=1.0, window=256, refine=True)
    assert config.name == "phrase:infected wound; tau=1.0; window=256; refine=True"
    assert phrase_of(config.name) == config
    assert phrase_of("phrase:a: b").text == "a: b"
    assert phrase_of("phrase:7; background=12").background == "12"
    assert is_phrase("phrase:x")
    assert not is_phrase("phrase.medseg")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("phrase:x; tua=1", "tua"),
        ("phrase:x; tau=red", "must be a number"),
        ("phrase:x; tau=9", "at most 5"),
        ("phrase:x; tau", "is no setting"),
    ],
)
def test_wrong_names_get_a_sentence(name: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        phrase_of(name)


# ---------------------------------------------------------------------- segmenter


@pytest.mark.parametrize("shape", [(3, 90, 140), (1, 40, 31), (2, 300, 90), (5, 1, 1)])
def test_images_of_any_shape_are_covered(
    segmenter: PhraseSegmenter, shape: tuple[int, int, int]
) -> None:
    image = picture(*shape)
    prediction = segmenter.predict(image)
    assert prediction.probabilities.shape == (2, *shape[1:])
    assert prediction.probabilities.dtype == np.float32
    np.testing.assert_allclose(prediction.probabilities.sum(axis=0), 1, rtol=1e-6)
    partition = finish(segmenter.cutting(image))
    assert partition.segments.shape == shape[1:]
    assert set(np.unique(partition.segments)) == set(
        range(1, len(partition.scores) + 1)
    )


def test_what_is_kept_gives_any_tau(segmenter: PhraseSegmenter) -> None:
    image = picture(3, 300, 200)
    look = finish(segmenter.look(image))
    assert len(look.windows) == 2
    counts = []
    for tau in (0.2, 0.5, 1.0):
        found = look.partition(tau)
        config = PhraseConfig("infected wound", tau=tau)
        anew = PhraseSegmenter(segmenter.diffusion, config)
        wanted = finish(anew.cutting(image))
        np.testing.assert_array_equal(found.segments, wanted.segments)
        np.testing.assert_array_equal(found.scores, wanted.scores)
        counts.append(len(found.scores))
    assert all(more > fewer for more, fewer in pairwise(counts))
    assert look.nbytes > 2 * GRID**4 * 4


def test_scores_are_means_of_the_words_less_the_background(
    segmenter: PhraseSegmenter,
) -> None:
    look = finish(segmenter.look(picture()))
    (window,) = look.windows
    assert window.lean.shape == (90, 140)
    partition = look.partition()
    for number, score in enumerate(partition.scores, start=1):
        inside = window.lean.numpy()[partition.segments == number]
        assert score == pytest.approx(inside.mean(), rel=1e-3, abs=1e-6)
    other = PhraseConfig("nuclei", tau=0.5)
    anew = PhraseSegmenter(segmenter.diffusion, other)
    (changed,) = finish(anew.look(picture())).windows
    assert not torch.allclose(changed.lean, window.lean)


def test_without_a_phrase_nothing_is_chosen(segmenter: PhraseSegmenter) -> None:
    config = PhraseConfig("", tau=0.5)
    bare = PhraseSegmenter(segmenter.diffusion, config)
    prediction = bare.predict(picture())
    assert not prediction.probabilities[1].any()
    assert "click" in prediction.note


def test_objects_follow_from_the_segments(segmenter: PhraseSegmenter) -> None:
    prediction = segmenter.predict(picture())
    labels = labels_of(prediction, ObjectConfig(split="components", min_size=4))
    assert labels.max() > 0
    assert ((labels > 0) <= (prediction.probabilities[1] > 0.4)).mean() > 0.9


def test_a_model_of_pixels_needs_no_vae(tmp_path: Path) -> None:
    model = save_diffusion(tmp_path / "pixels", pixels=2)
    found = open_segmenter(f"phrase:nuclei; tau=0.5; model={model}", "cpu")
    assert isinstance(found, PhraseSegmenter)
    assert (found.diffusion.side, found.diffusion.patch) == (2 * GRID, 2)
    image = torch.rand(1, 3, 32, 32)
    latent = found.diffusion.latent(image)
    assert latent.shape == (1, 12, GRID, GRID)
    back = functional.pixel_shuffle(latent, 2) / 2 + 0.5
    torch.testing.assert_close(back, image)
    assert found.predict(picture()).probabilities.shape == (2, 90, 140)


def test_identity_follows_weights_and_settings(
    segmenter: PhraseSegmenter, model: Path
) -> None:
    name = f"phrase:infected wound; tau=0.5; model={model}"
    same = open_segmenter(name, "cpu")
    assert same.identity == segmenter.identity
    assert open_segmenter(name + "; rounds=4", "cpu").identity != same.identity
    assert same.classes[1].name == "infected wound"


def test_long_phrases_get_a_sentence(model: Path) -> None:
    with pytest.raises(InputError, match="use fewer words"):
        open_phrase(
            PhraseConfig("a wound that nobody has seen before"), "cpu", str(model)
        )

"""PTSAM: so many numbers and no more, SAM untouched, the method as published."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from networks import random_nano, save_nano, tiny_sam, tiny_vit

from napari_medseg._types import ModelFileError, WeightsError, default_classes
from napari_medseg.io.model_file import ModelCard, ModelFile
from napari_medseg.models.backbone import load_backbone
from napari_medseg.models.prompts import (
    PromptedBlock,
    PromptedDecoder,
    PromptedEncoder,
    PromptedSam,
    from_model_file,
    trained_count,
)
from napari_medseg.models.sam import build_sam, encode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from segment_anything.modeling import Sam
    from segment_anything.modeling.image_encoder import Attention, Block

    from napari_medseg.models.backbone import Backbone


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- how many numbers are trained


@pytest.mark.parametrize("kind", ["nano", "vit_b"])
def test_one_class_trains_2048_numbers_and_each_further_one_as_many(kind: str) -> None:
    with torch.device("meta"):
        sam = build_sam(kind)
        for classes in (1, 2, 5):
            assert trained_count(PromptedDecoder(sam, classes)) == 2_048 * classes


def test_the_encoder_of_vit_b_takes_the_paper_s_73728_numbers() -> None:
    with torch.device("meta"):
        sam = build_sam("vit_b")
        encoder, decoder = PromptedEncoder(sam), PromptedDecoder(sam)
        assert trained_count(encoder) == 73_728
        assert trained_count(PromptedSam(encoder, decoder)) == 75_776
    assert [tuple(prompt.shape) for prompt in encoder.prompts] == [(8, 768)] * 12


# --- decoder prompts


def test_without_prompts_the_mask_is_that_of_sam_without_prompts() -> None:
    sam = random_nano(working_size=128)
    embedding = noise(1, 256, 16, 16)
    with torch.no_grad():
        sparse, dense = sam.prompt_encoder(points=None, boxes=None, masks=None)
        expected, _ = sam.mask_decoder(
            image_embeddings=embedding,
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        found = PromptedDecoder(sam, count=0)(embedding)
    assert found.shape == (1, 2, 64, 64)
    torch.testing.assert_close(found[:, 1:], expected)


@pytest.mark.parametrize("mask", [0, 2])
def test_prompts_stand_where_a_user_s_prompts_would(mask: int) -> None:
    sam = random_nano(working_size=128)
    embedding = noise(1, 256, 16, 16)
    with torch.no_grad():
        decoder = PromptedDecoder(sam, mask=mask)
        _, dense = sam.prompt_encoder(points=None, boxes=None, masks=None)
        expected, _ = sam.mask_decoder.predict_masks(
            embedding, sam.prompt_encoder.get_dense_pe(), decoder.prompts, dense
        )
        found = decoder(embedding)
    torch.testing.assert_close(found[:, 1], expected[:, mask])


def test_the_logit_of_the_background_is_0() -> None:
    with torch.no_grad():
        logits = PromptedDecoder(random_nano(), classes=2)(noise(2, 256, 4, 6))
    assert logits.shape == (2, 3, 16, 24)
    assert not logits[:, 0].any() and logits[:, 1:].all()


def test_a_class_does_not_depend_on_the_prompts_of_another() -> None:
    sam = random_nano()
    embeddings = noise(2, 256, 8, 8)
    decoder = PromptedDecoder(sam, classes=3)
    with torch.no_grad():
        before = decoder(embeddings)
        decoder.prompts[1] += 1
        after = decoder(embeddings)
        for index in range(3):
            alone = PromptedDecoder(sam, classes=1)
            alone.prompts.copy_(decoder.prompts[index : index + 1])
            torch.testing.assert_close(
                after[:, 1 + index], alone(embeddings)[:, 1], rtol=1e-4, atol=1e-4
            )
    assert torch.equal(before[:, [0, 1, 3]], after[:, [0, 1, 3]])
    assert not torch.equal(before[:, 2], after[:, 2])


def test_the_same_seed_draws_the_same_prompts() -> None:
    sam = random_nano()

    def drawn(seed: int) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        decoder = PromptedDecoder(sam, generator=generator)
        return [decoder.prompts, *PromptedEncoder(sam, generator=generator).prompts]

    assert all(map(torch.equal, drawn(1), drawn(1)))
    assert not any(map(torch.equal, drawn(1), drawn(2)))


# --- encoder prompts, against the plain way of writing them


def slow_attention(
    attention: Attention, x: torch.Tensor, prompts: torch.Tensor
) -> torch.Tensor:
    """Attend with the prompts as whole tokens, whose outputs are dropped."""
    height, width, channels = x.shape
    image = height * width
    tokens = torch.cat([x.reshape(image, channels), prompts])
    heads = attention.num_heads
    q, k, v = attention.qkv(tokens).view(len(tokens), 3, heads, -1).unbind(1)
    rows = torch.arange(image) // width
    columns = torch.arange(image) % width
    mixed = torch.empty(len(tokens), heads, channels // heads)
    for head in range(heads):
        scores = q[:, head] @ k[:, head].T / (channels // heads) ** 0.5
        bias = torch.zeros_like(scores)
        for i in range(image):
            above = attention.rel_pos_h[rows[i] - rows + height - 1]
            beside = attention.rel_pos_w[columns[i] - columns + width - 1]
            bias[i, :image] = (above + beside) @ q[i, head]
        mixed[:, head] = (scores + bias).softmax(dim=1) @ v[:, head]
    return attention.proj(mixed.flatten(1))[:image].view(x.shape)


def slow_block(block: Block, x: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
    """Run a block on one image, window by window, with the same prompts in each."""
    height, width, channels = x.shape
    normed, prompts = block.norm1(x), block.norm1(prompts)
    side = block.window_size
    if side == 0:
        mixed = slow_attention(block.attn, normed, prompts)
    else:
        rows, columns = -(-height // side) * side, -(-width // side) * side
        padded = torch.zeros(rows, columns, channels)
        padded[:height, :width] = normed
        whole = torch.zeros_like(padded)
        for top in range(0, rows, side):
            for left in range(0, columns, side):
                window = (slice(top, top + side), slice(left, left + side))
                whole[window] = slow_attention(block.attn, padded[window], prompts)
        mixed = whole[:height, :width]
    x = x + mixed
    return x + block.mlp(block.norm2(x))


@pytest.mark.parametrize("count", [0, 1, 8])
@pytest.mark.parametrize(
    ("index", "grid"),
    [(0, (6, 6)), (0, (4, 8)), (0, (2, 1)), (1, (8, 8))],
    ids=["windows", "padded windows", "less than a window", "global"],
)
def test_a_block_is_that_of_prompts_as_further_tokens(
    index: int, grid: tuple[int, int], count: int
) -> None:
    block = tiny_vit(128).blocks[index]
    assert (block.window_size == 0) == (index == 1)
    x = noise(2, *grid, 32)
    prompted = PromptedBlock(block, count)
    with torch.no_grad():
        prompted.prompts.copy_(noise(count, 32, seed=1))
        found = prompted(x)
        expected = torch.stack([slow_block(block, one, prompted.prompts) for one in x])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        plain = block(x)
    if count == 0:
        torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)
    else:
        assert not torch.allclose(found, plain, atol=1e-3)


@pytest.mark.parametrize("build", [tiny_sam, random_nano], ids=["vit", "nano"])
def test_every_block_takes_its_prompts(build: type[Sam]) -> None:
    sam = build()
    encoder = PromptedEncoder(sam)
    images = noise(1, 3, 64, 96)
    with torch.no_grad():
        found = encoder(images)
        for prompts in encoder.prompts:
            before = prompts.clone()
            prompts.copy_(noise(*prompts.shape))
            assert not torch.allclose(found, encoder(images), atol=1e-3)
            prompts.copy_(before)
        torch.testing.assert_close(found, encoder(images))


@pytest.mark.parametrize("build", [tiny_sam, random_nano], ids=["vit", "nano"])
def test_the_sam_given_stays_as_it_is_and_its_weights_are_shared(
    build: type[Sam],
) -> None:
    sam = build()
    images = noise(1, 3, 64, 96)
    blocks = list(sam.image_encoder.blocks)
    names = list(sam.state_dict())
    with torch.no_grad():
        before = encode(sam.image_encoder, images)
        encoder = PromptedEncoder(sam)
        prompted = encoder(images)
        assert torch.equal(encode(sam.image_encoder, images), before)
    assert not torch.allclose(prompted, before, atol=1e-4)
    assert all(a is b for a, b in zip(sam.image_encoder.blocks, blocks, strict=True))
    assert list(sam.state_dict()) == names
    mine = {id(item) for item in sam.image_encoder.parameters()}
    theirs = {id(item) for item in encoder.parameters()}
    assert theirs - mine == {id(item) for item in encoder.prompts}


def frozen_items(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    return (
        (name, value)
        for name, value in model.state_dict().items()
        if name.rpartition(".")[2] != "prompts"
    )


@pytest.mark.parametrize("build", [tiny_sam, random_nano], ids=["vit", "nano"])
def test_a_training_step_changes_the_prompts_and_nothing_else(build: type[Sam]) -> None:
    sam = build()
    model = PromptedSam(PromptedEncoder(sam), PromptedDecoder(sam, classes=2))
    model.train()
    trained = [item for item in model.parameters() if item.requires_grad]
    assert {id(item) for item in trained} == {
        id(item) for item in [model.decoder.prompts, *model.encoder_prompts]
    }
    frozen = {name: value.clone() for name, value in frozen_items(model)}
    before = [item.detach().clone() for item in trained]
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    logits = model(noise(2, 3, 64, 64))
    target = torch.randint(0, 3, logits[:, 0].shape)
    torch.nn.functional.cross_entropy(logits, target).backward()
    optimiser.step()

    assert len(frozen) > 100
    for name, value in frozen_items(model):
        assert torch.equal(value, frozen[name]), name
    for item in model.parameters():
        assert (item.grad is not None) == item.requires_grad
    for item, start in zip(trained, before, strict=True):
        assert item.grad is not None and item.grad.any()
        assert not torch.equal(item, start)


# --- the model file


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_nano(tmp_path_factory.mktemp("checkpoint") / "mine.pth")


@pytest.fixture(scope="module")
def backbone(checkpoint: Path) -> Backbone:
    return load_backbone(str(checkpoint))


def tuned(
    backbone: Backbone, encoder_prompts: int = 0
) -> tuple[ModelFile, torch.Tensor, torch.Tensor]:
    """Return the model file of a prompted SAM, an input, and its logits."""
    decoder = PromptedDecoder(backbone.sam, classes=2)
    encoder = backbone.sam.image_encoder
    tensors = {"decoder_prompts": decoder.prompts.detach().numpy()}
    if encoder_prompts:
        encoder = PromptedEncoder(backbone.sam, encoder_prompts)
        tensors["encoder_prompts"] = torch.stack(encoder.prompts).detach().numpy()
    card = ModelCard("ptsam", "Kerne", default_classes(3), base=backbone.card())
    images = noise(1, 3, 64, 64)
    with torch.no_grad():
        logits = PromptedSam(encoder, decoder).eval()(images)
    return ModelFile(card, tensors), images, logits


@pytest.mark.parametrize("encoder_prompts", [0, 8])
def test_a_model_file_gives_the_same_logits_again(
    checkpoint: Path, backbone: Backbone, encoder_prompts: int
) -> None:
    model_file, images, logits = tuned(backbone, encoder_prompts)
    model = from_model_file(model_file, str(checkpoint))
    assert len(model.encoder_prompts) == (4 if encoder_prompts else 0)
    assert trained_count(model) == 0 and not model.training
    assert torch.equal(model(images), logits)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("decoder_prompts", None),
        ("decoder_prompts", (8, 256)),
        ("decoder_prompts", (1, 8, 256)),
        ("decoder_prompts", (2, 8, 255)),
        ("encoder_prompts", (3, 8, 256)),
        ("encoder_prompts", (4, 8, 768)),
        ("encoder_prompts", (4, 256)),
    ],
)
def test_prompts_that_do_not_fit_are_refused(
    checkpoint: Path, backbone: Backbone, name: str, shape: tuple[int, ...] | None
) -> None:
    model_file, _, _ = tuned(backbone)
    tensors = dict(model_file.tensors)
    tensors.pop(name, None)
    if shape is not None:
        tensors[name] = np.zeros(shape, np.float32)
    with pytest.raises(ModelFileError, match=f"{name} do not fit its card"):
        from_model_file(ModelFile(model_file.card, tensors), str(checkpoint))


def test_other_weights_underneath_are_refused(
    backbone: Backbone, tmp_path: Path
) -> None:
    model_file, _, _ = tuned(backbone)
    other = save_nano(tmp_path / "other.pth", seed=1)
    with pytest.raises(WeightsError, match="tuned on other weights") as refused:
        from_model_file(model_file, str(other))
    assert "other.pth" in str(refused.value) and "mine.pth" in str(refused.value)


def test_weights_that_are_not_here_are_asked_for(backbone: Backbone) -> None:
    model_file, _, _ = tuned(backbone)
    base = {"name": "theirs.pth", "sha256": "0" * 64}
    card = replace(model_file.card, base=base)
    with pytest.raises(WeightsError, match=r"theirs\.pth, which is not on this"):
        from_model_file(ModelFile(card, model_file.tensors))

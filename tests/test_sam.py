"""SAM at any size and in batches gives what segment_anything's own code gives."""

from __future__ import annotations

import pytest
import torch
from networks import random_nano, tiny_sam, tiny_vit
from segment_anything.modeling import PromptEncoder
from torch import nn

from napari_medseg.models.sam import (
    build_nano,
    build_sam,
    decode,
    encode,
    no_mask_embedding,
    point_tokens,
    position_code,
    standardise,
    stride_of,
)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def inputs(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_images_are_standardised_as_sam_does() -> None:
    sam = random_nano(working_size=64)
    images = torch.rand(2, 3, 64, 64)
    expected = torch.stack([sam.preprocess(image * 255) for image in images])
    torch.testing.assert_close(standardise(images), expected)


# --- the image encoder


def test_encoding_at_the_native_size_is_that_of_sam() -> None:
    encoder = tiny_vit(128)
    images = inputs(2, 3, 128, 128)
    torch.testing.assert_close(encode(encoder, images), encoder(images))


def test_an_encoder_without_position_table_works() -> None:
    encoder = tiny_vit(64, use_abs_pos=False)
    images = inputs(1, 3, 64, 64)
    torch.testing.assert_close(encode(encoder, images), encoder(images))


@pytest.mark.parametrize("shape", [(64, 64), (192, 192), (96, 160), (160, 16)])
def test_encoding_at_another_size_is_that_of_sam_with_a_table_of_that_size(
    shape: tuple[int, int],
) -> None:
    encoder = tiny_vit(128)
    assert encoder.pos_embed is not None
    # the one table whose resampling is beyond doubt
    encoder.pos_embed.copy_(encoder.pos_embed[:, :1, :1].clone())
    images = inputs(1, 3, *shape)
    found = encode(encoder, images)
    grid = (shape[0] // 16, shape[1] // 16)
    assert found.shape == (1, 256, *grid)
    table = encoder.pos_embed[:, :1, :1].expand(1, *grid, -1)
    encoder.pos_embed = nn.Parameter(table.clone())
    torch.testing.assert_close(found, encoder(images), rtol=1e-4, atol=1e-4)


def resampled(table: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Return the position table that `encode` uses for images of a shape."""
    encoder = tiny_vit(table.shape[1] * 16, depth=0)
    encoder.neck = nn.Identity()
    for parameter in encoder.patch_embed.parameters():
        parameter.zero_()
    encoder.pos_embed = nn.Parameter(table)
    return encode(encoder, torch.zeros(1, 3, *shape))


@pytest.mark.parametrize("shape", [(64, 64), (512, 512), (96, 320)])
def test_a_constant_position_table_stays_constant(shape: tuple[int, int]) -> None:
    table = torch.full((1, 16, 16, 32), 0.7)
    found = resampled(table, shape)
    torch.testing.assert_close(found, torch.full_like(found, 0.7))


@pytest.mark.parametrize("shape", [(128, 128), (512, 512), (384, 128)])
def test_positions_keep_their_order_and_their_axes(shape: tuple[int, int]) -> None:
    steps = (torch.arange(16.0) + 0.5) / 16
    table = torch.zeros(1, 16, 16, 32)
    table[..., 0] = steps[:, None]
    table[..., 1] = steps[None, :]
    rows, columns = resampled(table, shape)[0, :2]
    places = [(torch.arange(n) + 0.5) / n for n in rows.shape]
    inside = (slice(3, -3), slice(3, -3))
    expected = torch.meshgrid(*places, indexing="ij")
    torch.testing.assert_close(rows[inside], expected[0][inside], rtol=0, atol=5e-3)
    torch.testing.assert_close(columns[inside], expected[1][inside], rtol=0, atol=5e-3)


# --- prompts


@pytest.mark.parametrize("size", [(128, 128), (96, 160)])
def test_points_and_boxes_are_encoded_as_sam_does(size: tuple[int, int]) -> None:
    grid = (size[0] // 16, size[1] // 16)
    encoder = PromptEncoder(256, grid, size, 16)
    points = torch.rand(3, 4, 2) * torch.tensor([size[1], size[0]])
    labels = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, -1, -1]])
    expected, _ = encoder(points=(points, labels), boxes=None, masks=None)
    padded = torch.cat([points, torch.zeros(3, 1, 2)], dim=1)
    padded_labels = torch.cat([labels, torch.full((3, 1), -1)], dim=1)
    found = point_tokens(encoder, padded, padded_labels, size)
    torch.testing.assert_close(found, expected)

    boxes = torch.tensor([[3.0, 5.0, 50.0, 70.0], [0, 0, 1, 1], [10, 20, 30, 40]])
    expected, _ = encoder(points=None, boxes=boxes, masks=None)
    corners = boxes.reshape(3, 2, 2)
    corner_labels = torch.tensor([[2, 3]]).expand(3, 2)
    found = point_tokens(encoder, corners, corner_labels, size)
    torch.testing.assert_close(found, expected)

    expected, _ = encoder(points=(points, labels), boxes=boxes, masks=None)
    found = point_tokens(
        encoder,
        torch.cat([points, corners], dim=1),
        torch.cat([labels, corner_labels], dim=1),
        size,
    )
    torch.testing.assert_close(found, expected)


def test_encoding_points_leaves_them_as_they_are() -> None:
    encoder = random_nano(working_size=64).prompt_encoder
    points, labels = torch.full((1, 2, 2), 7.0), torch.tensor([[1, -1]])
    point_tokens(encoder, points, labels, (64, 64))
    assert (points == 7).all() and labels.tolist() == [[1, -1]]


def test_codes_of_positions_and_of_no_mask_are_those_of_sam() -> None:
    encoder = random_nano(working_size=128).prompt_encoder
    torch.testing.assert_close(position_code(encoder, (16, 16)), encoder.get_dense_pe())
    _, dense = encoder(points=None, boxes=None, masks=None)
    torch.testing.assert_close(
        no_mask_embedding(encoder).expand(1, -1, 16, 16), dense, rtol=0, atol=0
    )


# --- the mask decoder


@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize("grid", [(16, 16), (4, 9)])
def test_decoding_one_image_is_that_of_sam(count: int, grid: tuple[int, int]) -> None:
    sam = random_nano()
    embedding, tokens = inputs(1, 256, *grid), inputs(1, count, 256, seed=1)
    dense, code = inputs(1, 256, *grid, seed=2), position_code(sam.prompt_encoder, grid)
    masks, iou = sam.mask_decoder.predict_masks(embedding, code, tokens, dense)
    found = decode(sam.mask_decoder, embedding, code, tokens, dense)
    shape = (4 * grid[0], 4 * grid[1])
    assert found.masks.shape == (1, 4, *shape) and found.iou.shape == (1, 4)
    assert found.features.shape == (1, 32, *shape)
    torch.testing.assert_close(found.masks, masks)
    torch.testing.assert_close(found.iou, iou)


def test_a_batch_is_decoded_as_image_by_image() -> None:
    sam = random_nano()
    embeddings, tokens = inputs(3, 256, 8, 8), inputs(3, 2, 256, seed=1)
    dense = no_mask_embedding(sam.prompt_encoder)
    code = position_code(sam.prompt_encoder, (8, 8))
    together = decode(sam.mask_decoder, embeddings, code, tokens, dense)
    for index in range(3):
        one = slice(index, index + 1)
        alone = decode(sam.mask_decoder, embeddings[one], code, tokens[one], dense)
        for found, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(found[one], expected, rtol=1e-4, atol=1e-4)


def test_embeddings_kept_in_half_precision_are_decoded_in_full() -> None:
    sam = random_nano()
    embedding, tokens = inputs(1, 256, 8, 8).half(), inputs(1, 2, 256, seed=1)
    code = position_code(sam.prompt_encoder, (8, 8))
    dense = no_mask_embedding(sam.prompt_encoder)
    found = decode(sam.mask_decoder, embedding, code, tokens, dense)
    expected = decode(sam.mask_decoder, embedding.float(), code, tokens, dense)
    assert found.masks.dtype == torch.float32
    torch.testing.assert_close(found.masks, expected.masks, rtol=0, atol=0)


# --- nano


def test_nano_has_the_prompt_encoder_and_decoder_of_sam_unchanged() -> None:
    with torch.device("meta"):
        nano, vit_b = build_nano().state_dict(), build_sam("vit_b").state_dict()
    for part in ("prompt_encoder.", "mask_decoder."):
        own = {k: tuple(v.shape) for k, v in nano.items() if k.startswith(part)}
        assert own == {
            k: tuple(v.shape) for k, v in vit_b.items() if k.startswith(part)
        }
        assert own


def test_nano_is_small_enough_to_ship() -> None:
    with torch.device("meta"):
        sam = build_nano()
    count = sum(item.numel() for item in sam.parameters())
    assert 2 * count < 25_000_000  # bytes in half precision


@pytest.mark.parametrize("shape", [(64, 64), (16, 16), (48, 272)])
def test_nano_embeds_any_multiple_of_16_at_stride_8(shape: tuple[int, int]) -> None:
    sam = random_nano()
    assert stride_of(sam) == 8 and stride_of(tiny_sam(64)) == 16
    found = encode(sam.image_encoder, inputs(2, 3, *shape))
    assert found.shape == (2, 256, shape[0] // 8, shape[1] // 8)
    assert torch.isfinite(found).all()


def test_nano_embeds_each_image_of_a_batch_by_itself() -> None:
    sam = random_nano()
    images = inputs(3, 3, 64, 64)
    together = encode(sam.image_encoder, images)
    for index in range(3):
        alone = encode(sam.image_encoder, images[index : index + 1])
        torch.testing.assert_close(together[index], alone[0], rtol=1e-4, atol=1e-4)


def test_nano_is_called_as_sam_calls_its_encoder() -> None:
    sam = random_nano(working_size=64)
    image = torch.rand(3, 64, 64) * 255
    asked = {
        "image": image,
        "original_size": (64, 64),
        "point_coords": torch.tensor([[[20.0, 30.0]]]),
        "point_labels": torch.tensor([[1]]),
    }
    (answer,) = sam([asked], multimask_output=True)
    embedding = encode(sam.image_encoder, standardise(image[None] / 255))
    padded = torch.tensor([[[20.0, 30.0], [0.0, 0.0]]])
    tokens = point_tokens(sam.prompt_encoder, padded, torch.tensor([[1, -1]]), (64, 64))
    decoded = decode(
        sam.mask_decoder,
        embedding,
        position_code(sam.prompt_encoder, (8, 8)),
        tokens,
        no_mask_embedding(sam.prompt_encoder),
    )
    torch.testing.assert_close(
        answer["low_res_logits"], decoded.masks[:, 1:], rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(answer["iou_predictions"], decoded.iou[:, 1:])

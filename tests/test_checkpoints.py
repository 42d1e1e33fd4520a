"""Reading checkpoints: the good ones in all their wrappings, and no other."""

from __future__ import annotations

import collections
import os
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file

from napari_medseg._types import WeightsError
from napari_medseg.models.checkpoints import read_state, sam_kind, weights_digest
from napari_medseg.models.sam import build_sam

if TYPE_CHECKING:
    from pathlib import Path


def light_state(kind: str) -> dict[str, torch.Tensor]:
    """Return a state dict of the right names and shapes that weighs nothing."""
    with torch.device("meta"):
        shapes = build_sam(kind).state_dict()
    return {
        name: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
        for name, tensor in shapes.items()
    }


@pytest.fixture(scope="module")
def vit_b() -> dict[str, torch.Tensor]:
    return light_state("vit_b")


def write(path: Path, payload: Any, **options: Any) -> Path:
    torch.save(payload, path, **options)
    return path


@pytest.mark.parametrize("kind", ["nano", "vit_b", "vit_l", "vit_h"])
def test_the_kind_is_told_from_the_shapes(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path / "any.pth", light_state(kind))
    assert sam_kind(read_state(path)) == kind


@pytest.mark.parametrize(
    "prefix", ["", "sam.", "module.", "module.sam.", "sam.module."]
)
@pytest.mark.parametrize("wrappers", [(), ("model_state",), ("state_dict", "model")])
def test_prefixes_and_wrappers_are_taken_off(
    prefix: str, wrappers: tuple[str, ...], vit_b: dict[str, Any], tmp_path: Path
) -> None:
    payload: Any = {prefix + name: value for name, value in vit_b.items()}
    for wrapper in wrappers:
        payload = {wrapper: payload, "epoch": 3, "decoder_state": {"x": torch.ones(1)}}
    state = read_state(write(tmp_path / "tuned.pt", payload))
    assert set(state) == set(vit_b)
    assert sam_kind(state) == "vit_b"


def test_what_lies_beside_sam_is_left_out(
    vit_b: dict[str, Any], tmp_path: Path
) -> None:
    beside = {
        "decoder_state": collections.OrderedDict(x=torch.ones(1)),
        "decoder.0.weight": torch.ones(2),
        "pixel_mean": torch.ones(3),
        "iteration": 7,
    }
    state = read_state(write(tmp_path / "lm.pt", vit_b | beside))
    assert set(state) == set(vit_b)


def test_the_old_format_of_torch_is_read_too(
    vit_b: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "old.pth"
    write(path, vit_b, _use_new_zipfile_serialization=False)
    assert sam_kind(read_state(path)) == "vit_b"


def test_the_digest_does_not_depend_on_the_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {name: value.clone() for name, value in light_state("nano").items()}
    for value in state.values():
        if value.is_floating_point():
            value.uniform_()
    save_file(state, tmp_path / "a.safetensors")
    write(tmp_path / "a.pth", dict(reversed(state.items())))
    digest = weights_digest(state)
    assert weights_digest(read_state(tmp_path / "a.safetensors")) == digest
    assert weights_digest(read_state(tmp_path / "a.pth")) == digest
    assert len(digest) == 64


def test_the_digest_sees_values_shapes_types_and_names() -> None:
    base = {"a": torch.arange(4.0), "b": torch.tensor(1, dtype=torch.int64)}
    others: list[dict[str, torch.Tensor]] = [
        {"a": torch.arange(4.0) + 1, "b": base["b"]},
        {"a": torch.arange(4.0).reshape(2, 2), "b": base["b"]},
        {"a": base["a"].to(torch.bfloat16), "b": base["b"]},
        {"c": base["a"], "b": base["b"]},
        {"a": base["a"]},
    ]
    assert len({weights_digest(state) for state in [base, *others]}) == 6
    turned = {"a": torch.arange(6.0).reshape(2, 3).T}
    assert weights_digest(turned) == weights_digest({"a": turned["a"].contiguous()})


class Malicious:
    """An object whose unpickling would leave a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.mark),))


@pytest.mark.parametrize("modern", [True, False])
def test_code_in_a_checkpoint_is_refused_and_not_run(
    modern: bool, vit_b: dict[str, Any], tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    payload = {"model": vit_b, "extra": Malicious(mark)}
    path = tmp_path / "evil.pth"
    write(path, payload, _use_new_zipfile_serialization=modern)
    with pytest.raises(WeightsError, match="refused as unsafe") as refused:
        read_state(path)
    assert str(path) in str(refused.value)
    assert not mark.exists()


OTHERS = {
    "SAM 2": {"image_encoder.trunk.pos_embed": torch.ones(1)},
    "transformers": {"vision_encoder.pos_embed": torch.ones(1)},
    "MobileSAM": {"image_encoder.patch_embed.seq.0.c.weight": torch.ones(1)},
    "another network": {"layer1.0.conv1.weight": torch.ones(1)},
}


@pytest.mark.parametrize("title", list(OTHERS))
def test_other_networks_are_refused_by_name(title: str, tmp_path: Path) -> None:
    path = write(tmp_path / "other.pt", {"model": OTHERS[title]})
    with pytest.raises(WeightsError, match=title) as refused:
        read_state(path)
    assert str(path) in str(refused.value)


def test_a_vit_of_another_width_is_refused() -> None:
    state = {"image_encoder.patch_embed.proj.weight": torch.empty(192, 3, 16, 16)}
    with pytest.raises(WeightsError, match="0 blocks of width 192"):
        sam_kind(state)
    with pytest.raises(WeightsError, match=r"patch_embed\.proj\.weight is missing"):
        sam_kind({})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mask_decoder.iou_token.weight": None}, "iou_token.weight is missing"),
        (
            {"image_encoder.pos_embed": torch.empty(1, 32, 32, 768)},
            "is 1×32×32×768 float32, not 1×64×64×768 float32",
        ),
        (
            {"mask_decoder.iou_token.weight": torch.ones(1, 256, dtype=torch.int8)},
            "int8",
        ),
        (
            {"image_encoder.blocks.0.attn.qkv.lora_a": torch.ones(2)},
            "changed SAM vit_b",
        ),
        ({"mask_decoder.iou_token.weight": "text"}, "not an array of numbers"),
        ({"sam.mask_decoder.iou_token.weight": torch.ones(1, 256)}, "twice"),
    ],
)
def test_a_sam_that_does_not_fit_is_refused(
    change: dict[str, Any], said: str, vit_b: dict[str, Any], tmp_path: Path
) -> None:
    changed = {k: v for k, v in (vit_b | change).items() if v is not None}
    path = write(tmp_path / "changed.pth", changed)
    with pytest.raises(WeightsError) as refused:
        read_state(path)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.pth", b"", "empty"),
        ("a.pth", b"<!DOCTYPE html><html>", "web page"),
        ("a.pth", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        ("a.pth", b"not a checkpoint at all", "damaged"),
        ("a.pt", b"\x80\x02}q\x00", "damaged"),
        ("a.safetensors", b"\x10\0\0\0\0\0\0\0{", "damaged"),
        ("a.onnx", b"onnx", "must end in"),
    ],
)
def test_files_that_are_no_checkpoint_are_refused(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=said) as refused:
        read_state(path)
    assert str(path) in str(refused.value)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        read_state(tmp_path / "none.pth")
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(WeightsError, match=r"folder\.pth"):
        read_state(tmp_path / "folder.pth")


@pytest.mark.parametrize(
    "payload", [[1, 2], 3, torch.ones(2), {"model": {"model": {}}}]
)
def test_payloads_without_weights_are_refused(payload: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        read_state(write(tmp_path / "odd.pth", payload))


def test_archives_that_torch_did_not_write_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "archive.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("sam/readme.txt", "hello")
    with pytest.raises(WeightsError, match="zip archive"):
        read_state(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("sam/constants.pkl", "")
        archive.writestr("sam/data.pkl", "")
    with pytest.raises(WeightsError, match="TorchScript"):
        read_state(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("sam/data.pkl", b"0" * 1000)
    with pytest.raises(WeightsError, match="compressed"):
        read_state(path)


@pytest.mark.parametrize("modern", [True, False])
def test_damaged_checkpoints_never_raise_anything_else(
    modern: bool, tmp_path: Path
) -> None:
    path = tmp_path / "small.pth"
    write(path, {"a": torch.arange(9)}, _use_new_zipfile_serialization=modern)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 23):
        path.write_bytes(whole[:cut])
        with pytest.raises(WeightsError):
            read_state(path)
    for place in range(0, len(whole), 11):
        changed = bytearray(whole)
        changed[place] ^= 0xFF
        path.write_bytes(changed)
        with pytest.raises(WeightsError):
            read_state(path)

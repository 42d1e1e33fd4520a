"""The model file: the same bytes every time, small, and never trusted."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.numpy

from napari_medseg._types import LabelClass, ModelFileError, default_classes
from napari_medseg.io import _tensor_file, model_file
from napari_medseg.io._card_schema import canonical
from napari_medseg.io.model_file import ModelCard, ModelFile, load, read_card, save

if TYPE_CHECKING:
    from pathlib import Path

CARD = ModelCard(
    kind="ptsam",
    title="Zellkerne, Färbung α",
    classes=default_classes(2),
    normalisation={"channels": [0, 0, 0], "low": 1.0, "high": 99.8},
    base={
        "name": "vit_b",
        "sha256": "ab" * 32,
        "working_size": 1024,
        "title": "SAM ViT-B",
        "licence": "Apache-2.0",
    },
    config={"sam": "vit_b", "tokens": 8, "rate": 0.01, "steps": 400, "seed": 0},
    provenance={
        "data": "cd" * 32,
        "images": 16,
        "seed": 0,
        "date": "2025-01-31",
        "versions": {"torch": "2.4.0", "numpy": "1.26.4", "napari-medseg": "0.1.0"},
    },
    scores={"dice": 0.91, "untuned": 0.42, "held_out": 4},
    licence="CC-BY-4.0",
    framing={"size": 1024, "resize": "longest side"},
)


@pytest.fixture
def tuned() -> ModelFile:
    numbers = np.random.default_rng(0).normal(size=(8, 256)).astype(np.float32)
    return ModelFile(CARD, {"tokens": numbers})


def same(one: ModelFile, other: ModelFile) -> None:
    assert one.card == other.card
    assert set(one.tensors) == set(other.tensors)
    for name, tensor in one.tensors.items():
        assert other.tensors[name].dtype == tensor.dtype
        np.testing.assert_array_equal(other.tensors[name], tensor, strict=True)


def test_what_is_saved_is_loaded(tuned: ModelFile, tmp_path: Path) -> None:
    path = save(tmp_path / "a.medseg", tuned)
    same(load(path), tuned)
    assert read_card(path) == CARD
    assert [item.name for item in tmp_path.iterdir()] == ["a.medseg"]
    assert load(path).tensors["tokens"].flags.writeable


def test_a_prompt_file_is_small(tuned: ModelFile, tmp_path: Path) -> None:
    size = save(tmp_path / "a.medseg", tuned).stat().st_size
    assert 8 * 256 * 4 < size < 20_000


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    tensors: dict[str, Any] = {
        "b": np.arange(6.0).reshape(2, 3).T,
        "a": np.array([True, False]),
        "c": np.float32(2.5) * np.ones(()),
        "d": np.arange(4, dtype=">i4"),
        "e": np.zeros((0, 3), np.float16),
    }
    backwards = {name: np.array(tensors[name], order="C") for name in reversed(tensors)}
    shuffled = replace(CARD, config=dict(reversed(CARD.config.items())))
    one = save(tmp_path / "one.medseg", ModelFile(CARD, tensors))
    other = save(tmp_path / "other.medseg", ModelFile(shuffled, backwards))
    assert one.read_bytes() == other.read_bytes()
    again = save(tmp_path / "again.medseg", load(one))
    assert again.read_bytes() == one.read_bytes()
    np.testing.assert_array_equal(load(one).tensors["b"], tensors["b"])
    np.testing.assert_array_equal(load(one).tensors["d"], tensors["d"])
    assert load(one).tensors["c"].shape == ()


def test_the_card_is_canonical_json_in_the_header(
    tuned: ModelFile, tmp_path: Path
) -> None:
    path = save(tmp_path / "a.medseg", tuned)
    with safetensors.safe_open(path, framework="np") as file:
        metadata = file.metadata()
    assert list(metadata) == ["card"]
    card = json.loads(metadata["card"])
    assert canonical(card).decode() == metadata["card"]
    assert card["title"] == "Zellkerne, Färbung α"
    assert "α" in metadata["card"]


def test_numpy_numbers_and_tuples_in_a_card_become_json(
    tuned: ModelFile, tmp_path: Path
) -> None:
    scores = {"dice": np.float32(0.5), "hd95": float("nan"), "n": (np.int64(4),)}
    card = replace(CARD, scores=scores)
    path = save(tmp_path / "a.medseg", ModelFile(card, tuned.tensors))
    assert load(path).card.scores == {"dice": 0.5, "hd95": None, "n": [4]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"title": " "}, "title is ' ', but must be text"),
        ({"kind": 3}, "kind is 3"),
        ({"version": 2}, "writes format 1, not 2"),
        ({"classes": (LabelClass("a", "#000000"),)}, "a list of 2 to"),
        ({"classes": (LabelClass("a", "red"),) * 2}, "colour is 'red'"),
        ({"base": {"name": "vit_b"}}, "base lacks the field 'sha256'"),
        ({"base": {**CARD.base, "sha256": "XY" * 32}}, "a SHA-256"),
        ({"base": {**CARD.base, "working_size": True}}, "a whole number"),
        ({"config": [1]}, "config is [1], but must be an object"),
        ({"config": {1: 2}}, "the key 1 is not text"),
        ({"config": {"a": object()}}, "type object"),
        ({"config": {"a": b"bytes"}}, "type bytes"),
        ({"config": {"a": [[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]}}, "nested"),
    ],
)
def test_a_card_that_could_not_be_loaded_is_not_saved(
    change: dict[str, Any], said: str, tuned: ModelFile, tmp_path: Path
) -> None:
    path = tmp_path / "a.medseg"
    card = replace(CARD, **change)
    with pytest.raises(ModelFileError) as refused:
        save(path, ModelFile(card, tuned.tensors))
    assert said in str(refused.value)
    assert str(path) in str(refused.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("a", np.array([1, np.nan]), "not finite"),
        ("a", np.array([1, np.inf], np.float16), "not finite"),
        ("a", np.array(["text"]), "of type <U4"),
        ("a", np.array([None]), "of type object"),
        ("a", np.array([1j]), "of type complex128"),
        ("__metadata__", np.ones(1), "cannot be the name"),
        ("", np.ones(1), "cannot be the name"),
    ],
)
def test_a_tensor_that_could_not_be_loaded_is_not_saved(
    name: str, value: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelFileError, match=said):
        save(tmp_path / "a.medseg", ModelFile(CARD, {name: value}))
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_cut_off_is_refused(tuned: ModelFile, tmp_path: Path) -> None:
    path = save(tmp_path / "a.medseg", tuned)
    whole = path.read_bytes()
    cuts = [*range(0, 40), *range(40, len(whole), 97), len(whole) - 1]
    for cut in cuts:
        path.write_bytes(whole[:cut])
        with pytest.raises(ModelFileError) as refused:
            load(path)
        assert str(path) in str(refused.value)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ModelFileError):
        load(path)


def test_any_changed_byte_is_noticed(tuned: ModelFile, tmp_path: Path) -> None:
    path = save(tmp_path / "a.medseg", tuned)
    whole = path.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    dice = np.random.default_rng(1)
    places = [*range(0, header), *range(header, len(whole), 61)]
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= int(dice.integers(1, 256))
        path.write_bytes(changed)
        with pytest.raises(ModelFileError):
            load(path)


def raw(path: Path, header: bytes, body: bytes = b"") -> Path:
    """Write a safetensors file by hand."""
    path.write_bytes(struct.pack("<Q", len(header)) + header + body)
    return path


def with_card(path: Path, card: Any, **tensors: Any) -> Path:
    text = card if isinstance(card, str) else json.dumps(card)
    header = {"__metadata__": {"card": text}, **tensors}
    return raw(path, json.dumps(header).encode(), bytes(8))


GOOD = {
    "version": 1,
    "kind": "ptsam",
    "title": "t",
    "classes": [{"name": "a", "colour": "#000000"}] * 2,
    "normalisation": {},
    "base": {},
    "config": {},
    "provenance": {},
    "scores": {},
    "licence": "CC0-1.0",
    "framing": {},
    "digest": "0" * 64,
}


@pytest.mark.parametrize(
    ("card", "said"),
    [
        (GOOD | {"version": 2}, "later version of napari-medseg"),
        (GOOD | {"version": 99, "new": 1}, "update napari-medseg"),
        (GOOD | {"version": 0}, "version is 0"),
        (GOOD | {"version": True}, "version is True"),
        (GOOD | {"version": "1"}, "version is '1'"),
        (GOOD | {"new": 1}, "unknown field 'new'"),
        (GOOD | {"classes": {}}, "a list of 2"),
        (GOOD | {"classes": [1, 2]}, "class 0 of the card is not an object"),
        (GOOD | {"digest": 7}, "no digest"),
        (GOOD, "changed after it was saved"),
        ({}, "lacks the field 'version'"),
        ([], "not a JSON object"),
        ("", "damaged or unsafe"),
        ("{", "damaged or unsafe"),
        ('{"a":1,"a":2}', "a key is there twice"),
        ('{"a":{"b":1,"b":2}}', "a key is there twice"),
        ('{"a":NaN}', "not a number of JSON"),
        ('{"a":1e999}', "too large a number"),
        ('{"a":"\\ud800"}', "damaged or unsafe"),
        ('{"a":' + "9" * 5000 + "}", "damaged or unsafe"),
        ('{"a":' + "[" * 40 + "]" * 40 + "}", "nested"),
        ('{"a":' + "[" * 100_000 + "]" * 100_000 + "}", "damaged or unsafe"),
    ],
)
def test_cards_that_lie_are_refused(card: Any, said: str, tmp_path: Path) -> None:
    path = with_card(tmp_path / "a.medseg", card)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ModelFileError) as refused:
        load(path)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2**62, 2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 2**63]},
        {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2]},
        {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]},
        {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "object", "shape": [1], "data_offsets": [0, 8]},
        "text",
        None,
    ],
)
def test_tensors_that_lie_are_refused(entry: Any, tmp_path: Path) -> None:
    path = with_card(tmp_path / "a.medseg", GOOD, x=entry)
    with pytest.raises(ModelFileError, match=r"a\.medseg"):
        load(path)


def test_overlapping_tensors_are_refused(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    path = with_card(tmp_path / "a.medseg", GOOD, x=entry, y=entry)
    with pytest.raises(ModelFileError):
        load(path)


def test_numbers_that_are_not_finite_are_refused(
    tuned: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(model_file, "storable", lambda _name, value, _path: value)
        broken = ModelFile(CARD, {"a": np.array([np.nan], np.float32)})
        path = save(tmp_path / "a.medseg", broken)
    with pytest.raises(ModelFileError, match="not finite"):
        load(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"PK\x03\x04 a zip archive", "not a model file"),
        (b"\x89PNG\r\n\x1a\n and so on", "not a model file"),
        (struct.pack("<Q", 2_000_000) + b"{}", "are the most"),
        (struct.pack("<Q", 2**63) + b"{}", "are the most"),
        (struct.pack("<Q", 500) + b"{}", "cut off"),
        (struct.pack("<Q", 2) + b"{}", "has no card"),
        (struct.pack("<Q", 19) + b'{"__metadata__":[]}', "has no card"),
        (struct.pack("<Q", 3) + b"{\xff}", "damaged"),
    ],
)
def test_files_that_are_no_model_file_are_refused(
    content: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.medseg"
    path.write_bytes(content)
    for reader in (load, read_card):
        with pytest.raises(ModelFileError, match=said) as refused:
            reader(path)
        assert str(path) in str(refused.value)


def test_a_plain_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file({"x": np.ones(3)}, path)
    with pytest.raises(ModelFileError, match="has no card"):
        load(path)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="does not exist"):
        load(tmp_path / "none.medseg")
    with pytest.raises(ModelFileError):
        load(tmp_path)


def test_absurd_sizes_are_refused(
    tuned: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.medseg", tuned)
    for limit in ("MAX_FILE", "MAX_HEADER", "MAX_TENSORS"):
        with monkeypatch.context() as patch:
            for module in (model_file, _tensor_file):
                patch.setattr(module, limit, 0, raising=False)
            with pytest.raises(ModelFileError):
                load(path)
            with pytest.raises(ModelFileError, match="too large"):
                save(tmp_path / "b.medseg", tuned)
    assert [item.name for item in tmp_path.iterdir()] == ["a.medseg"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(
    tuned: ModelFile, tmp_path: Path
) -> None:
    folder = tmp_path / "a.medseg"
    folder.mkdir()
    with pytest.raises(ModelFileError, match="cannot be written"):
        save(folder, tuned)
    assert list(tmp_path.iterdir()) == [folder]


def test_model_files_need_no_torch() -> None:
    code = (
        "import sys, napari_medseg.io.model_file\n"
        "sys.exit(1 if 'torch' in sys.modules else 0)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_half_precision_takes_half_the_space_and_is_close(
    tuned: ModelFile, tmp_path: Path
) -> None:
    count = np.asarray(7, np.int64)
    weights = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    whole = replace(tuned, tensors={"w": weights, "count": count})
    half = load(save(tmp_path / "half.medseg", model_file.halved(whole)))
    full = save(tmp_path / "full.medseg", whole)
    saved = full.stat().st_size - (tmp_path / "half.medseg").stat().st_size
    assert abs(saved - 2 * weights.size) < 20  # but for the offsets in the header
    np.testing.assert_allclose(half.tensors["w"], weights, rtol=1e-3, atol=1e-7)
    assert half.tensors["count"] == 7 and half.tensors["count"].dtype == np.int64


def test_what_half_precision_cannot_hold_is_refused(tuned: ModelFile) -> None:
    large = replace(tuned, tensors={"w": np.asarray([1e5], np.float32)})
    with pytest.raises(ModelFileError, match=r"'w'.*too large"):
        model_file.halved(large)

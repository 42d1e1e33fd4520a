"""The embedding cache: never the wrong embedding, never in the way."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from napari_medseg.models.embeddings import EmbeddingCache, signature

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEYS = [letter * 64 for letter in "abcdef"]


class Computed:
    """An embedding that counts how often it is computed."""

    def __init__(self, value: float = 1.0) -> None:
        self.count = 0
        self.value = value

    def __call__(self) -> torch.Tensor:
        self.count += 1
        return torch.full((4, 8, 8), self.value, dtype=torch.float16)


SIZE = Computed()().nbytes


# --- the signature


def test_the_signature_depends_on_image_weights_and_precision_alone() -> None:
    image = torch.rand(3, 32, 32)
    same = signature(image, "ab", torch.float32)
    assert len(same) == 64 and int(same, 16)
    assert signature(image.clone(), "ab", torch.float32) == same
    turned = image.transpose(1, 2).contiguous().transpose(1, 2)
    assert signature(turned, "ab", torch.float32) == same
    changed = image.clone()
    changed[2, 31, 31] += 1e-6
    others = [
        signature(changed, "ab", torch.float32),
        signature(image.transpose(1, 2), "ab", torch.float32),
        signature(image.reshape(3, 16, 64), "ab", torch.float32),
        signature(image, "cd", torch.float32),
        signature(image, "ab", torch.bfloat16),
    ]
    assert len({same, *others}) == 6


# --- in memory


def test_an_embedding_is_computed_once() -> None:
    cache, compute = EmbeddingCache(), Computed(3)
    first = cache.get(KEYS[0], compute)
    assert cache.get(KEYS[0], compute) is first
    assert compute.count == 1 and (first == 3).all()


def test_memory_keeps_what_was_used_last() -> None:
    cache = EmbeddingCache(memory_bytes=2 * SIZE)
    computed = [Computed() for _ in range(3)]
    for index in (0, 1, 0, 2):  # 1 is unused for longest
        cache.get(KEYS[index], computed[index])
    cache.get(KEYS[0], computed[0])
    cache.get(KEYS[2], computed[2])
    assert [item.count for item in computed] == [1, 1, 1]
    cache.get(KEYS[1], computed[1])
    assert computed[1].count == 2


def test_an_embedding_larger_than_the_memory_is_given_but_not_kept() -> None:
    cache, compute = EmbeddingCache(memory_bytes=SIZE - 1), Computed(5)
    for _ in range(2):
        assert (cache.get(KEYS[0], compute) == 5).all()
    assert compute.count == 2


# --- on disk


def test_the_disk_survives_the_session(tmp_path: Path) -> None:
    compute = Computed(2)
    first = EmbeddingCache(tmp_path / "new" / "folder").get(KEYS[0], compute)
    again = EmbeddingCache(tmp_path / "new" / "folder").get(KEYS[0], compute)
    assert compute.count == 1
    assert torch.equal(again, first) and again.dtype == torch.float16


def test_nothing_half_written_lies_about(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path)
    cache.get(KEYS[0], Computed())
    assert [path.name for path in tmp_path.iterdir()] == [f"{KEYS[0]}.safetensors"]

    def fail() -> torch.Tensor:
        raise RuntimeError("the encoder failed")

    with pytest.raises(RuntimeError, match="the encoder failed"):
        cache.get(KEYS[1], fail)
    assert len(list(tmp_path.iterdir())) == 1
    compute = Computed()
    cache.get(KEYS[1], compute)
    assert compute.count == 1


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def scramble(path: Path) -> None:
    path.write_bytes(os.urandom(500))


def rename_tensor(path: Path) -> None:
    save_file({"other": torch.ones(3)}, path)


@pytest.mark.parametrize("damage", [cut, empty, scramble, rename_tensor])
def test_a_damaged_file_is_computed_again(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    compute = Computed(7)
    EmbeddingCache(tmp_path).get(KEYS[0], compute)
    (path,) = tmp_path.iterdir()
    damage(path)
    assert (EmbeddingCache(tmp_path).get(KEYS[0], compute) == 7).all()
    assert compute.count == 2
    # and what was written instead is whole
    assert (EmbeddingCache(tmp_path).get(KEYS[0], compute) == 7).all()
    assert compute.count == 2


def test_the_disk_keeps_what_was_used_last(tmp_path: Path) -> None:
    EmbeddingCache(tmp_path).get(KEYS[0], Computed())
    (path,) = tmp_path.iterdir()
    limit = 3 * path.stat().st_size
    cache = EmbeddingCache(tmp_path, disk_bytes=limit)
    for age, key in enumerate(KEYS[1:3]):
        cache.get(key, Computed())
        os.utime(tmp_path / f"{key}.safetensors", (1000 + age, 1000 + age))
    os.utime(path, (500, 500))
    EmbeddingCache(tmp_path).get(KEYS[0], Computed())  # used: now the youngest
    cache.get(KEYS[3], Computed())
    kept = {path.stem for path in tmp_path.iterdir()}
    assert kept == {KEYS[0], KEYS[2], KEYS[3]}


def test_the_newest_file_stays_even_if_it_is_too_large(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, disk_bytes=1)
    for key in KEYS[:2]:
        cache.get(key, Computed())
    assert [path.stem for path in tmp_path.iterdir()] == [KEYS[1]]


def test_a_disk_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("where a folder should be")
    compute = Computed(4)
    cache = EmbeddingCache(file / "embeddings")
    assert (cache.get(KEYS[0], compute) == 4).all()
    assert (cache.get(KEYS[0], compute) == 4).all()
    assert compute.count == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_medseg.io.atomic.os.fsync", full)
    assert (EmbeddingCache(tmp_path).get(KEYS[0], Computed(4)) == 4).all()
    assert not list(tmp_path.iterdir())

"""Embeddings beyond the memory limit: on the disk, of the same values, for a while."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_medseg._types import JobError
from napari_medseg.training.kept import Kept

if TYPE_CHECKING:
    from pathlib import Path


def tensor(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(256, 4, 4, generator=generator).half()


def files(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*.bin")]


def test_what_fits_stays_as_it_is(tmp_path: Path) -> None:
    kept = Kept(3 * tensor().nbytes, tmp_path)
    given = [tensor(seed) for seed in range(3)]
    assert all(kept.keep(item) is item for item in given)
    assert not any(tmp_path.iterdir())


def test_what_does_not_fit_has_the_same_values(tmp_path: Path) -> None:
    kept = Kept(tensor().nbytes, tmp_path)
    given = [tensor(seed) for seed in range(5)]
    found = [kept.keep(item) for item in given]
    assert found[0] is given[0]
    for index in range(1, 5):
        assert found[index].data_ptr() != given[index].data_ptr()
        assert found[index].dtype == torch.float16
        assert torch.equal(found[index], given[index])


def test_a_later_one_that_still_fits_stays(tmp_path: Path) -> None:
    kept = Kept(tensor().nbytes, tmp_path)
    assert kept.keep(torch.zeros(9999)) is not None
    small = tensor()
    assert kept.keep(small) is small


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no file that is read")
def test_no_file_is_left_even_by_a_program_that_is_killed(tmp_path: Path) -> None:
    kept = Kept(0, tmp_path)
    found = kept.keep(tensor())
    assert files(tmp_path) == []
    del kept
    gc.collect()
    assert not any(tmp_path.iterdir())
    assert torch.equal(found, tensor())


def test_the_folder_is_made_and_goes(tmp_path: Path) -> None:
    kept = Kept(0, tmp_path / "not" / "there")
    kept.keep(tensor())
    assert any((tmp_path / "not" / "there").iterdir())
    del kept
    gc.collect()
    assert files(tmp_path) == []


def test_a_full_disk_gets_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(np.ndarray):
        def tofile(self, *_: object) -> None:  # type: ignore[override]
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.Tensor, "numpy", lambda _: np.zeros(1).view(Full))
    with pytest.raises(JobError, match=r"No space left on device.*Free some space"):
        Kept(0, tmp_path).keep(tensor())

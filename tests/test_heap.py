"""Freed memory goes back to the system, though something lies in between."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from napari_medseg.models.heap import give_back

STATUS = Path("/proc/self/statm")


def pages() -> int:
    return int(STATUS.read_text().split()[1])


@pytest.mark.skipif(not STATUS.exists(), reason="only Linux tells a program its size")
def test_gaps_between_what_stays_are_given_back() -> None:
    give_back()
    before = pages()
    made = [torch.ones(2**16) for _ in range(800)]  # 256 kB each
    kept = made[::8]
    del made
    give_back()
    held = (pages() - before) * 4096
    assert held < 0.4 * 800 * 2**18
    assert all(bool((item == 1).all()) for item in kept)


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_nothing_is_done_elsewhere(
    system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr("ctypes.CDLL", None)
    give_back()

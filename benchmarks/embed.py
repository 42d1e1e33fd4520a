"""Seconds to embed a 512² image and to decode a mask, against SAM ViT-B's own.

    python benchmarks/embed.py

`nano` with its weights; ViT-B with random ones, by segment-anything's own ``forward``
in float32 (its default) and under bfloat16 autocast. Medians of five runs (three for
ViT-B) after one to warm up.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import torch

from napari_medseg.models import sam as sams
from napari_medseg.models.backbone import autocast, load_backbone
from napari_medseg.models.devices import resolve_device

if TYPE_CHECKING:
    from collections.abc import Callable


def seconds(work: Callable[[], object], runs: int) -> float:
    """Return the median time of a call."""
    work()
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    """Measure and print."""
    device = resolve_device("cpu")
    nano = load_backbone("nano").sam
    image = torch.randn(1, 3, 512, 512)
    clicks = torch.tensor([[[200.0, 200.0], [0.0, 0.0]]])
    tokens = sams.point_tokens(
        nano.prompt_encoder, clicks, torch.tensor([[1, -1]]), (512, 512)
    )
    with torch.inference_mode(), autocast(device):
        embed = seconds(lambda: sams.encode(nano.image_encoder, image), 5)
        embedding = sams.encode(nano.image_encoder, image)
        grid = (embedding.shape[2], embedding.shape[3])
        code = sams.position_code(nano.prompt_encoder, grid)
        dense = sams.no_mask_embedding(nano.prompt_encoder)
        decode = seconds(
            lambda: sams.decode(nano.mask_decoder, embedding, code, tokens, dense), 5
        )
    encoder = sams.build_sam("vit_b").image_encoder
    large = torch.randn(1, 3, 1024, 1024)
    with torch.inference_mode():
        default = seconds(lambda: encoder(large), 3)
        with autocast(device):
            half = seconds(lambda: encoder(large), 3)
    print(f"nano: embed a 512² image {embed:.3f} s, decode a click {decode:.3f} s")
    print(f"ViT-B by segment-anything: {default:.2f} s, in bfloat16 {half:.2f} s")
    print(f"nano against it: {default / embed:.0f} ×, {half / embed:.0f} × as quick")


if __name__ == "__main__":
    main()

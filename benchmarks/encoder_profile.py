"""Where the time of SAM's image encoder goes, before and after.

    python benchmarks/encoder_profile.py [--out RESULTS.json]

ViT-B at its working size, with random weights: segment-anything as it is, the same
under autocast, and the package's encoder, each under PyTorch's profiler. Every
operation's own time is given to what it is part of. Profiling itself takes a little
time, so the sums are larger than the seconds of ``speed.py``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import typer
from speed import random_encoder, window
from torch.profiler import ProfilerActivity, profile

from napari_medseg.models import sam as sams
from napari_medseg.models import vit
from napari_medseg.models.backbone import autocast

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = Path("benchmarks/results/encoder_profile.json")

RUNS = 3

KINDS = {
    "linear layers": ("addmm", "aten::mm", "linear"),
    "attention": ("attention", "bmm", "softmax", "einsum"),
    "activations": ("gelu",),
    "norms": ("norm",),
    "convolutions": ("conv",),
    "casts, copies, sums": ("",),
}
"""What operations are part of, by what their names hold; the first that fits."""


def kind_of(operation: str) -> str:
    """Return what an operation is part of."""
    return next(
        kind
        for kind, words in KINDS.items()
        if any(word in operation for word in words)
    )


def shares(work: Callable[[], object]) -> dict[str, float]:
    """Return the seconds of each kind of operation in a call."""
    work()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(RUNS):
            work()
    seconds = dict.fromkeys(KINDS, 0.0)
    for event in found.key_averages():
        took = event.self_cpu_time_total / 1e6 / RUNS
        seconds[kind_of(event.key)] += took
    return {kind: round(value, 3) for kind, value in seconds.items()}


def main(
    out: Annotated[Path, typer.Option(help="Results, as JSON.")] = RESULTS,
) -> None:
    """Profile, and print the table of the documentation."""
    device, image, encoder = torch.device("cpu"), window(), random_encoder()
    light = vit.light(random_encoder(), torch.bfloat16)
    with torch.inference_mode():
        found = {"segment-anything": shares(lambda: encoder(image))}
        with autocast(device):
            found["under autocast"] = shares(lambda: encoder(image))
            found["the package"] = shares(lambda: sams.encode(light, image))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"| seconds | {' | '.join(found)} |\n|---|{'---|' * len(found)}")
    for kind in KINDS:
        cells = " | ".join(f"{column[kind]:.2f}" for column in found.values())
        print(f"| {kind} | {cells} |")
    print(f"| all | {' | '.join(f'{sum(c.values()):.2f}' for c in found.values())} |")


if __name__ == "__main__":
    typer.run(main)

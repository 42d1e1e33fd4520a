"""The selective scan of VM-UNet against the recurrence taken step by step.

    python benchmarks/scan.py run [--out RESULTS.jsonl]
    python benchmarks/scan.py table [--out RESULTS.jsonl]

``run`` scans sequences of several lengths in both ways, forwards and then backwards for
the gradients, each in a process of its own: seconds of the processor on one thread (the
median of three), memory above what the process had before, and the largest relative
difference of the outputs. The width is that of VM-UNet's first level; a sequence of
4,096 is an image of 256 × 256 there. What is done is not done again.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from few_shot import read
from torch import Tensor

from napari_medseg.models.selective_scan import selective_scan

CHANNELS, STATES = 96, 16
"""Channels of a sequence, and numbers of the state of each."""

LENGTHS = (256, 1024, 4096, 16384)

REPEATS = 3

RESULTS = Path("benchmarks/results/scan.jsonl")

app = typer.Typer(add_completion=False, no_args_is_help=True)

Out = Annotated[Path, typer.Option(help="Results, a line a run.")]

Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def step_by_step(
    inputs: Tensor, steps: Tensor, decay: Tensor, entry: Tensor, exit_: Tensor
) -> Tensor:
    """Return what `selective_scan` does, by the recurrence as it is written."""
    state = inputs.new_zeros(*inputs.shape[:2], decay.shape[1])
    found = []
    # taken apart at once: a gradient for each place alone would fill whole sequences
    parts = (item.unbind(-1) for item in (inputs, steps, entry, exit_))
    for value, width, into, out_of in zip(*parts, strict=True):
        taken = (width * value).unsqueeze(2) * into.unsqueeze(1)
        state = torch.exp(width.unsqueeze(2) * decay) * state + taken
        found.append((state * out_of.unsqueeze(1)).sum(-1))
    return torch.stack(found, -1)


WAYS: dict[str, Scan] = {"step by step": step_by_step, "in pieces": selective_scan}


def sequences(length: int) -> list[Tensor]:
    """Draw what is scanned."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    drawn = [
        normal(1, CHANNELS, length),
        0.1 * uniform(1, CHANNELS, length),
        -STATES * uniform(CHANNELS, STATES),
        normal(1, STATES, length),
        normal(1, STATES, length),
    ]
    return [item.requires_grad_(True) for item in drawn]


def peak() -> float:
    """Return the most memory that this process had so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@app.command()
def run(out: Out = RESULTS) -> None:
    """Do the runs that are missing."""
    out.parent.mkdir(parents=True, exist_ok=True)
    done = {(row["length"], row["way"]) for row in read(out)}
    for length, way in product(LENGTHS, WAYS):
        if (length, way) in done:
            continue
        command = [sys.executable, __file__, "one", way, str(length)]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        with out.open("a") as file:
            file.write(found.stdout)
        print(found.stdout.strip(), flush=True)


@app.command()
def one(way: str, length: int) -> None:
    """Do one run and print its figures."""
    torch.set_num_threads(1)
    scan = WAYS[way]
    scan(*sequences(16)).sum().backward()  # whatever is set up at first use
    given = sequences(length)
    before, times = peak(), []
    for _ in range(REPEATS):
        began = time.process_time()
        result = scan(*given)
        middle = time.process_time()
        result.sum().backward()
        times.append((middle - began, time.process_time() - middle))
    forward, backward = np.median(times, axis=0)
    row: dict[str, Any] = {
        "length": length,
        "way": way,
        "forward": round(float(forward), 4),
        "backward": round(float(backward), 4),
        "memory_mb": round(peak() - before, 1),
    }
    if scan is not step_by_step:
        truth = step_by_step(*(item.detach() for item in given))
        difference = (result.detach() - truth).abs().max() / truth.abs().max()
        row["relative_error"] = float(f"{float(difference):.1e}")
    print(json.dumps(row))


@app.command()
def table(out: Out = RESULTS) -> None:
    """Print the table of the documentation."""
    rows = {(row["length"], row["way"]): row for row in read(out)}
    print("| length | scan | forwards | backwards | memory | relative difference |")
    print("|---" * 6 + "|")
    for length, way in product(LENGTHS, WAYS):
        row = rows.get((length, way))
        if row:
            error = f"{row['relative_error']:.0e}" if "relative_error" in row else ""
            print(
                f"| {length:,} | {way} | {row['forward']:.3f} s "
                f"| {row['backward']:.3f} s | {row['memory_mb']:.0f} MB | {error} |"
            )


if __name__ == "__main__":
    app()

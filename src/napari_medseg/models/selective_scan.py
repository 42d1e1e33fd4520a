"""The selective scan of a state space model, in plain PyTorch (Gu and Dao, Mamba 2023).

The recurrence ``h_t = exp(D_t A) h_(t-1) + D_t B_t x_t``, ``y_t = C_t h_t`` goes
through a sequence one step after another. Here the sequence is cut into about as many
pieces as a piece has steps, and all pieces take a step together: once from an empty
state, which gives what each hands to the next; then from the state that it is handed.
That is exact in any order of magnitude, as only factors of at most 1 are multiplied,
and holds a state for each piece and not for each step. The gradient is a scan too,
backwards; it computes the states anew.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


def selective_scan(
    inputs: Tensor, steps: Tensor, decay: Tensor, entry: Tensor, exit_: Tensor
) -> Tensor:
    """Run a selective scan along sequences.

    Parameters
    ----------
    inputs : Tensor
        ``(B, D, L)``, x.
    steps : Tensor
        ``(B, D, L)``, the step widths, positive.
    decay : Tensor
        ``(D, N)``, A, negative.
    entry, exit_ : Tensor
        ``(B, N, L)``, B and C.

    Returns
    -------
    Tensor
        ``float32 (B, D, L)``, y.
    """
    given = [item.float() for item in (inputs, steps, decay, entry, exit_)]
    if inputs.is_cuda and find_spec("mamba_ssm") is not None:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

        fast: Tensor = selective_scan_fn(*given)
        return fast
    with torch.autocast(inputs.device.type, enabled=False):
        result: Tensor = _Scan.apply(*given)
    return result


class _Pieces(NamedTuple):
    """Sequences cut into pieces, a step of all pieces at a time.

    ``(T, K, B, D)`` of inputs and steps, ``(T, K, B, N)`` of entry and exit: step T of
    piece K.
    """

    inputs: Tensor
    steps: Tensor
    entry: Tensor
    exit: Tensor

    @classmethod
    def of(cls, *sequences: Tensor) -> _Pieces:
        return cls(*(_cut(each) for each in sequences))

    def factor(self, step: int, decay: Tensor) -> Tensor:
        """Return what the state is multiplied by, ``(K, B, D, N)``."""
        return torch.exp(self.steps[step].unsqueeze(-1) * decay)

    def added(self, step: int) -> Tensor:
        """Return what is added to the state, ``(K, B, D, N)``."""
        taken = self.steps[step] * self.inputs[step]
        return taken.unsqueeze(-1) * self.entry[step].unsqueeze(-2)

    def whole(self, decay: Tensor) -> Tensor:
        """Return what a whole piece multiplies a state by, ``(K, B, D, N)``."""
        return torch.exp(self.steps.sum(0).unsqueeze(-1) * decay)

    def first_states(self, decay: Tensor) -> Tensor:
        """Return the state that each piece begins with, ``(K, B, D, N)``."""
        state = torch.zeros_like(self.added(0))
        for step in range(len(self.inputs)):
            state = self.factor(step, decay) * state + self.added(step)
        return _handed_on(self.whole(decay), state)


class _Scan(torch.autograd.Function):
    """The scan and its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        steps: Tensor,
        decay: Tensor,
        entry: Tensor,
        exit_: Tensor,
    ) -> Tensor:
        """Return ``y``."""
        ctx.save_for_backward(inputs, steps, decay, entry, exit_)
        pieces = _Pieces.of(inputs, steps, entry, exit_)
        state = pieces.first_states(decay)
        found = torch.empty_like(pieces.inputs)
        for step in range(len(found)):
            state = pieces.factor(step, decay) * state + pieces.added(step)
            found[step] = _read(state, pieces.exit[step])
        return _join(found, inputs.shape[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of all inputs."""
        inputs, steps, decay, entry, exit_ = ctx.saved_tensors
        pieces = _Pieces.of(inputs, steps, entry, exit_)
        wanted = _cut(gradients[0].float())
        states = _states(pieces, decay)
        # of the state after each step: what reads it, and what becomes of it later
        later = _last_gradients(pieces, decay, wanted)
        found = _Pieces(*(torch.empty_like(item) for item in pieces))
        of_decay = torch.zeros_like(decay)
        for step in reversed(range(len(wanted))):
            gradient = later + _spread(wanted[step], pieces.exit[step])
            found.exit[step] = (wanted[step].unsqueeze(-1) * states[step + 1]).sum(-2)
            width, taken = pieces.steps[step], pieces.inputs[step]
            entering = _read(gradient, pieces.entry[step])
            found.inputs[step] = entering * width
            found.entry[step] = (gradient * (width * taken).unsqueeze(-1)).sum(-2)
            later = pieces.factor(step, decay) * gradient
            slope = later * states[step]  # of the exponent
            found.steps[step] = entering * taken + (slope * decay).sum(-1)
            of_decay += (slope * width.unsqueeze(-1)).sum((0, 1))
        length = inputs.shape[-1]
        return (
            _join(found.inputs, length),
            _join(found.steps, length),
            of_decay,
            _join(found.entry, length),
            _join(found.exit, length),
        )


def _states(pieces: _Pieces, decay: Tensor) -> Tensor:
    """Return the states before each step and the last one, ``(T + 1, K, B, D, N)``."""
    state = pieces.first_states(decay)
    states = state.new_empty(len(pieces.inputs) + 1, *state.shape)
    states[0] = state
    for step in range(len(pieces.inputs)):
        state = pieces.factor(step, decay) * state + pieces.added(step)
        states[step + 1] = state
    return states


def _last_gradients(pieces: _Pieces, decay: Tensor, wanted: Tensor) -> Tensor:
    """Return what later pieces say of the last state of each, ``(K, B, D, N)``."""
    later = torch.zeros_like(pieces.added(0))
    for step in reversed(range(len(wanted))):
        later += _spread(wanted[step], pieces.exit[step])
        later = pieces.factor(step, decay) * later
    return _handed_on(pieces.whole(decay).flip(0), later.flip(0)).flip(0)


def _handed_on(factors: Tensor, given: Tensor) -> Tensor:
    """Return what each piece is handed by all before it, ``(K, …)``; 0 the first."""
    handed = torch.zeros_like(given)
    for piece in range(1, len(given)):
        handed[piece] = factors[piece - 1] * handed[piece - 1] + given[piece - 1]
    return handed


def _read(state: Tensor, weights: Tensor) -> Tensor:
    """Sum ``(K, B, D, N)`` over N by weights ``(K, B, N)``."""
    return torch.einsum("kbdn,kbn->kbd", state, weights)


def _spread(values: Tensor, weights: Tensor) -> Tensor:
    """Return values ``(K, B, D)`` times weights ``(K, B, N)``."""
    return values.unsqueeze(-1) * weights.unsqueeze(-2)


def _cut(sequences: Tensor) -> Tensor:
    """Cut ``(B, C, L)`` into pieces ``(T, K, B, C)``; what is too short ends in 0."""
    batch, channels, length = sequences.shape
    steps = max(1, math.isqrt(length))
    count = -(-length // steps)
    padded = functional.pad(sequences, (0, count * steps - length))
    pieces = padded.reshape(batch, channels, count, steps)
    return pieces.permute(3, 2, 0, 1).contiguous()


def _join(pieces: Tensor, length: int) -> Tensor:
    """Put pieces ``(T, K, B, C)`` together to ``(B, C, length)``."""
    whole = pieces.permute(2, 3, 1, 0).flatten(2)
    return whole[..., :length]

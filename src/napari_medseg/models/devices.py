"""Which device and precision to compute with."""

from __future__ import annotations

from typing import Any

import torch

from napari_medseg._types import InputError

DEVICES = ("auto", "cpu", "cuda", "mps")
"""What a user may ask for."""


def resolve_device(name: str = "auto") -> torch.device:
    """Return the device asked for, or the fastest there is.

    Parameters
    ----------
    name : {"auto", "cpu", "cuda", "mps"}
        ``auto`` takes a CUDA device, then Apple's, then the processor.

    Returns
    -------
    torch.device
        The device.

    Raises
    ------
    InputError
        The device is not there.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    if name not in available:
        raise InputError(
            f"The device {name!r} is not known; choose one of {', '.join(DEVICES)}."
        )
    if not available[name]:
        raise InputError(
            f"The device {name!r} is not there. Choose 'auto', or 'cpu', which "
            "always works."
        )
    return torch.device(name)


def supports_bf16(device: torch.device) -> bool:
    """Tell whether bfloat16 products are done in hardware on ``device``.

    Parameters
    ----------
    device : torch.device
        The device.

    Returns
    -------
    bool
        On a processor: whether it has AVX-512 BF16 or AMX instructions; without
        them bfloat16 is emulated and slower than float32.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        # not in every torch that is supported; float32 is right without it, too
        has: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16"))
    return False


def compute_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype to run networks in on ``device``: bfloat16 or float32."""
    return torch.bfloat16 if supports_bf16(device) else torch.float32


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out, on any device.

    Parameters
    ----------
    error : BaseException
        What was raised.

    Returns
    -------
    bool
        True for Python's and torch's own errors, and for the plain RuntimeErrors
        with which the allocators of the processor, of MPS and of CUDA's libraries
        report it.
    """
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "not enough memory" in text
        or "can't allocate memory" in text
        or "out of memory" in text
        or "ALLOC_FAILED" in text
    )

"""A decoder that answers clicks and boxes, beside that through which prompts are tuned.

Both work on the same embeddings. The one of a SAM is steered by tokens of all sorts;
this one has learned nothing but single objects, and what corrective clicks mean
(`napari_medseg.training.clicking`).
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from napari_medseg.models import bundled

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

UNUSED = "prompt_encoder.mask_downscaling."
"""Nobody gives a mask as a prompt, so its weights are not in the file."""


class ClickDecoder(nn.Module):
    """SAM's prompt encoder and mask decoder, with weights of their own.

    Parameters
    ----------
    sam : Sam
        Whose layers to have; it is left alone.
    """

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.prompt_encoder = deepcopy(sam.prompt_encoder)
        self.mask_decoder = deepcopy(sam.mask_decoder)


def load_click_decoder(name: str, sam: Sam) -> ClickDecoder:
    """Load a decoder for clicks that comes with the package.

    Parameters
    ----------
    name : str
        Name of the file.
    sam : Sam
        The SAM for whose embeddings it was trained.

    Returns
    -------
    ClickDecoder
        On the device of the SAM, in float32.

    Raises
    ------
    WeightsError
        The file is missing or damaged.
    """
    path = bundled.find(name)
    decoder = ClickDecoder(sam)
    try:
        missing, unknown = decoder.load_state_dict(load_file(path), strict=False)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise bundled.damaged(name) from error
    if unknown or not all(key.startswith(UNUSED) for key in missing):
        raise bundled.damaged(name)
    return decoder.eval().requires_grad_(False)

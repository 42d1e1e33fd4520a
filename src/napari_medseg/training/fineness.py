"""How finely prompts are compared with the embedding: by how thick objects are.

What is thinner than a few pixels of SAM's embedding lies between them. There a fine
comparison (`napari_medseg.models.fine_embedding`) sees more; of large objects it sees
no more than the embedding itself, and takes longer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_medseg.models.framing import Framing
from napari_medseg.models.sam import stride_of
from napari_medseg.training.coarseness import thickness

if TYPE_CHECKING:
    from napari_medseg.io.pairs import Pairs
    from napari_medseg.models.backbone import Backbone
    from napari_medseg.training.prompt_tuning import PromptTuning

QUICK = ("nano",)
"""Kinds of SAM that can look at an image four times where others look once."""

THIN = 4.0
"""Thickness, in pixels of the embedding, below which objects are compared finely."""


def how_compared(config: PromptTuning, backbone: Backbone, pairs: Pairs) -> str:
    """Decide how prompts are compared with the embedding.

    Parameters
    ----------
    config : PromptTuning
        Settings, which may leave it to the images.
    backbone : Backbone
        The SAM that is tuned.
    pairs : Pairs
        Annotated images.

    Returns
    -------
    {"fine", "embedding", "none"}
    """
    if config.comparison != "auto":
        return config.comparison
    quick = backbone.kind in QUICK and not config.encoder_prompts
    return "fine" if quick and _thin(config, backbone, pairs) else "embedding"


def _thin(config: PromptTuning, backbone: Backbone, pairs: Pairs) -> bool:
    """Tell whether objects are thin where SAM sees them; scribbles do not tell."""
    found = None if pairs.annotation_kind == "sparse" else thickness(pairs)
    size = config.working_size or backbone.working_size
    framing = Framing.for_images([pair.annotation.shape for pair in pairs], size)
    limit = THIN * stride_of(backbone.sam)
    return found is not None and found * framing.scale < limit

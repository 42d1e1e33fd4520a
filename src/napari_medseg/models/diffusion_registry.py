"""The diffusion models that segment by a phrase, as a literal table.

As `napari_medseg.models.registry`, it imports neither torch nor any network code.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from napari_medseg.models.weights_file import WeightsFile

if TYPE_CHECKING:
    from collections.abc import Mapping

_OPENRAIL = "LicenseRef-CreativeML-OpenRAIL-M"

_OPENRAIL_NOTE = (
    "Stable Diffusion 1.5 by Robin Rombach, Patrick Esser and contributors (2022), "
    "under the CreativeML Open RAIL-M licence. It may be used, also commercially, but "
    "not for the purposes that the licence forbids in its attachment A; among them are "
    "whatever breaks the law, harms or discriminates against people, and giving "
    "medical advice and interpreting medical results. Who passes the model on passes "
    "these restrictions on."
)


@dataclass(frozen=True, slots=True)
class DiffusionEntry:
    """One text-conditioned diffusion model, which segments by a phrase.

    Attributes
    ----------
    name : str
        Name in commands.
    title : str
        Name shown to the user.
    description : str
        What it is for, in one line.
    files : tuple of WeightsFile
        All of its files; their names are paths in its folder.
    licence : str
        Identifier of its licence.
    licence_note : str
        What the licence asks for, in a few sentences; to be agreed to.
    licence_url : str
        Where the licence can be read.
    """

    name: str
    title: str
    description: str
    files: tuple[WeightsFile, ...]
    licence: str
    licence_note: str
    licence_url: str = ""


def _of_stable_diffusion(name: str, sha256: str, length: int) -> WeightsFile:
    """Return one file of Stable Diffusion 1.5, in 16 bits, as it was on one day."""
    return WeightsFile(
        name=name,
        url="https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5/resolve/"
        f"451f4fe16113bff5a5d2269ed5ad43b0592e9a14/{name}",
        sha256=sha256,
        bytes=length,
        licence=_OPENRAIL,
        licence_note=_OPENRAIL_NOTE,
    )


DIFFUSIONS: Mapping[str, DiffusionEntry] = MappingProxyType(
    {
        "sd15": DiffusionEntry(
            name="sd15",
            title="Stable Diffusion 1.5",
            description="Segments what a phrase says, without training (2.1 GB); a GPU "
            "helps.",
            files=tuple(
                _of_stable_diffusion(*file)
                for file in (
                    (
                        "unet/config.json",
                        "78f474de6bab3d893868f37be97b636ae65c0df3073ed3256ca458ff599b5f96",
                        743,
                    ),
                    (
                        "unet/diffusion_pytorch_model.fp16.safetensors",
                        "c83908253f9a64d08c25fc90874c9c8aef9a329ce1ca5fb909d73b0c83d1ea21",
                        1_719_125_304,
                    ),
                    (
                        "vae/config.json",
                        "786a7d21647ddea6a04b9675c03d3cb45e90a2f3c6da5fbda2c54ade040036de",
                        547,
                    ),
                    (
                        "vae/diffusion_pytorch_model.fp16.safetensors",
                        "4fbcf0ebe55a0984f5a5e00d8c4521d52359af7229bb4d81890039d2aa16dd7c",
                        167_335_342,
                    ),
                    (
                        "text_encoder/config.json",
                        "845df614cb9327ae7bbea027316246fae917827407da6df13572e41b5f93b4cc",
                        617,
                    ),
                    (
                        "text_encoder/model.fp16.safetensors",
                        "77795e2023adcf39bc29a884661950380bd093cf0750a966d473d1718dc9ef4e",
                        246_144_864,
                    ),
                    (
                        "tokenizer/vocab.json",
                        "e089ad92ba36837a0d31433e555c8f45fe601ab5c221d4f607ded32d9f7a4349",
                        1_059_962,
                    ),
                    (
                        "tokenizer/merges.txt",
                        "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a",
                        524_619,
                    ),
                )
            ),
            licence=_OPENRAIL,
            licence_note=_OPENRAIL_NOTE,
            licence_url="https://huggingface.co/spaces/CompVis/"
            "stable-diffusion-license",
        ),
    }
)
"""Every diffusion model by name; none comes with the package."""

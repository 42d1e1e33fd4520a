"""How the images of a folder are segmented, and what is written."""

from __future__ import annotations

from dataclasses import dataclass

from napari_medseg._config import check, setting
from napari_medseg._types import InputError
from napari_medseg.io.exports import FORMATS, has_parquet
from napari_medseg.object_settings import ClassConfig, ObjectConfig


@dataclass(frozen=True)
class BatchSettings:
    """How the images of a folder are segmented, and what is written.

    Attributes
    ----------
    model, device, base, channels, alone, mirrored, objects, classes, formats,
    probabilities, masks, references, reference_masks
        See the help text of each field.
    """

    model: str = setting("", "A .medseg file, or a name of `models list`")
    device: str = setting("auto", "Where to compute: auto, cpu, cuda or mps")
    base: str | None = setting(
        None, "Checkpoint of the SAM, or file of the model, that the model goes on from"
    )
    channels: tuple[int, ...] = setting(
        (), "Channels of the images that the model sees, from 0; none: as it learned"
    )
    alone: str = setting(
        "",
        "Where a channel was added to the model: see the old channel alone, or the new",
        choices=("", "old", "new"),
    )
    mirrored: bool = setting(
        False, "See each image mirrored in four ways, and take the mean"
    )
    objects: ObjectConfig | None = setting(  # noqa: RUF009  (it is a field)
        None, "How objects are found; without it, classes are written"
    )
    classes: ClassConfig | None = setting(  # noqa: RUF009
        None, "How classes are found, where objects are not asked for"
    )
    formats: tuple[str, ...] = setting(
        (), f"What is written beside the labels: {', '.join(FORMATS)}"
    )
    probabilities: bool = setting(False, "Write the class probabilities, too")
    masks: bool = setting(
        False, "Write a mask of each class, too, of models whose classes overlap"
    )
    references: str | None = setting(
        None, "Annotated images by which the quality of each result is predicted"
    )
    reference_masks: str | None = setting(
        None, "Folder of their masks, where it is not in that of the images"
    )

    def __post_init__(self) -> None:
        check(self)
        if self.objects is not None and self.classes is not None:
            raise InputError(
                "Either objects or classes are written; give settings for one of them."
            )
        for name in self.formats:
            if name not in FORMATS:
                raise InputError(
                    f"{name!r} is not a format that can be written; choose from "
                    f"{', '.join(FORMATS)}."
                )
        if "parquet" in self.formats and not has_parquet():
            raise InputError(
                "Parquet needs the package pyarrow: pip install pyarrow. Or choose csv."
            )

    @property
    def labels(self) -> ObjectConfig | ClassConfig:
        """How labels are made of probabilities."""
        return self.objects or self.classes or ClassConfig()

"""Run files: a training written down so that it can be repeated to the byte."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from napari_medseg._config import to_dict
from napari_medseg._types import InputError
from napari_medseg.io.atomic import atomic_path
from napari_medseg.io.idrid import LAYOUT
from napari_medseg.models.registry import SAMS, SPECIALISTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _typeshed import DataclassInstance

Annotation = Literal["auto", "dense", "sparse", "instances"]

_FILES: Mapping[str, Mapping[str, Any]] = {
    "sam": SAMS,
    "start_from": SPECIALISTS,
    "pretrained": {},
    "keep_from": {},
}
"""Settings that name a file, with what else they may name."""

LAYOUTS = ("pairs", LAYOUT)
"""How folders lie: images and masks, or those of IDRiD."""

FORMAT = 1
"""Version of the format."""


@dataclass(frozen=True)
class RunFile:
    """A training: its data, method and settings.

    Attributes
    ----------
    images, masks : str
        Folders.
    method : str
        Name of the method.
    annotation : str
        What the masks hold.
    ignore : int or None
        Mask value of unlabelled pixels.
    channels : str or None
        Channels of the images that are used, from 0, such as ``2``; None for all.
    layout : str
        How the folders lie: ``pairs``, or ``idrid``, where one folder holds all.
    date : str
        Of the first run; the model's card has it.
    config : dict
        Settings of the method.
    format : int
        Version of the format.
    """

    images: str
    masks: str
    method: str = "ptsam"
    annotation: Annotation = "auto"
    ignore: int | None = None
    channels: str | None = None
    layout: str = "pairs"
    date: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @classmethod
    def assemble(
        cls,
        path: Path | None,
        given: Mapping[str, Any],
        settings: Mapping[str, Any],
        date: str,
    ) -> RunFile:
        """Put together what a run file says and what the command line adds to it.

        Parameters
        ----------
        path : Path or None
            A run file to repeat.
        given : mapping
            ``images``, ``masks``, ``method``, ``annotation``, ``ignore``,
            ``channels`` and ``layout``; None where they were not given.
        settings : mapping
            Settings of the method that were given; they override the run file's.
        date : str
            Date of a new run.

        Returns
        -------
        RunFile
            The run.

        Raises
        ------
        InputError
            The run file cannot be read, or images or masks are missing.
        """
        values: dict[str, Any] = {"date": date} if path is None else _read(path)
        values |= {
            name: str(value.absolute()) if isinstance(value, Path) else value
            for name, value in given.items()
            if value is not None
        }
        check_layout(values.get("layout", "pairs"))
        if values.get("layout") == LAYOUT and "images" in values:
            values.setdefault("masks", values["images"])
        for name in ("images", "masks"):
            if name not in values:
                raise InputError(
                    f"--{name} is missing: give the folder, or a run file (--config)."
                )
        from napari_medseg.io.pairs import as_annotation

        as_annotation(values.get("annotation", "auto"))
        values["config"] = {**values.get("config", {}), **settings}
        for name, known in _FILES.items():
            given_name = values["config"].get(name)
            if not isinstance(given_name, str) or given_name in known:
                continue
            if Path(given_name).is_file():
                values["config"][name] = str(Path(given_name).absolute())
        others = values["config"].get("unlabelled")
        if isinstance(others, str) and others:
            values["config"]["unlabelled"] = str(Path(others).absolute())
        return cls(**values)

    def done(self, config: DataclassInstance) -> RunFile:
        """Return the run file that repeats what was done."""
        return replace(self, config=to_dict(config))

    def save(self, path: Path) -> None:
        """Write the run file."""
        with atomic_path(path) as temporary:
            text = yaml.safe_dump(asdict(self), sort_keys=False, allow_unicode=True)
            temporary.write_text(text, encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    """Read a run file of a training, and refuse what is none."""
    values = read_yaml(path)
    known = {item.name for item in fields(RunFile)}
    if not values.keys() <= known or not isinstance(values.get("config", {}), dict):
        raise InputError(
            f"{path} is not a run file. `napari-medseg train` writes one beside each "
            "model file."
        )
    texts = ("images", "masks", "method", "annotation", "date", "layout")
    check_values(values, texts, path)
    if not isinstance(values.get("ignore"), int | None):
        raise InputError(
            f"{path}: ignore is {values['ignore']!r}, which is no whole number."
        )
    check_channels(values, path)
    return values


def check_channels(values: dict[str, Any], path: Path) -> None:
    """Make channels the text that the command takes.

    Parameters
    ----------
    values : dict
        What stands in a run file; changed where a number was written.
    path : Path
        The file.

    Raises
    ------
    InputError
        They are something else.
    """
    channels = values.get("channels")
    if type(channels) is int:
        values["channels"] = str(channels)
    elif not isinstance(channels, str | None):
        raise InputError(
            f"{path}: channels is {channels!r}; write them as text, such as '0,2'."
        )


def check_layout(name: Any) -> None:
    """Refuse a layout of folders that there is not."""
    if name not in LAYOUTS:
        raise InputError(
            f"{name!r} is not a layout of folders; choose one of {', '.join(LAYOUTS)}."
        )


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of named values.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict
        What stands in it.

    Raises
    ------
    InputError
        It cannot be read, or is something else.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(
            f"{path} cannot be read as a run file, which is YAML: {error}"
        ) from error
    if not isinstance(values, dict):
        raise InputError(f"{path} is not a run file, which is a list of named values.")
    return values


def check_values(values: Mapping[str, Any], texts: tuple[str, ...], path: Path) -> None:
    """Refuse a run file of a later version, or with values that are no text.

    Parameters
    ----------
    values : mapping
        What stands in it.
    texts : tuple of str
        Names of what must be text.
    path : Path
        The file.

    Raises
    ------
    InputError
        It cannot be used.
    """
    if values.get("format", FORMAT) != FORMAT:
        raise InputError(
            f"{path} was written by a later version; update napari-medseg to use it."
        )
    for name in texts:
        if not isinstance(values.get(name, ""), str):
            raise InputError(f"{path}: {name} is {values[name]!r}, which is no text.")

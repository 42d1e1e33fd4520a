"""The training methods, and the networks that are trained whole, as literal tables.

As `napari_medseg.models.registry`, it imports neither torch nor any network code.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from napari_medseg.models.naming import unknown

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class MethodEntry:
    """One training method: its name, what it is for and where its code is.

    Attributes
    ----------
    name : str
        Name in commands and model files, such as ``ptsam``.
    title : str
        Name shown to the user.
    description : str
        What it is for, in one line.
    config : tuple of str
        Module and class of its config, which give the form and the options; importing
        it imports no torch.
    train : tuple of str
        Module and function that train: a job of pairs and config.
    network : tuple of str
        Module and function that build the network from a model file.
    parts : bool
        Whether the network's classes are background, interior and border of objects.
    trains : str
        The network of `NETWORKS` that is trained; empty where a SAM is tuned.
    begins_with_a_model : bool
        Whether it goes on from a model file, without which it cannot begin.
    overlapping : bool
        Whether there is one binary model for each class, and classes may overlap.
    """

    name: str
    title: str
    description: str
    config: tuple[str, str]
    train: tuple[str, str]
    network: tuple[str, str]
    parts: bool = False
    trains: str = ""
    begins_with_a_model: bool = False
    overlapping: bool = False


@dataclass(frozen=True, slots=True)
class NetworkEntry:
    """One network that is trained whole: its name, what it is for, where its code is.

    Attributes
    ----------
    name : str
        Name in configs.
    title : str
        Name shown to the user.
    description : str
        What it is for, in one line.
    home : tuple of str
        Module and class, a `napari_medseg.models.networks.Network`.
    """

    name: str
    title: str
    description: str
    home: tuple[str, str]


NETWORKS: Mapping[str, NetworkEntry] = MappingProxyType(
    {
        "med2d": NetworkEntry(
            name="med2d",
            title="Med-2D SegNet",
            description="Two million parameters, quick on a processor.",
            home=("napari_medseg.models.med2d", "Med2dSegNet"),
        ),
        "mamba": NetworkEntry(
            name="mamba",
            title="VM-UNet (Mamba-Sea)",
            description="Scans the image four ways; for images of several microscopes.",
            home=("napari_medseg.models.mamba", "VmUnet"),
        ),
        "xnet": NetworkEntry(
            name="xnet",
            title="XNet-Plus",
            description="Three U-Nets: the image, its coarse and its fine part.",
            home=("napari_medseg.models.wavelet", "XNetPlus"),
        ),
        "unetr": NetworkEntry(
            name="unetr",
            title="UNETR",
            description="A transformer with a U-Net's decoder; a channel can be added.",
            home=("napari_medseg.models.unetr", "Unetr"),
        ),
        "deeplab": NetworkEntry(
            name="deeplab",
            title="DeepLabv3+",
            description="An EfficientNet with context from several scales.",
            home=("napari_medseg.models.deeplab", "DeepLab"),
        ),
    }
)
"""Every network that is trained whole, by name."""

METHODS: Mapping[str, MethodEntry] = MappingProxyType(
    {
        "ptsam": MethodEntry(
            name="ptsam",
            title="Prompt tuning (PTSAM)",
            description="Tunes 2,048 numbers of a frozen SAM on about 16 images; "
            "the result is a file of a few kilobytes.",
            config=("napari_medseg.training.prompt_tuning", "PromptTuning"),
            train=("napari_medseg.training.tuning", "tune"),
            network=("napari_medseg.models.prompts", "from_model_file"),
        ),
        "ptsam-objects": MethodEntry(
            name="ptsam-objects",
            title="Prompt tuning for touching objects",
            description="Tunes 6,144 numbers for background, interior and border, so "
            "that touching cells are told apart.",
            config=("napari_medseg.training.prompt_tuning", "ObjectTuning"),
            train=("napari_medseg.training.tuning", "tune_objects"),
            network=("napari_medseg.models.prompts", "parts_from_model_file"),
            parts=True,
        ),
        "med2d": MethodEntry(
            name="med2d",
            title="Small network (Med-2D SegNet)",
            description="Trains two million numbers from scratch, without any SAM, on "
            "all channels of the images; the result is a file of 8 MB.",
            config=("napari_medseg.training.network_training", "Med2dTraining"),
            train=("napari_medseg.training.whole", "train_network"),
            network=("napari_medseg.models.networks", "from_model_file"),
            trains="med2d",
        ),
        "med2d-objects": MethodEntry(
            name="med2d-objects",
            title="Small network for touching objects",
            description="The small network, trained for background, interior and "
            "border, so that touching cells are told apart.",
            config=("napari_medseg.training.network_training", "Med2dObjects"),
            train=("napari_medseg.training.whole", "train_objects"),
            network=("napari_medseg.models.networks", "from_model_file"),
            parts=True,
            trains="med2d",
        ),
        "mamba": MethodEntry(
            name="mamba",
            title="State space network (Mamba-Sea)",
            description="Trains a network that scans images four ways and sees other "
            "styles in training, for images of several microscopes; slow without a "
            "GPU.",
            config=("napari_medseg.training.network_training", "MambaTraining"),
            train=("napari_medseg.training.whole", "train_network"),
            network=("napari_medseg.models.networks", "from_model_file"),
            trains="mamba",
        ),
        "xnet": MethodEntry(
            name="xnet",
            title="Wavelet network (XNet-Plus)",
            description="Trains three joined U-Nets from scratch on the images, their "
            "coarse and their fine part; slow on a processor.",
            config=("napari_medseg.training.network_training", "XnetTraining"),
            train=("napari_medseg.training.whole", "train_network"),
            network=("napari_medseg.models.networks", "from_model_file"),
            trains="xnet",
        ),
        "unetr": MethodEntry(
            name="unetr",
            title="Transformer network (UNETR)",
            description="Trains a transformer with a U-Net's decoder from scratch; a "
            "channel can be added to the result later.",
            config=("napari_medseg.training.network_training", "UnetrTraining"),
            train=("napari_medseg.training.whole", "train_network"),
            network=("napari_medseg.models.networks", "from_model_file"),
            trains="unetr",
        ),
        "unetr-channel": MethodEntry(
            name="unetr-channel",
            title="Add a channel to a UNETR (PEMMA)",
            description="Goes on from a UNETR that was trained on fewer channels; "
            "trains a small file beside it, which works with either channel alone.",
            config=("napari_medseg.training.channel_training", "ChannelTraining"),
            train=("napari_medseg.training.channel", "add_channel"),
            network=("napari_medseg.models.adapters", "from_model_file"),
            trains="unetr",
            begins_with_a_model=True,
        ),
        "deeplab": MethodEntry(
            name="deeplab",
            title="Large network (DeepLabv3+)",
            description="Trains an EfficientNet with context from several scales, "
            "from ImageNet's weights where they can be had; slow on a processor.",
            config=("napari_medseg.training.network_training", "DeeplabTraining"),
            train=("napari_medseg.training.whole", "train_network"),
            network=("napari_medseg.models.networks", "from_model_file"),
            trains="deeplab",
        ),
        "lesions": MethodEntry(
            name="lesions",
            title="One network a class (lesions)",
            description="Trains a binary network for each class, for rare, small or "
            "overlapping ones; each can be trained again alone.",
            config=("napari_medseg.training.lesion_training", "LesionTraining"),
            train=("napari_medseg.training.lesions", "train_lesions"),
            network=("napari_medseg.models.networks", "from_model_file"),
            trains="deeplab",
            overlapping=True,
        ),
    }
)
"""Every training method by name."""

PARTS = 3
"""Outputs of a network that parts objects: background, interior and border."""


def lookup_method(name: str) -> MethodEntry:
    """Return the training method of a name.

    Parameters
    ----------
    name : str
        A name such as ``ptsam``.

    Returns
    -------
    MethodEntry
        The entry of the table.

    Raises
    ------
    InputError
        There is no method of that name; the message lists those that there are.
    """
    entry = METHODS.get(name)
    if entry is None:
        raise unknown("training method", name, METHODS)
    return entry

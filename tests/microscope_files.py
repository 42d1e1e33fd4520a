"""Small files as microscopes write them: CZI, LIF and ND2, made from arrays.

LIF and ND2 are written byte by byte, after the layouts that liffile and nd2 read; CZI
by Zeiss's own library, whose header then gets the list of scenes that microscopes
write.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np

PIXEL = 0.2
"""Pixel size of all files, in µm."""

SPACING = 1.5
"""Distance of slices in CZI and LIF files, in µm."""


def write_czi(path: Path, scenes: Sequence[np.ndarray[Any, Any]]) -> Path:
    """Write scenes ``uint16 (C, Z, Y, X)`` of one shape."""
    from pylibCZIrw import czi

    with czi.create_czi(str(path), exist_ok=True) as document:
        for number, scene in enumerate(scenes):
            for channel, stack in enumerate(scene):
                for depth, plane in enumerate(stack):
                    document.write(
                        data=plane[..., None],
                        plane={"C": channel, "Z": depth, "T": 0},
                        scene=number,
                        location=(2 * number * plane.shape[1], 0),
                    )
        names = {index: f"dye {index}" for index in range(len(scenes[0]))}
        sizes = {"scale_x": PIXEL / 1e6, "scale_y": PIXEL / 1e6}
        sizes["scale_z"] = SPACING / 1e6
        document.write_metadata(document_name="", channel_names=names, **sizes)
    if len(scenes) > 1:
        _name_scenes(path, len(scenes))
    return path


def _name_scenes(path: Path, count: int) -> None:
    """Append a header that names the scenes, and let the file point to it."""
    content = bytearray(path.read_bytes())
    start = content.index(b"<ImageDocument>")
    stop = content.index(b"</ImageDocument>") + len(b"</ImageDocument>")
    names = "".join(f'<Scene Index="{index}" Name="../s"/>' for index in range(count))
    scenes = f"<Dimensions><S><Scenes>{names}</Scenes></S>".encode()
    header = bytes(content[start:stop]).replace(b"<Dimensions>", scenes)
    place = len(content) + -len(content) % 32
    struct.pack_into("<q", content, 92, place)
    size = 256 + len(header)
    segment = struct.pack("<16sqqii", b"ZISRAWMETADATA", size, size, len(header), 0)
    path.write_bytes(content.ljust(place, b"\0") + segment + bytes(248) + header)


def write_lif(path: Path, scenes: Mapping[str, np.ndarray[Any, Any]]) -> Path:
    """Write named series ``uint8 (C, Z, Y, X)``."""
    elements, blocks = "", b""
    for number, (name, image) in enumerate(scenes.items()):
        memory = f"MemBlock_{number}"
        data = image.transpose(1, 0, 2, 3).tobytes()  # slice by slice, as Leica does
        channels, depth, height, width = image.shape
        plane = height * width
        described = "".join(
            f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="8" '
            f'NameOfMeasuredQuantity="" Min="0" Max="255" Unit="" LUTName="Green" '
            f'IsLUTInverted="0" BytesInc="{channel * plane}" BitInc="0"/>'
            for channel in range(channels)
        )
        dimensions = "".join(
            f'<DimensionDescription DimID="{axis}" NumberOfElements="{length}" '
            f'Origin="0" Length="{step * (length - 1) / 1e6}" Unit="m" BitInc="0" '
            f'BytesInc="{stride}"/>'
            for axis, length, step, stride in (
                (1, width, PIXEL, 1),
                (2, height, PIXEL, width),
                (3, depth, SPACING, channels * plane),
            )
            if length > 1
        )
        elements += (
            f'<Element Name="{name}" Visibility="1"><Data><Image TextDescription="">'
            f"<ImageDescription><Channels>{described}</Channels>"
            f"<Dimensions>{dimensions}</Dimensions></ImageDescription></Image></Data>"
            f'<Memory Size="{len(data)}" MemoryBlockID="{memory}"/></Element>'
        )
        text = memory.encode("utf-16-le")
        head = struct.pack("<BQBI", 0x2A, len(data), 0x2A, len(memory)) + text
        blocks += struct.pack("<II", 0x70, len(head)) + head + data
    xml = (
        '<LMSDataContainerHeader Version="2"><Element Name="p" Visibility="1"><Data/>'
        f'<Memory Size="0" MemoryBlockID=""/><Children>{elements}</Children></Element>'
        "</LMSDataContainerHeader>"
    )
    body = struct.pack("<BI", 0x2A, len(xml)) + xml.encode("utf-16-le")
    path.write_bytes(struct.pack("<II", 0x70, len(body)) + body + blocks)
    return path


def write_nd2(path: Path, positions: Sequence[np.ndarray[Any, Any]]) -> Path:
    """Write positions of the stage, ``uint16 (C, Y, X)`` of one shape."""
    channels, height, width = positions[0].shape
    attributes = {
        "uiWidth": width,
        "uiWidthBytes": 2 * channels * width,
        "uiHeight": height,
        "uiComp": channels,
        "uiBpcInMemory": 16,
        "uiBpcSignificant": 16,
        "uiSequenceCount": len(positions),
    }
    plane = {"uiCompCount": 1, "pFluorescentProbe": {"m_sName": "dye"}}
    planes = {f"a{index}": plane for index in range(channels)}
    metadata = {
        "bCalibrated": True,
        "dCalibration": PIXEL,
        "sPicturePlanes": {"uiCount": channels, "sPlaneNew": planes},
    }
    points = {
        f"i{index:010}": {"dPosX": 10.0 * index} for index in range(len(positions))
    }
    loop = {"uiCount": len(positions), "Points": points}
    experiment = {"eType": 2, "uLoopPars": loop}  # positions of the stage
    chunks = {
        "ImageAttributesLV!": _lite({"SLxImageAttributes": attributes}),
        "ImageMetadataSeqLV|0!": _lite({"SLxPictureMetadata": metadata}),
        "ImageMetadataLV!": _lite({"SLxExperiment": experiment}),
        "CustomData|AcqTimesCache!": bytes(8 * len(positions)),
    }
    for index, image in enumerate(positions):
        pixels = image.transpose(1, 2, 0).tobytes()  # channel after channel
        chunks[f"ImageDataSeq|{index}!"] = struct.pack("<d", 0.0) + pixels
    content = _chunk("ND2 FILE SIGNATURE CHUNK NAME01!", b"Ver3.0".ljust(64, b"\0"), 32)
    places = b""
    for name, data in chunks.items():
        places += name.encode() + struct.pack("<QQ", len(content), len(data))
        content += _chunk(name, data, 4072)
    last = b"ND2 CHUNK MAP SIGNATURE 0000001!"
    end = struct.pack("<Q", len(content))
    content += _chunk("ND2 FILEMAP SIGNATURE NAME 0001!", places + last + end, 32)
    path.write_bytes(content + last + end)
    return path


def _chunk(name: str, data: bytes, reserved: int) -> bytes:
    """Return a chunk: a magic number, two lengths, the name, the data."""
    head = struct.pack("<IIQ", 0x0ABECEDA, reserved, len(data))
    return head + name.encode().ljust(reserved, b"\0") + data


def _lite(values: Mapping[str, Any]) -> bytes:
    """Return values as ND2 stores them: type, length of the name, name, value."""
    result = b""
    for name, value in values.items():
        kinds = {bool: (1, "<B"), int: (3, "<I"), float: (6, "<d")}
        number, layout = kinds.get(
            type(value), (8 if isinstance(value, str) else 11, "")
        )
        head = struct.pack("BB", number, len(name) + 1) + f"{name}\0".encode(
            "utf-16-le"
        )
        if isinstance(value, str):
            result += head + f"{value}\0".encode("utf-16-le")
        elif layout:
            result += head + struct.pack(layout, value)
        else:
            inside = _lite(value)
            length = len(head) + 12 + len(inside)
            result += head + struct.pack("<IQ", len(value), length) + inside
            result += bytes(8 * len(value))
    return result

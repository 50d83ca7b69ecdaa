"""DICOM files for tests, written tag by tag (PS3.10: explicit VR, little endian), so that they can be wrong as well."""

import struct
from pathlib import Path
from typing import Any

import numpy as np

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
SEGMENTATION, STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.481.3"
EXPLICIT = "1.2.840.10008.1.2.1"
ACROSS = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))

KINDS = {
    (0x0002, 0x0002): "UI", (0x0002, 0x0003): "UI", (0x0002, 0x0010): "UI", (0x0008, 0x0016): "UI",
    (0x0008, 0x0018): "UI", (0x0008, 0x0060): "CS", (0x0008, 0x103E): "LO", (0x0020, 0x000D): "UI",
    (0x0020, 0x000E): "UI", (0x0020, 0x0013): "IS", (0x0020, 0x0032): "DS", (0x0020, 0x0037): "DS",
    (0x0018, 0x0050): "DS", (0x0028, 0x0002): "US", (0x0028, 0x0004): "CS", (0x0028, 0x0008): "IS",
    (0x0028, 0x0010): "US", (0x0028, 0x0011): "US", (0x0028, 0x0030): "DS", (0x0028, 0x0100): "US",
    (0x0028, 0x0101): "US", (0x0028, 0x0102): "US", (0x0028, 0x0103): "US", (0x0028, 0x1052): "DS",
    (0x0028, 0x1053): "DS", (0x7FE0, 0x0010): "OW",
}  # fmt: skip


def encode(tag: tuple[int, int], value: Any) -> bytes:
    kind = KINDS[tag]
    if kind == "US":
        content = struct.pack("<H", value)
    elif isinstance(value, bytes):
        content = value
    else:
        content = (
            "\\".join(str(one) for one in value) if isinstance(value, tuple) else str(value)
        ).encode()
    content += (b"\0" if kind in ("UI", "OW") else b" ") * (len(content) % 2)
    length = (
        struct.pack("<HI", 0, len(content)) if kind == "OW" else struct.pack("<H", len(content))
    )
    return struct.pack("<HH", *tag) + kind.encode() + length + content


def write_dicom(path: Path, pixels: np.ndarray | None, changes: dict[tuple[int, int], Any]) -> None:
    """One file; in `changes`, None leaves a tag out."""
    tags: dict[tuple[int, int], Any] = {
        (0x0002, 0x0002): CT, (0x0002, 0x0003): f"1.2.3.{abs(hash(path.name)) % 10**9}", (0x0002, 0x0010): EXPLICIT,
        (0x0008, 0x0016): CT, (0x0008, 0x0018): f"1.2.3.{abs(hash(path.name)) % 10**9}", (0x0008, 0x0060): "CT",
        (0x0020, 0x000D): "1.2.7", (0x0020, 0x000E): "1.2.8",
    }  # fmt: skip
    if pixels is not None:
        signed = np.issubdtype(pixels.dtype, np.signedinteger)
        tags |= {
            (0x0028, 0x0002): 1, (0x0028, 0x0004): "MONOCHROME2", (0x0028, 0x0010): pixels.shape[0],
            (0x0028, 0x0011): pixels.shape[1], (0x0028, 0x0100): 16, (0x0028, 0x0101): 16, (0x0028, 0x0102): 15,
            (0x0028, 0x0103): int(signed), (0x7FE0, 0x0010): pixels.astype("<i2" if signed else "<u2").tobytes(),
        }  # fmt: skip
    tags |= changes
    content = {tag: encode(tag, value) for tag, value in sorted(tags.items()) if value is not None}
    meta = b"".join(part for tag, part in content.items() if tag[0] == 2)
    group = struct.pack("<HH", 2, 0) + b"UL" + struct.pack("<HI", 4, len(meta))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        bytes(128)
        + b"DICM"
        + group
        + meta
        + b"".join(part for tag, part in content.items() if tag[0] > 2)
    )


def write_series(
    folder: Path,
    voxels: np.ndarray,
    *,
    spacing: tuple[float, float] = (0.7, 1.3),
    step: tuple[float, float, float] = (0.0, 0.0, 2.5),
    origin: tuple[float, float, float] = (-31.5, 12.25, 100.0),
    across: tuple[tuple[float, ...], tuple[float, ...]] = ACROSS,
    changes: dict[int, dict[tuple[int, int], Any]] | None = None,
) -> Path:
    """A series of `(columns, rows, slices)`, its files named against the slices' order.

    Args:
        spacing: mm between columns and between rows.
        step: mm from one slice to the next, LPS+.
        across: directions of increasing column and of increasing row, LPS+.
        changes: tags of single slices.
    """
    count = voxels.shape[2]
    for number in range(count):
        place = tuple(float(o + number * s) for o, s in zip(origin, step, strict=True))
        geometry = {
            (0x0020, 0x0013): number + 1, (0x0020, 0x0032): place, (0x0020, 0x0037): (*across[0], *across[1]),
            (0x0028, 0x0030): (spacing[1], spacing[0]), (0x0018, 0x0050): "2.5",
        }  # fmt: skip
        name = folder / f"{count - number:04d}.dcm"
        write_dicom(name, voxels[:, :, number].T, geometry | (changes or {}).get(number, {}))
    return folder

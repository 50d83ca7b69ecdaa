"""Reading and writing of images of every format; no other module opens one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from jaxtyping import UInt8
from nibabel.nifti1 import Nifti1Extension
from PIL import Image

from segpipe.config.data import NaNPolicy
from segpipe.errors import DataError
from segpipe.files import atomic, digest
from segpipe.geometry import Grid, Located, Volume, check_same_grid
from segpipe.io import images, nifti, tiff
from segpipe.io.formats import ENDINGS, NIFTI, TIFF, Format, format_of, is_image
from segpipe.io.nifti import check_header
from segpipe.io.nifti_header import open_header
from segpipe.io.values import count_invalid, for_torch, one_channel, whole_numbers, without_nan
from segpipe.units import UnitName, unit_name


def read_voxels(path: Path, nan: NaNPolicy = "refuse") -> tuple[np.ndarray, np.ndarray]:
    """Read the voxels `(C, x, y, z)` and the affine of any supported file, strictly.

    2D images get the axes of a radiological display (columns to the patient's left, rows to the
    back) and 1 mm.

    Args:
        path: the path of the file.
        nan: what becomes of voxels that are NaN or infinite; `fill` puts the smallest value of
            their channel there, with a warning.

    Raises:
        DataError: if the file is missing, damaged, or not a scan.
    """
    array, affine = _known_format(path).read(path)
    return without_nan(path, array, nan), affine


def _known_format(path: Path) -> Format:
    """Return the format of a file.

    Raises:
        DataError: if its ending is not known.
    """
    found = format_of(path)
    if found is None:
        raise DataError(f"{path}: is not a scan (endings: {', '.join(ENDINGS)})")
    return found


def load(path: Path, nan: NaNPolicy = "refuse") -> Volume:
    """Read a file, or a folder of one DICOM series, as a volume of shape `(C, x, y, z)`.

    Args:
        path: the path of the file or folder.
        nan: the treatment of NaN and infinite voxels, as `read_voxels` takes it.

    Raises:
        DataError: if it cannot be read.
    """
    array, affine = read_voxels(path, nan)
    return to_volume(array, affine)


def load_label(path: Path, image: Path | None = None) -> Volume:
    """Read a label map as a volume of shape `(1, x, y, z)`.

    Indices of a palette are ids, equal channels are one, opacity is left out, and numbers within
    1e-3 of whole ones are rounded, with a warning.

    Args:
        path: the path of the label map.
        image: its image; a label map in pixels takes the millimetres of an image of its size.

    Raises:
        DataError: if it cannot be read, or its channels differ.
    """
    found = _known_format(path)
    array, affine = (found.read_label or found.read)(path)
    invalid = count_invalid(array)
    if invalid:
        raise DataError(
            f"{path}: {invalid} of {array.size} voxels are NaN or infinite, in a label map; "
            "give them an id"
        )
    if image is not None and is_image(path) and is_image(image) and unit_of(path) == "px":
        grid = read_grid(image)
        affine = grid.affine if grid.shape == array.shape[1:] else affine
    return to_volume(whole_numbers(path, one_channel(path, array)), affine)


def unit_of(path: Path) -> str:
    """Return the unit of a file's affine: `mm`, or `px` of an image without millimetres.

    Raises:
        DataError: if its header cannot be read.
    """
    return _known_format(path).unit_of(path)


def shown_unit(path: Path) -> UnitName:
    """Return the units in which lengths and volumes of a scan are shown.

    Raises:
        DataError: if its header cannot be read.
    """
    return unit_name(unit_of(path), read_grid(path).shape[2])


def mask_ending(path: Path) -> str:
    """Return the ending of the mask of a scan: of an image `.png`, of a stack of pages `.tif`."""
    if not is_image(path):
        return ".nii.gz"
    try:
        return ".tif" if read_grid(path).shape[2] > 1 else ".png"
    except DataError:  # there will be no mask
        return ".png"


def to_volume(array: np.ndarray, affine: np.ndarray) -> Volume:
    """Return voxels `(C, x, y, z)`, and their affine to mm in RAS+, as a volume."""
    return Volume(torch.from_numpy(for_torch(array)), affine)


def read(paths: Sequence[Path], load: Callable[[Path], Located] = load) -> Located:
    """Read one volume of shape `(C, x, y, z)` from one file, or from one file per channel.

    Args:
        paths: a file, or a file per channel.
        load: reads one of them.

    Raises:
        DataError: if a file cannot be read, or the channels do not share one grid.
    """
    channels = list(map(load, paths))
    for path, channel in zip(paths, channels, strict=True):
        check_same_grid(paths[0], Grid.of(channels[0]), path, Grid.of(channel))
    if len(channels) == 1:
        return channels[0]
    voxels = torch.cat([channel.as_tensor().float() for channel in channels])
    return Volume(voxels, np.asarray(channels[0].affine, dtype=float))


def read_grid(path: Path) -> Grid:
    """Read the grid of a scan, from its header where the format has one.

    Raises:
        DataError: if the file cannot be read.
    """
    shape, affine = _known_format(path).read_grid(path)
    check_header(path, shape, affine)
    x, y, z = (*shape, 1, 1)[:3]
    return Grid((x, y, z), np.asarray(affine, dtype=float))


def write_mask(mask: np.ndarray, source: Path, path: Path, dtype: type[np.integer[Any]]) -> str:
    """Write a mask on the grid of its scan, keeping affines, codes and units; return its digest.

    The file is written under another name, read back, compared, and only then renamed.

    Args:
        mask: label ids, shape `(x, y, z)` of the scan.
        source: the scan that was segmented.
        path: file to write; ends in `.nii.gz`, `.nii`, or the ending of an image.
        dtype: integer type, the same for all masks of a label set.

    Raises:
        DataError: if the written file does not read back as the mask.
    """
    # nibabel writes Fortran order, and what it reads back compares much faster in that order
    mask = np.asfortranarray(mask)
    ids = mask.astype(dtype)
    with atomic(path) as part:
        if format_of(path) is TIFF:
            tiff.write_stack(ids, read_grid(source).affine, unit_of(source) == "mm", part)
            written, affine = tiff.read(part)
        elif is_image(path):
            Image.fromarray(ids[:, :, 0].T).save(part)
            written, affine = images.read(part)
        else:
            _save_nifti(ids, source, part)
            written, affine = nifti.read(part)
        same_grid = np.array_equal(affine, read_grid(source).affine)
        if not same_grid or not np.array_equal(written[0], mask):
            raise _differs(path)
        return digest([part])  # another process may write the same file


def write_shares(
    shares: UInt8[np.ndarray, "x y z *n"], source: Path, path: Path, names: Sequence[str] = ()
) -> str:
    """Write values between 0 and 1 in 255 steps as a scaled NIfTI file, whole or not at all.

    Return the digest of the file.

    Args:
        shares: 0 to 255, shape `(x, y, z)` of the scan, or `(x, y, z, n)`; of the latter one entry
            at a time is copied.
        source: the scan that was segmented, whose grid the file gets.
        path: file to write; ends in `.nii.gz` or `.nii`.
        names: the names of the entries along the last axis; stored in the header as a comment.

    Raises:
        DataError: if the written file does not read back as the values.
    """
    with atomic(path) as part:
        _save_nifti(shares, source, part, 1 / 255, names)
        # a closed file would be unpacked from its start for every entry
        written: Any = nib.load(part, keep_file_open=True)
        entries = np.moveaxis(shares.reshape(*shares.shape[:3], -1), 3, 0)
        for number, entry in enumerate(entries):
            stored = written.dataobj[..., number] if shares.ndim == 4 else written.dataobj
            if not np.array_equal(np.rint(np.asanyarray(stored, np.float32) * 255), entry):
                raise _differs(path)
        if not np.array_equal(written.affine, read_grid(source).affine):
            raise _differs(path)
        return digest([part])


def _differs(path: Path) -> DataError:
    return DataError(f"{path}: does not read back as it was written; is the disk full or failing?")


def _save_nifti(
    voxels: np.ndarray, source: Path, path: Path, slope: float = 1, names: Sequence[str] = ()
) -> None:
    """Write voxels with the header of their scan.

    Args:
        voxels: the voxels as they are stored.
        source: the scan.
        path: file to write.
        slope: value of a stored 1.
        names: names that are stored as a comment, separated by commas.
    """
    affine, header, image_class = _template(source)
    header.set_data_dtype(voxels.dtype)  # otherwise the file keeps the scan's type
    header.set_intent("none")  # a scan may be a vector image
    header["cal_min"] = 0
    header["cal_max"] = 0
    if names:
        header.extensions.append(Nifti1Extension("comment", ", ".join(names).encode()))
    image = image_class(voxels, affine, header)
    # set last, since the image drops the scaling of the header given; voxels stay as they are
    image.header.set_slope_inter(slope, 0)
    nib.save(image, path)


def _template(source: Path) -> tuple[np.ndarray, Any, Any]:
    """Return the affine, the header and nibabel's class for the masks of a scan."""
    if _known_format(source) is NIFTI:  # its own: units stay, and NIfTI-2 stays NIfTI-2
        scan = open_header(source)
        return scan.own_affine, scan.header.copy(), scan.image_class
    affine = read_grid(source).affine
    image = nib.Nifti1Image(np.zeros(1, np.uint8), affine)
    if unit_of(source) == "mm":
        image.header.set_xyzt_units("mm")
        image.set_qform(affine, "scanner")
        image.set_sform(affine, "scanner")
    return affine, image.header, nib.Nifti1Image

"""The only reading and writing of images.

NIfTI; NRRD, MetaImage and DICOM series through `segpipe.io.itk`; PNG, TIFF and JPEG as volumes of one slice.
"""

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from jaxtyping import UInt8
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Extension
from nibabel.spatialimages import SpatialImage
from PIL import Image
from torch import Tensor

from segpipe.errors import DataError
from segpipe.files import atomic
from segpipe.geometry import Grid, Located, Volume, check_same_grid
from segpipe.io.itk import FOREIGN, itk_grid, read_itk
from segpipe.text import first_line

VOLUMES = (".nii.gz", ".nii")
IMAGES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
ScanLike = Path | str | Sequence[Path | str] | SpatialImage | Located | Tensor
LARGEST_VOXELS = 2**33  # a header that asks for more is damaged: 8 Gi voxels are 32 GiB as float32


def is_scan(path: Path) -> bool:
    """Whether a file's ending is known, or a folder may hold a DICOM series."""
    return path.name.lower().endswith(VOLUMES + IMAGES) or _is_foreign(path)


def read_voxels(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The voxels `(c, x, y, z)` and the affine of all that segpipe knows, strictly.

    2D images get the axes of a radiological display (columns to the patient's left, rows to the back) and 1 mm.

    Raises:
        DataError: if the file is missing, damaged, or not a scan.
    """
    if _is_foreign(path):
        shape, affine = itk_grid(path)
        _check_header(path, shape, affine)
        array = read_itk(path)
    else:
        array, affine = (
            _read_image(path) if str(path).lower().endswith(IMAGES) else _read_nifti(path)
        )
    if not np.issubdtype(array.dtype, np.integer) and (
        bad := array.size - int(np.isfinite(array).sum())
    ):
        raise DataError(
            f"{path}: {bad} of {array.size} voxels are NaN or infinite; mend or leave out this file"
        )
    return array, affine


def _is_foreign(path: Path) -> bool:
    return path.is_dir() or path.name.lower().endswith(FOREIGN)


def _read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        image: Any = nib.load(path)
        return _voxels(path, image)
    except (ImageFileError, OSError, EOFError, zlib.error, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path}: cannot be read as NIfTI ({first_line(error)}); {path.stat().st_size} bytes"
        ) from None


def _voxels(path: Path | str, image: Any) -> tuple[np.ndarray, np.ndarray]:
    """The voxels `(c, x, y, z)` and the affine of an image of nibabel's, its header checked before memory is taken."""
    _check_header(path, image.shape, image.affine)
    array = np.asanyarray(image.dataobj)
    if array.dtype.fields or np.iscomplexobj(array):
        raise DataError(
            f"{path}: holds {array.dtype} voxels; segpipe reads numbers, one channel a file or in axis 4"
        )
    array = array.astype(
        array.dtype.newbyteorder("="), copy=False
    )  # torch reads only the machine's own byte order
    array = array.reshape(array.shape + (1,) * (4 - array.ndim))
    return np.moveaxis(array, 3, 0), np.asarray(image.affine, dtype=float)


def _check_header(path: Path | str, shape: tuple[int, ...], affine: np.ndarray | None) -> None:
    shape = tuple(shape[: max([axis + 1 for axis, size in enumerate(shape) if size != 1] + [3])])
    if len(shape) > 4 or min(shape, default=0) < 1:
        raise DataError(
            f"{path}: has the shape {shape}; a scan has 3 axes, or 4 with channels last"
        )
    if np.prod(shape, dtype=float) > LARGEST_VOXELS:
        raise DataError(
            f"{path}: the header asks for {shape} voxels, more than {LARGEST_VOXELS}; it must be damaged"
        )
    if (
        affine is None
        or not np.isfinite(affine).all()
        or abs(np.linalg.det(affine[:3, :3])) < 1e-12
    ):
        raise DataError(
            f"{path}: the affine has a zero or undefined axis; mend the header's spacing and orientation"
        )


def _read_image(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with Image.open(path) as image:
            colour = "A" in image.mode or image.mode in ("CMYK", "YCbCr", "HSV")
            array = np.asarray(
                image.convert("L" if image.mode == "LA" else "RGB") if colour else image
            )
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image ({first_line(error)})") from None
    array = array.astype(np.uint8) if array.dtype == bool else array
    rows_columns_channels = array.reshape(*array.shape[:2], -1)
    return rows_columns_channels.transpose(2, 1, 0)[..., None], np.diag([-1.0, -1.0, 1.0, 1.0])


def load(path: Path) -> Volume:
    """A file, or a folder of one DICOM series, as a volume of shape `(c, x, y, z)`.

    Raises:
        DataError: if it cannot be read.
    """
    array, affine = read_voxels(path)
    return Volume(torch.from_numpy(np.ascontiguousarray(_known_to_torch(array))), affine)


def _known_to_torch(array: np.ndarray) -> np.ndarray:
    """With integers and floats of which torch has all operations; no value changes."""
    wider = {"uint16": np.int32, "uint32": np.int64, "uint64": np.float64, "longdouble": np.float64}
    return array.astype(wider[array.dtype.name]) if array.dtype.name in wider else array


def read(paths: Sequence[Path], load: Callable[[Path], Located] = load) -> Located:
    """One volume of shape `(c, x, y, z)` from one file, or from one file per channel.

    Args:
        paths: a file, or a file per channel.
        load: reads one of them.

    Raises:
        DataError: if a file cannot be read, or the channels do not lie on one grid.
    """
    channels = [load(path) for path in paths]
    for path, channel in zip(paths, channels, strict=True):
        check_same_grid(paths[0], Grid.of(channels[0]), path, Grid.of(channel))
    if len(channels) == 1:
        return channels[0]
    voxels = torch.cat([channel.as_tensor().float() for channel in channels])
    return Volume(voxels, np.asarray(channels[0].affine, dtype=float))


def as_volume(given: ScanLike) -> Located:
    """One volume of shape `(c, x, y, z)` from what a program may hold.

    Args:
        given: a file, a file per channel, an image of nibabel's, or a `MetaTensor` or `Volume` `(x, y, z)` or
            `(c, x, y, z)`, whose affine leads to mm in RAS+.

    Raises:
        DataError: if it cannot be read, or has no affine.
    """
    if isinstance(given, str | Path):
        return read([Path(given)])
    if isinstance(given, Sequence):
        return read([Path(path) for path in given])
    if isinstance(given, SpatialImage):
        array, affine = _voxels("the image", given)
        given = Volume(torch.from_numpy(np.ascontiguousarray(_known_to_torch(array))), affine)
    if not isinstance(given, Located):
        raise DataError("the tensor has no affine: give monai.data.MetaTensor(tensor, affine)")
    voxels = given.as_tensor()
    volume = Volume(
        voxels if voxels.ndim == 4 else voxels[None], np.asarray(given.affine, dtype=float)
    )
    _check_header("the tensor", tuple(volume.shape[1:]), volume.affine)
    if bad := int((~voxels.isfinite()).sum()):
        raise DataError(f"{bad} of {voxels.numel()} voxels are NaN or infinite")
    return volume


def read_grid(path: Path) -> Grid:
    """The grid of a scan, from its header where it has one.

    Raises:
        DataError: if the file cannot be read.
    """
    if str(path).lower().endswith(IMAGES):
        return Grid.of(load(path))
    if _is_foreign(path):
        shape, affine = itk_grid(path)
        _check_header(path, shape, affine)
        return Grid((shape[0], shape[1], shape[2]), affine)
    try:
        image: Any = nib.load(path)
    except (ImageFileError, OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(f"{path}: cannot be read as NIfTI ({first_line(error)})") from None
    _check_header(path, image.shape, image.affine)
    x, y, z = (*image.shape, 1, 1)[:3]
    return Grid((x, y, z), np.asarray(image.affine, dtype=float))


def write_mask(mask: np.ndarray, source: Path, path: Path, dtype: type[np.integer[Any]]) -> None:
    """Writes a mask as its scan lies: both affines with their codes, units and description are the scan's.

    The file is written under another name, opened again, compared and only then renamed.

    Args:
        mask: label ids, shape `(x, y, z)` of the scan.
        source: the scan that was segmented.
        path: ends in `.nii.gz`, `.nii`, or an image's ending.
        dtype: integer type, the same for all masks of a label set.

    Raises:
        DataError: if the written file does not read back as the mask.
    """
    # in Fortran order, of which nibabel would make a copy itself, and in which what it reads is compared much faster
    mask = np.asfortranarray(mask)
    ids, image = mask.astype(dtype), str(path).lower().endswith(IMAGES)
    with atomic(path) as part:
        if image:
            Image.fromarray(ids[:, :, 0].T).save(part)
        else:
            _save_nifti(ids, source, part)
        written, affine = _read_image(part) if image else _read_nifti(part)
        if not np.array_equal(written[0], mask) or not np.array_equal(
            affine, read_grid(source).affine
        ):
            raise _differs(path)


def write_shares(
    shares: UInt8[np.ndarray, "x y z *n"], source: Path, path: Path, names: Sequence[str] = ()
) -> None:
    """Writes shares between 0 and 1 in 255 steps as a scaled NIfTI file, as its scan lies; whole or not at all.

    Args:
        shares: shape `(x, y, z)` of the scan, or `(x, y, z, n)`; of the latter one entry at a time is copied.
        source: the scan that was segmented.
        path: ends in `.nii.gz` or `.nii`.
        names: of the entries along the last axis; they stand in the header as a comment.

    Raises:
        DataError: if the written file does not read back as the shares.
    """
    with atomic(path) as part:
        _save_nifti(shares, source, part, 1 / 255, names)
        written: Any = nib.load(
            part, keep_file_open=True
        )  # else each entry would unpack all before it again
        entries = np.moveaxis(shares.reshape(*shares.shape[:3], -1), 3, 0)
        for number, entry in enumerate(entries):
            found = written.dataobj[..., number] if shares.ndim == 4 else written.dataobj
            if not np.array_equal(np.rint(np.asanyarray(found, np.float32) * 255), entry):
                raise _differs(path)
        if not np.array_equal(written.affine, read_grid(source).affine):
            raise _differs(path)


def _differs(path: Path) -> DataError:
    return DataError(f"{path}: does not read back as it was written; is the disk full or failing?")


def _save_nifti(
    voxels: np.ndarray, source: Path, path: Path, slope: float = 1, names: Sequence[str] = ()
) -> None:
    if str(source).lower().endswith(IMAGES):
        scan: Any = nib.Nifti1Image(np.zeros(1, np.uint8), read_grid(source).affine)
    elif _is_foreign(source):
        affine = read_grid(source).affine
        scan = nib.Nifti1Image(np.zeros(1, np.uint8), affine)
        scan.header.set_xyzt_units("mm")
        scan.set_qform(affine, "scanner")
        scan.set_sform(affine, "scanner")
    else:
        scan = nib.load(source)
    header = scan.header.copy()
    header.set_data_dtype(voxels.dtype)  # else the file keeps the scan's type
    header["cal_min"] = header["cal_max"] = 0
    if names:
        header.extensions.append(Nifti1Extension("comment", ", ".join(names).encode()))
    image = type(scan)(voxels, scan.affine, header)  # the scan's own class keeps NIfTI-2 as NIfTI-2
    image.header.set_slope_inter(
        slope, 0
    )  # only now, since an image forgets its header's; the voxels stay as they are
    nib.save(image, path)

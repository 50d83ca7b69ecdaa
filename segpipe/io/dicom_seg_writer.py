"""A mask as a DICOM segmentation, written by highdicom."""

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segpipe.errors import ConfigError, DataError
from segpipe.files import atomic, digest
from segpipe.io.dicom_frames import open_header
from segpipe.io.dicom_segments import LabelStack, on_grid
from segpipe.io.dicom_source import Product, Source
from segpipe.io.label_codes import Concept, LabelCode
from segpipe.quiet import quiet
from segpipe.text import first_line

SegmentationKind = Literal["binary", "labelmap"]
SERIES_NUMBER = 9001
RLE = "1.2.840.10008.1.2.5"
EXPLICIT = "1.2.840.10008.1.2.1"
LONGEST_LABEL = 64  # characters of a name in DICOM


def check_highdicom() -> None:
    """Check that highdicom is there.

    Raises:
        ConfigError: if it is not.
    """
    try:
        import highdicom  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError(
            f"save=[dicom_seg]: {error.name} is not installed: pip install 'segpipe[dicom]'"
        ) from None


def write_segmentation(
    mask: np.ndarray,
    labels: Mapping[str, int],
    codes: Mapping[str, LabelCode],
    source: Source,
    path: Path,
    product: Product,
    kind: SegmentationKind = "binary",
) -> str:
    """Write a mask as a DICOM segmentation of its series, whole or not at all; return its digest.

    Frames without a voxel of their segment are left out. A binary segmentation numbers its segments
    1, 2, 3 ... in the order of the labels; a label map keeps the ids.

    Args:
        mask: label ids, shape `(x, y, z)` of the series.
        labels: name -> id, the background left out.
        codes: the codes of the labels, by name.
        source: the series.
        path: file to write.
        product: the product that has made the mask.
        kind: `binary` or `labelmap`.

    Raises:
        DataError: if the series cannot have one, or the file does not read back as the mask.
    """
    ids = dict(labels)
    if kind == "binary":
        ids = {name: number for number, name in enumerate(labels, start=1)}
        mask = _renumbered(mask, labels, ids)
    try:
        with quiet("highdicom"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values of the series that break a rule
            made = _segmentation(mask, ids, codes, source, product, kind)
            with atomic(path) as part:
                made.save_as(part, enforce_file_format=True)
                _check_written(part, mask, source, path)
                return digest([part])
    except (DataError, OSError):
        raise
    except Exception as error:  # highdicom raises many types for tags that are not as they should
        raise DataError(
            f"{source.path}: its tags allow no DICOM segmentation ({first_line(error)[:200]})"
        ) from None


def _renumbered(mask: np.ndarray, old: Mapping[str, int], new: Mapping[str, int]) -> np.ndarray:
    """Return a mask with the new number of each label in place of the old one."""
    found = np.zeros(mask.shape, np.uint16)
    for name, number in old.items():
        found[mask == number] = new[name]
    return found


def _frames(mask: np.ndarray, source: Source) -> np.ndarray:
    """Return a mask `(x, y, z)` as frames `(slices, rows, columns)`, in the order of the files."""
    frames = np.ascontiguousarray(mask.transpose(2, 1, 0))
    if len(source.datasets) == 1:  # of which the file may have another order than the volume
        return frames[np.argsort(source.frame_numbers)]
    return frames


def _segmentation(
    mask: np.ndarray,
    ids: Mapping[str, int],
    codes: Mapping[str, LabelCode],
    source: Source,
    product: Product,
    kind: SegmentationKind,
) -> Any:
    """Return the segmentation of a mask `(x, y, z)` of segment numbers."""
    import highdicom as hd  # pyright: ignore[reportMissingImports]

    column_mm, row_mm = source.stack.first.spacing or (1.0, 1.0)
    thickness = source.first.get("SliceThickness") or source.step_mm
    measures = hd.PixelMeasuresSequence((row_mm, column_mm), thickness, source.step_mm)
    frames = _frames(mask, source).astype(np.min_scalar_type(max(ids.values())))
    unique = (product.checkpoint, kind, hashlib.sha256(frames.tobytes()).hexdigest())
    segments = [
        _segment(name, number, codes[name], source, product) for name, number in ids.items()
    ]
    return hd.seg.Segmentation(
        source.datasets,
        frames,
        kind.upper(),
        segments,
        series_instance_uid=source.new_uid("dicom_seg", *unique),
        series_number=SERIES_NUMBER,
        sop_instance_uid=source.new_uid("dicom_seg instance", *unique),
        instance_number=1,
        manufacturer="segpipe",
        manufacturer_model_name=product.network,
        software_versions=product.version,
        device_serial_number=product.checkpoint[:64],
        series_description=f"segpipe {product.network}"[:LONGEST_LABEL],
        content_label="SEGMENTATION",
        transfer_syntax_uid=RLE if kind == "labelmap" else EXPLICIT,
        pixel_measures=measures,
    )


def _segment(name: str, number: int, code: LabelCode, source: Source, product: Product) -> Any:
    """Return the description of a segment."""
    import highdicom as hd  # pyright: ignore[reportMissingImports]
    from pydicom.sr.codedict import codes

    algorithm = hd.AlgorithmIdentificationSequence(
        f"segpipe {product.network}"[:LONGEST_LABEL],
        codes.DCM.ArtificialIntelligence,
        product.version,
        "segpipe",
        {"checkpoint_sha256": product.checkpoint},
    )
    segment = hd.seg.SegmentDescription(
        number,
        name[:LONGEST_LABEL],
        _coded(code.category),
        _coded(code.concept),
        "AUTOMATIC",
        algorithm,
        tracking_uid=source.new_uid("tracking", name),
        tracking_id=f"segpipe {name}"[:LONGEST_LABEL],
    )
    if code.side is not None:
        structure = segment.SegmentedPropertyTypeCodeSequence[0]
        structure.SegmentedPropertyTypeModifierCodeSequence = [_coded(code.side)]
    return segment


def _coded(concept: Concept) -> Any:
    import highdicom as hd  # pyright: ignore[reportMissingImports]

    return hd.sr.CodedConcept(concept.value, concept.scheme, concept.meaning)


def _check_written(file: Path, mask: np.ndarray, source: Source, path: Path) -> None:
    """Check that a file holds this mask of segment numbers `(x, y, z)`, at its place.

    Raises:
        DataError: if it does not.
    """
    stack = LabelStack(open_header(file).frames)
    written = on_grid(stack, mask.shape, source.stack.affine())
    if not np.array_equal(written, mask):
        raise DataError(f"{path}: does not read back as it was written")

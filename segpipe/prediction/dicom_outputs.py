"""The DICOM files of a mask: what they say beside it, and what becomes of scans that allow none."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import segpipe
from segpipe.checkpoint import Trained
from segpipe.config.predict import Predict
from segpipe.ensembles import find_all
from segpipe.errors import DataError
from segpipe.io.dicom_rtstruct_writer import write_structures
from segpipe.io.dicom_seg_writer import SegmentationKind, check_highdicom, write_segmentation
from segpipe.io.dicom_source import Product, Source
from segpipe.io.formats import DICOM, format_of
from segpipe.io.label_codes import UNKNOWN_LABEL, LabelCode, code_of
from segpipe.plan import Plan
from segpipe.prediction.channel_sets import Scan
from segpipe.prediction.postprocessing import label_indices

log = logging.getLogger("segpipe")
DICOM_FILES = ("dicom_seg", "rtstruct")  # of `save`


@dataclass(frozen=True)
class DicomDetails:
    """What the DICOM files of a batch say beside the masks.

    Attributes:
        product: the product that makes the masks.
        codes: the codes of the labels, by name.
        kind: the kind of the segmentations.
    """

    product: Product
    codes: Mapping[str, LabelCode]
    kind: SegmentationKind


def dicom_details(options: Predict, trained: Trained) -> DicomDetails | None:
    """Return what the DICOM files of a call say; None where it writes none.

    Raises:
        ConfigError: if highdicom is missing and needed, or a code is of no label.
    """
    if not set(DICOM_FILES) & set(options.save):
        return None
    if "dicom_seg" in options.save:
        check_highdicom()
    label_indices(list(options.codes or {}), trained.plan.labels, "codes")
    given = (trained.config.get("data", {}).get("codes") or {}) | (options.codes or {})
    codes = {name: code_of(name, given) for name in trained.plan.label_names}
    unknown = [name for name, code in codes.items() if code == UNKNOWN_LABEL]
    if unknown:
        log.warning(
            "no code is known of %s: DICOM files say Unknown beside the name; "
            "codes={NAME:[SCT,CODE,MEANING]} gives one",
            ", ".join(unknown),
        )
    network = str(trained.config["model"]["network"])
    product = Product(segpipe.__version__, network, _sha256(options.checkpoint_paths))
    return DicomDetails(product, codes, options.seg_type)


def _sha256(checkpoints: Sequence[Path]) -> str:
    """Return the SHA-256 of checkpoints' files, joined by `+`."""
    found = []
    for file in find_all(checkpoints):
        with file.open("rb") as content:
            found.append(hashlib.file_digest(content, "sha256").hexdigest())
    return "+".join(found)


def write_dicom(
    mask: np.ndarray, plan: Plan, scan: Scan, paths: Mapping[str, Path], details: DicomDetails
) -> tuple[list[str], list[str]]:
    """Write the DICOM files of a mask; a scan that allows none is no failure.

    Args:
        mask: label ids, shape `(x, y, z)`.
        plan: the plan of the network.
        scan: the scan that was segmented.
        paths: the paths of the files, by their names in `save`.
        details: what they say beside the mask.

    Returns:
        The digest of each file that was written, in the order of `paths`, or an empty text; and why
        some were not, each in a line.
    """
    labels = dict(list(plan.labels.items())[1:])
    digests = []
    problems = []
    for kind, path in paths.items():
        try:
            source = _source(scan)
            codes = details.codes
            product = details.product
            if kind == "dicom_seg":
                written = write_segmentation(
                    mask, labels, codes, source, path, product, details.kind
                )
            else:
                written = write_structures(mask, labels, codes, source, path, product)
            digests.append(written)
        except DataError as error:
            digests.append("")
            problems.append(f"{kind}: not written: {error}")
            log.warning("%s: %s", scan.name, problems[-1])
    return digests, problems


def _source(scan: Scan) -> Source:
    """Return the series of a scan; of several channels that of the first.

    Raises:
        DataError: if the scan is not DICOM, or lacks a tag.
    """
    if format_of(scan.images[0]) is not DICOM:
        raise DataError(f"{scan.images[0]}: is no DICOM scan")
    return Source(scan.images[0])

"""A mask as a DICOM structure set (RTSTRUCT): outlines of each label in each slice."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from segpipe.errors import DataError
from segpipe.files import atomic, digest
from segpipe.io.dicom_contours import read_structures, trace
from segpipe.io.dicom_file import guarded
from segpipe.io.dicom_source import MAY_BE_EMPTY, Product, Source
from segpipe.io.dicom_stacks import LPS_TO_RAS
from segpipe.io.dicom_tags import STRUCTURE_SET
from segpipe.io.label_codes import Concept, LabelCode

SERIES_NUMBER = 9002
IMPLICIT = "1.2.840.10008.1.2"  # explicit elements of numbers as text end at 64 KiB
CONTOUR_DATA = 0x30060050
LONGEST_NAME = 64  # characters
OF_PATIENT_AND_STUDY = ("SpecificCharacterSet", "StudyInstanceUID", *MAY_BE_EMPTY)


def write_structures(
    mask: np.ndarray,
    labels: Mapping[str, int],
    codes: Mapping[str, LabelCode],
    source: Source,
    path: Path,
    product: Product,
) -> str:
    """Write a mask as a structure set of its series, whole or not at all; return its digest.

    Outlines run half way between the centres of voxels inside and outside, so that the voxels whose
    centres they enclose are those of the mask. The numbers of the structures are the label ids.

    Args:
        mask: label ids, shape `(x, y, z)` of the series.
        labels: name -> id, the background left out.
        codes: the codes of the labels, by name.
        source: the series.
        path: file to write.
        product: the product that has made the mask.

    Raises:
        DataError: if the series cannot have one, or the file does not read back as the mask.
    """
    affine = source.stack.affine()
    with guarded(source.path):
        data = _structure_set(source, product)
        for name, number in labels.items():
            _add_structure(data, mask == number, name, number, codes[name], source)
    with atomic(path) as part:
        data.save_as(part, enforce_file_format=True)
        if mask.any() and not np.array_equal(read_structures(part, mask.shape, affine), mask):
            raise DataError(f"{path}: does not read back as it was written")
        return digest([part])


def _item(**tags: Any) -> Any:
    """Return a data set of these tags."""
    from pydicom.dataset import Dataset

    data = Dataset()
    for keyword, value in tags.items():
        setattr(data, keyword, value)
    return data


def _structure_set(source: Source, product: Product) -> Any:
    """Return a structure set of a series, without structures."""
    now = datetime.now()
    date, time = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    data = _item(
        SOPClassUID=STRUCTURE_SET,
        SOPInstanceUID=source.new_uid("rtstruct instance", product.checkpoint, now.isoformat()),
        SeriesInstanceUID=source.new_uid("rtstruct", product.checkpoint),
        Modality="RTSTRUCT",
        SeriesNumber=SERIES_NUMBER,
        SeriesDescription=f"segpipe {product.network}"[:LONGEST_NAME],
        Manufacturer="segpipe",
        ManufacturerModelName=product.network,
        SoftwareVersions=product.version,
        OperatorsName="",
        FrameOfReferenceUID=source.first.FrameOfReferenceUID,
        PositionReferenceIndicator="",
        StructureSetLabel="SEGPIPE",
        StructureSetDescription=f"checkpoint SHA-256 {product.checkpoint}"[:1024],
        StructureSetDate=date,
        StructureSetTime=time,
        InstanceCreationDate=date,
        InstanceCreationTime=time,
        ApprovalStatus="UNAPPROVED",
        ReferencedFrameOfReferenceSequence=[_referenced_frame(source)],
        StructureSetROISequence=[],
        ROIContourSequence=[],
        RTROIObservationsSequence=[],
    )
    for keyword in OF_PATIENT_AND_STUDY:
        if keyword in source.first:
            setattr(data, keyword, source.first.get(keyword))
    data.file_meta = _meta(data)
    return data


def _meta(data: Any) -> Any:
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(IMPLICIT)
    meta.MediaStorageSOPClassUID = data.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    return meta


def _referenced_frame(source: Source) -> Any:
    """Return the reference to the series and all its files."""
    first = source.first
    images = []
    for data in source.datasets:
        images.append(_image(data))
    series = _item(SeriesInstanceUID=first.SeriesInstanceUID, ContourImageSequence=images)
    study = _item(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",
        ReferencedSOPInstanceUID=first.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    return _item(FrameOfReferenceUID=first.FrameOfReferenceUID, RTReferencedStudySequence=[study])


def _image(data: Any, frame_number: int | None = None) -> Any:
    """Return the reference to a file, or to a frame of it."""
    found = _item(
        ReferencedSOPClassUID=data.SOPClassUID, ReferencedSOPInstanceUID=data.SOPInstanceUID
    )
    if frame_number is not None:
        found.ReferencedFrameNumber = frame_number
    return found


def _add_structure(
    data: Any, mask: np.ndarray, name: str, number: int, code: LabelCode, source: Source
) -> None:
    """Add a structure, with its outlines, to a structure set."""
    structure = _item(
        ROINumber=number,
        ReferencedFrameOfReferenceUID=source.first.FrameOfReferenceUID,
        ROIName=name[:LONGEST_NAME],
        ROIGenerationAlgorithm="AUTOMATIC",
    )
    observation = _item(
        ObservationNumber=number,
        ReferencedROINumber=number,
        RTROIIdentificationCodeSequence=[_coded(code.concept)],
        RTROIInterpretedType="",
        ROIInterpreter="",
    )
    contours = _item(ReferencedROINumber=number, ContourSequence=list(_contours(mask, source)))
    data.StructureSetROISequence.append(structure)
    data.ROIContourSequence.append(contours)
    data.RTROIObservationsSequence.append(observation)


def _coded(concept: Concept) -> Any:
    return _item(
        CodeValue=concept.value,
        CodingSchemeDesignator=concept.scheme,
        CodeMeaning=concept.meaning,
    )


def _contours(mask: np.ndarray, source: Source) -> Iterator[Any]:
    """Yield the outlines of a mask `(x, y, z)`, slice by slice."""
    to_lps = LPS_TO_RAS @ source.stack.affine()
    is_multiframe = len(source.datasets) == 1
    for index in np.flatnonzero(mask.any((0, 1))):
        data = source.datasets[0 if is_multiframe else index]
        number = source.frame_numbers[index] if is_multiframe else None
        for outline in trace(mask[:, :, index]):
            corners = np.column_stack([outline, np.full(len(outline), index)])
            places = corners @ to_lps[:3, :3].T + to_lps[:3, 3]
            item = _item(
                ContourImageSequence=[_image(data, number)],
                ContourGeometricType="CLOSED_PLANAR",
                NumberOfContourPoints=len(places),
            )
            item[CONTOUR_DATA] = _raw_numbers(places)
            yield item


def _raw_numbers(values: np.ndarray) -> Any:
    """Return the coordinates of an outline as the bytes of their element.

    pydicom would make, check and write an object for each, which takes seconds.
    """
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    content = "\\".join(f"{value:.4f}" for value in values.ravel()).encode()
    content += b" " * (len(content) % 2)
    tag = Tag(CONTOUR_DATA)
    return RawDataElement(tag, "DS", len(content), content, 0, True, True)

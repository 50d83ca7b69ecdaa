"""The elements that describe the frames of a DICOM file, and where each is found."""

from contextlib import suppress
from typing import Any

# what tells images at one position apart, the strongest first
TRAITS = (
    "ImageType",
    "FrameType",
    "ComplexImageComponent",
    "EchoTime",
    "EffectiveEchoTime",
    "EchoNumbers",
    "InversionTime",
    "RepetitionTime",
    "FlipAngle",
    "DiffusionBValue",
    "DiffusionGradientOrientation",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "ConvolutionKernel",
    "KVP",
    "AcquisitionNumber",
    "FrameAcquisitionNumber",
    "NominalPercentageOfCardiacPhase",
    "NominalCardiacTriggerDelayTime",
    "TriggerTime",
    "FrameReferenceTime",
    "AcquisitionTime",
)
PIXEL_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
PLACE = ("ImagePositionPatient", "ImageOrientationPatient")
OF_FRAME = (
    *TRAITS,
    *PIXEL_SPACINGS,
    *PLACE,
    "SliceThickness",
    "SpacingBetweenSlices",
    "RescaleSlope",
    "RescaleIntercept",
    "StackID",
    "ReferencedSegmentNumber",
)
MALFORMED = (ValueError, TypeError, OverflowError, ArithmeticError)  # what pydicom raises then
# the functional groups of enhanced files that hold them
MACROS = (
    "PixelMeasuresSequence",
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelValueTransformationSequence",
    "FrameContentSequence",
    "MRImageFrameTypeSequence",
    "CTImageFrameTypeSequence",
    "PETFrameTypeSequence",
    "MREchoSequence",
    "MRDiffusionSequence",
    "MRTimingAndRelatedParametersSequence",
    "MRModifierSequence",
    "TemporalPositionSequence",
    "CardiacSynchronizationSequence",
    "CTReconstructionSequence",
    "CTXRayDetailsSequence",
    "SegmentIdentificationSequence",
)
GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
OF_FILE = (
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "SeriesInstanceUID",
    "SeriesDescription",
    "ProtocolName",
    "SeriesNumber",
    "InstanceNumber",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "BitsAllocated",
    "PhotometricInterpretation",
    "SegmentationType",
    "SegmentSequence",
    "ModalityLUTSequence",
)
CAPTURES = "1.2.840.10008.5.1.4.1.1.7"  # secondary captures, single and multi-frame
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
DOSE = "1.2.840.10008.5.1.4.1.1.481.2"


def frame_values(data: Any, count: int) -> list[dict[str, Any]]:
    """Return what a data set says of each frame: keyword to number, text, or tuple of them.

    An enhanced file says it in functional groups, shared and per frame. A file of several frames
    that does not describe every one has none that could be placed, and the list is empty.

    Args:
        data: the dataset, as pydicom reads it.
        count: frames that the file declares.
    """
    shared: dict[str, Any] = {}
    _collect(data, shared)
    groups = data.get(GROUPS[1]) or ()
    if count > 1 or groups:
        for keyword in PLACE:
            shared.pop(keyword, None)  # one position cannot be that of every frame
    for item in data.get(GROUPS[0]) or ():
        _collect_macros(item, shared)
    if not groups and count == 1:
        return [shared]
    if len(groups) != count:
        return []
    values = []
    for item in groups:
        values.append(dict(shared))
        _collect_macros(item, values[-1])
    return values


def _collect_macros(item: Any, values: dict[str, Any]) -> None:
    """Add what the functional groups of one item say."""
    for macro in MACROS:
        for part in item.get(macro) or ():
            _collect(part, values)
            for direction in part.get("DiffusionGradientDirectionSequence") or ():
                _collect(direction, values)


def _collect(data: Any, values: dict[str, Any]) -> None:
    """Add the elements of a data set that describe a frame.

    One that only tells images apart, as an echo time, is left out where it is not well formed.
    """
    for keyword in OF_FRAME:
        lenient = MALFORMED if keyword in TRAITS else ()
        with suppress(*lenient):
            if keyword in data:
                values[keyword] = plain(data.get(keyword))


def whole_number(data: Any, keyword: str) -> int:
    """Return a number that only sorts and names; 0 where it is missing or not well formed."""
    with suppress(*MALFORMED):
        return int(data.get(keyword) or 0)
    return 0


def segment_names(data: Any) -> dict[int, str]:
    """Return the names of the segments of a segmentation by their numbers, but the background's."""
    names = {}
    for segment in data.get("SegmentSequence") or ():
        number = whole_number(segment, "SegmentNumber")
        if number > 0:
            names[number] = str(segment.get("SegmentLabel") or "").strip()
    return names


def plain(value: Any) -> Any:
    """Return a value of pydicom as a number, a text, or a tuple of them."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return float(value)
    if hasattr(value, "__iter__"):
        return tuple(map(plain, value))
    return float(value)

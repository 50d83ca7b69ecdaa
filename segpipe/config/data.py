"""The options of a dataset; `conf/data/*.yaml` holds their values."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    TypeAdapter,
    field_validator,
    model_validator,
)

from segpipe.config.codes import CODES_HELP, Codes
from segpipe.config.section import NamesFiles, OneOf, Section, Unit, Was
from segpipe.registry import LAYOUTS

NaNPolicy = Literal["refuse", "fill"]

COLUMNS = ("case", "image", "label", "split", "group")  # of a table


class Phantom(Section):
    """The generated dataset."""

    dims: Literal[2, 3] = Field(description="3 for volumes (NIfTI), 2 for images (PNG)")
    modality: Literal["MRI", "CT"] = Field(
        description="CT: Hounsfield units, slices four times as thick as voxels are wide, label "
        "ids 0, 1, 2, 4"
    )
    train: PositiveInt = Field(description="cases to train and validate on")
    test: NonNegativeInt = Field(description="cases kept for predict.py")
    seed: NonNegativeInt = Field(description="another seed, another anatomy")

    @model_validator(mode="after")
    def _ct_is_3d(self) -> "Phantom":
        if self.modality == "CT" and self.dims == 2:
            raise ValueError(
                "data.phantom.modality=CT is drawn in 3D only: give data.phantom.dims=3"
            )
        return self


class Data(Section):
    """Where the cases are, and which of them train."""

    layout: Annotated[str, OneOf(LAYOUTS)] = Field(
        description="how the dataset lies on disk (data/README.md draws each)"
    )
    root: Path | None = Field(
        description="folder of the dataset; for a table, the CSV or JSON file or its folder"
    )
    image_folder: str = Field(description="name of the image folder (layout folder)")
    label_folder: str = Field(description="name of the label folder (layout folder)")
    images: Annotated[list[str] | None, NamesFiles(), Was(None)] = Field(
        description="where the images lie below data.root, one entry for each channel (layout "
        "pattern), as '{case}/anat/T1.nii.gz'; * stands for any text within a name"
    )
    label: Annotated[str | None, NamesFiles(), Was(None)] = Field(
        description="where the label maps lie, as '{case}/anat/seg.nii.gz' (layout pattern); or "
        "how their names end, as dseg (layout bids; null = the only kind that there is)"
    )
    suffixes: Annotated[list[str] | None, Was(None)] = Field(
        description="how the names of the images end, one entry for each channel, as [T1w,FLAIR] "
        "(layout bids); null = what each labelled session has"
    )
    columns: Annotated[dict[str, str] | None, Was(None)] = Field(
        description="names of a table's own columns, as {case:Subject,image:Scan,label:Mask} "
        "(layout table)"
    )
    group: Annotated[str | None, Was(None)] = Field(
        description="regular expression that finds in a case's name what names the patient (its "
        "first group, else all that it matches), as '(.+)_[LR]$': cases of one patient are never "
        "on both sides of a split"
    )
    labels: dict[str, NonNegativeInt] | None = Field(
        description="label ids on disk, as {background:0,liver:1}; null = what the dataset "
        "declares or holds"
    )
    regions: dict[str, list[PositiveInt]] | None = Field(
        description="overlapping regions to learn in place of the labels, each a union of label "
        "ids, as {whole:[1,2,3],core:[2,3]}: one sigmoid each; null = what the dataset declares, "
        "else labels exclude one another (softmax)"
    )
    paint: Annotated[dict[str, PositiveInt] | None, Was(None)] = Field(
        description="id by which a mask shows each region, as {whole:1,core:2}, painted in the "
        "order of data.regions; null = what the dataset declares, else an id that no region inside "
        "has, the largest regions first"
    )
    codes: Annotated[Codes | None, Was(None)] = Field(description=CODES_HELP)
    ignore_label: PositiveInt | None = Field(
        description="id on disk of voxels that nobody has annotated: neither learnt nor scored; "
        "null = what the dataset declares, else there are none"
    )
    nan: Annotated[NaNPolicy, Was("refuse")] = Field(
        description="scans with voxels that are NaN or infinite: refuse, or fill them with the "
        "smallest value of their channel"
    )
    slice_tolerance: Annotated[NonNegativeFloat, Unit("mm"), Was(0.1)] = Field(
        description="how far slices of DICOM may lie from an even spacing, as where positions were "
        "rounded; of thick slices up to 2 % are always allowed"
    )
    split: Path | None = Field(
        description="JSON file {train: [...], val: [...]} of case names, or a list of such"
    )
    folds: int = Field(ge=2, description="number of cross-validation folds")
    fold: NonNegativeInt | None = Field(
        description="the fold that validates, from 0, or the entry of data.split; the plan is "
        "then made of all cases, so that predict.py can average the folds; null = data.fraction"
    )
    fraction: float = Field(
        ge=0, le=1, description="share of the cases that validates without a fold or a split"
    )
    slice_axis: Literal[0, 1, 2] | None = Field(
        description="2D networks: axis of the volume that is cut into slices (0 left-right, "
        "1 posterior-anterior, 2 foot-head); null = the largest spacing, or each scan's own "
        "where their planes differ"
    )
    cache: Path = Field(
        description="folder for prepared cases, shared by all runs; what is missing in it is "
        "prepared again"
    )
    cache_gib: Annotated[PositiveFloat | None, Unit("GiB"), Was(None)] = Field(
        description="most that cache may take: what no run has used for longest is removed first, "
        "never what a running process uses; null = no limit"
    )
    workers: NonNegativeInt | None = Field(
        description="processes that cut and augment patches; 0 = none beside the training; null "
        "= 0 on a CPU, where they would compete with the network, else one per core but one, at "
        "most 8"
    )

    @field_validator("images", "suffixes", mode="before")
    @classmethod
    def _one_or_several(cls, given: object) -> object:
        return [given] if isinstance(given, str) else given

    @field_validator("columns")
    @classmethod
    def _names_columns(cls, columns: dict[str, str] | None) -> dict[str, str] | None:
        for name in columns or {}:
            if name not in COLUMNS and not re.fullmatch(r"image_\d+", name):
                known = ", ".join(COLUMNS)
                raise ValueError(f"data.columns.{name}: there are {known} and image_0, image_1 ...")
        return columns

    @field_validator("group")
    @classmethod
    def _is_an_expression(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return pattern

    @field_validator("root")
    @classmethod
    def _has_a_root(cls, root: Path | None) -> Path:
        if root is None:
            raise ValueError("data.root is missing: name the dataset's folder, as in data.root=DIR")
        return root


class PhantomData(Data):
    """The generated dataset: where it is written, and what it holds."""

    phantom: Phantom


def _kind(values: Any) -> str:
    layout = values.get("layout") if isinstance(values, dict) else values.layout
    return "(phantom)" if layout == "phantom" else "(files)"


DataChoice = Annotated[
    Annotated[Data, Tag("(files)")] | Annotated[PhantomData, Tag("(phantom)")],
    Discriminator(_kind),
]


def data_options(values: dict[str, Any]) -> Data:
    """Return the options of a dataset, as a run's config holds them.

    Raises:
        pydantic.ValidationError: if they are not such options.
    """
    return TypeAdapter(DataChoice).validate_python(values)

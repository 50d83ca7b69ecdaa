"""The options of `python -m segpipe.evaluate`: masks of any tool against truths."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)

from segpipe.config.extensions import EXTENSIONS_HELP, Extensions
from segpipe.config.page import FigureOptions
from segpipe.config.scoring import Scoring
from segpipe.config.section import NamesFiles

CALL = "python -m segpipe.evaluate prediction=MASKS truth=LABELS output=FOLDER"
Files = Annotated[str | None, NamesFiles()]


class Evaluate(Scoring):
    """All options of `python -m segpipe.evaluate`."""

    prediction: Files = Field(
        description="masks: a folder, a file, a pattern such as 'MASKS/{case}/seg.nii.gz', or a "
        "table (.csv, .tsv, .json: columns case, prediction, and truth and image where they are "
        "known)"
    )
    truth: Files = Field(
        description="label maps: given as the masks are; null = the column truth of the table; "
        "names match without endings such as _seg, _pred, _gt or _0000"
    )
    images: Files = Field(
        description="scans over which the masks are drawn: given as the masks are; null = the "
        "column image of the table, or none"
    )
    labels: dict[str, list[NonNegativeInt]] | None = Field(
        min_length=1,
        description="what is scored, as {liver:1,tumour:2,whole:[1,2]}; other ids are background, "
        "and are named; null = those of a dataset.json beside the truths or masks, else every id",
    )
    ignore: PositiveInt | None = Field(
        description="id of voxels of the truth that nobody has annotated: they are not scored"
    )
    missing: Literal["name", "empty"] = Field(
        description="a truth without a mask: name it, and leave it out; or score an empty mask, as "
        "challenges do"
    )
    output: Path | None = Field(
        description="folder for report.html, report.json, scores.csv, cases.csv and overlays/, "
        "made if it is not there"
    )
    overlays: bool = Field(description="draw a picture of each case")
    workers: PositiveInt | None = Field(
        description="processes that score cases beside each other, each of which holds one case in "
        "memory; null = one a core where there are many cases"
    )
    strict: bool = Field(
        description="exit with status 3 also where a case has no mask or no truth, not only where "
        "one is refused"
    )
    page: FigureOptions
    extensions: Extensions = Field(description=EXTENSIONS_HELP)

    @field_validator("labels", mode="before")
    @classmethod
    def _ids_as_lists(cls, given: Any) -> Any:
        """Take a single id for a list of one, and leave out the background."""
        if not isinstance(given, dict):
            return given
        found = {}
        for name, ids in given.items():
            if ids not in (0, [0]):
                found[str(name)] = ids if isinstance(ids, list) else [ids]
        return found

    @field_validator("labels")
    @classmethod
    def _no_background(cls, given: dict[str, list[int]] | None) -> dict[str, list[int]] | None:
        for name, ids in (given or {}).items():
            if not ids or 0 in ids:
                raise ValueError(f"{name} needs ids other than 0, which is the background")
        return given

    @model_validator(mode="after")
    def _says_what(self) -> "Evaluate":
        for key in ("prediction", "output"):
            if getattr(self, key) is None:
                raise ValueError(f"{key} is missing: {CALL}")
        return self

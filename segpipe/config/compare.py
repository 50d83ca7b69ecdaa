"""The options of `python -m segpipe.study compare`."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, model_validator

from segpipe.config.extensions import EXTENSIONS_HELP, Extensions
from segpipe.config.page import FigureOptions
from segpipe.config.section import Section


class Compare(Section):
    """Which systems are compared, and how."""

    systems: list[Path] = Field(
        description="what is compared: runs, sweeps (each setting), folders of predictions or of "
        "python -m segpipe.evaluate, tables of scores; usually typed without the key"
    )
    names: list[str] | None = Field(
        description="of the systems, in their order, as [ours,nnU-Net]; null = those of their "
        "folders"
    )
    reference: str | None = Field(
        description="name of the system that all others are compared with; null = the first"
    )
    margin: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        description="loss of Dice that would not matter, as 0.01 for one point: says whether a "
        "system is inferior to the reference by more; null = that is not asked"
    )
    overlays: NonNegativeInt = Field(
        description="cases that differ most of which pictures are shown side by side"
    )
    output: Path | None = Field(
        description="folder for compare.html, compare.md, compare.csv and cases.csv; null = "
        "comparison in the working directory"
    )
    page: FigureOptions
    extensions: Extensions = Field(description=EXTENSIONS_HELP)

    @model_validator(mode="after")
    def _has_systems(self) -> "Compare":
        if not self.systems:
            raise ValueError("systems is missing: python -m segpipe.study compare A B [C ...]")
        return self

    @property
    def folder(self) -> Path:
        """Return the folder to write to."""
        return self.output or Path("comparison")

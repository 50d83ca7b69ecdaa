"""The options of HTML pages: a run's report, a comparison of runs and a batch's index."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat

from segpipe.config.section import Section, Unit, Was


class FigureOptions(Section):
    """The formats of figures."""

    figures: Annotated[list[Literal["png", "pdf", "svg"]], Was(["png"])] = Field(
        min_length=1,
        description="formats of every figure that a command draws, as [png,pdf,svg]; PNG is always "
        "among them, since pages show it",
    )


class PageOptions(FigureOptions):
    """The options of figures, and of the viewer in a page."""

    viewer: bool = Field(
        description="put scans and masks into the page as volumes, to turn and slice in the "
        "browser; the worst first"
    )
    viewer_mib: Annotated[PositiveFloat, Unit("MiB")] = Field(
        description="most that the volumes may add to the page; those beyond it are left out, and "
        "the page says so"
    )


class RunPageOptions(PageOptions):
    """The options of a run's `report.html`."""

    cases: NonNegativeInt = Field(
        description="validation cases of which a picture is drawn; of more cases the worst and the "
        "best, half of each; mode=doctor: cases of all parts, those with findings first"
    )


class ComparisonOptions(Section):
    """How the variants of a sweep are compared."""

    reference: str | None = Field(
        description="variant that all others are compared with, as its overrides in the sweep, as "
        "'model.long_skips=concat'; null = the one with the config's own values, else the first"
    )
    overlays: NonNegativeInt = Field(
        description="worst cases of which the masks of all variants are drawn side by side"
    )

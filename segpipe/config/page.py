"""The options of the pages that are written for a person."""

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat

from segpipe.config.section import Section, Unit


class PageOptions(Section):
    """What a page holds beside its tables and pictures."""

    viewer: bool = Field(
        description="put scans and masks into the page as volumes, to turn and slice in the "
        "browser; the worst first"
    )
    viewer_mib: Annotated[PositiveFloat, Unit("MiB")] = Field(
        description="most that the volumes may add to the page; those beyond it are left out, and "
        "the page says so"
    )


class RunPageOptions(PageOptions):
    """What report.html of a run holds beside its tables and plots."""

    cases: NonNegativeInt = Field(
        description="validation cases of which a picture is drawn; of more cases the worst and the "
        "best, half of each"
    )

"""The options of input and output that are no folders of this machine."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveFloat

from segpipe.config.section import Section, Unit, Was


class RemoteOptions(Section):
    """The options of addresses such as `s3://BUCKET/SCANS`."""

    cache: Annotated[Path | None, Was(None)] = Field(
        description="folder for the scans of an input such as s3://BUCKET/SCANS, shared by all "
        "calls; null = a temporary one, removed when the call ends"
    )
    cache_gib: Annotated[PositiveFloat, Unit("GiB"), Was(20.0)] = Field(
        description="most that cache may take: the scans that were not used for longest are "
        "removed first, never those that a running process uses"
    )

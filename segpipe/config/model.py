"""The network's options; `conf/model/*.yaml` holds their values."""

from typing import Literal

from pydantic import Field, PositiveInt

from segpipe.config.section import Section

LongSkip = Literal["none", "add", "concat"]


class Model(Section):
    """A U-Net. Level 0 is the finest; a list is read finest first."""

    dims: Literal[2, 3] = Field(description="space that the network sees: 2 (slices or images) or 3 (volumes)")
    channels: list[PositiveInt] = Field(
        min_length=2, description="channels per level; its length is the number of levels"
    )
    long_skips: LongSkip | list[LongSkip] = Field(
        description="encoder-to-decoder joins: one value, or one per level but the coarsest"
    )

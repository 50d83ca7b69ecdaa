"""The network's options; `conf/model/*.yaml` holds their values."""

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from segpipe.config.section import Section

LongSkip = Literal["none", "add", "concat"]


class Model(Section):
    """A U-Net. Level 0 is the finest; a list is read finest first."""

    dims: Literal[2, 3] = Field(description="space that the network sees: 2 (slices or images) or 3 (volumes)")
    channels: list[PositiveInt] = Field(
        min_length=2, description="channels per level; its length is the number of levels"
    )
    long_skips: LongSkip | list[LongSkip] = Field(
        description="encoder-to-decoder joins: one value for all levels, or one per level but the coarsest"
    )

    @model_validator(mode="after")
    def _one_skip_per_level(self) -> "Model":
        if len(self.skips_per_level(levels := len(self.channels) - 1)) != levels:
            raise ValueError(
                f"model.long_skips has {len(self.long_skips)} entries; model.channels has {len(self.channels)} levels, "
                f"so give {levels} (finest first, the coarsest has none) or one for all"
            )
        return self

    def skips_per_level(self, levels: int) -> list[LongSkip]:
        """One long skip per level but the coarsest; a single value, or a list of one, stands for all."""
        skips: list[LongSkip] = self.long_skips if isinstance(self.long_skips, list) else [self.long_skips]
        return [*skips] * levels if len(skips) == 1 else skips

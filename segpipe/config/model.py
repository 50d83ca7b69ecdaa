"""The network's options; `conf/model/*.yaml` holds their values."""

from typing import Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from segpipe.config.section import Section

LongSkip = Literal["none", "add", "concat", "gate"]


class Model(Section):
    """A U-Net. Level 0 is the finest; a list is read finest first."""

    dims: Literal[2, 3] = Field(description="space that the network sees: 2 (slices or images) or 3 (volumes)")
    channels: list[PositiveInt] = Field(
        min_length=2, description="channels per level; its length is the number of levels"
    )
    long_skips: LongSkip | list[LongSkip] = Field(
        description="encoder-to-decoder joins: one value for all levels, or one per level but the coarsest; "
        "gate = attention gate before a concatenation"
    )
    skip_dropout: float = Field(ge=0, lt=1, description="chance that a long skip is dropped whole in training")
    short_skips: Literal["none", "residual", "dense"] = Field(
        description="skips inside a stage: a sum around each block, or every layer concatenated to all later ones"
    )
    short_skips_in: Literal["encoder", "decoder", "both"] = Field(description="where the short skips are")
    growth_rate: PositiveInt | None = Field(description="channels that each layer of a dense stage adds")
    block: Literal["plain", "bottleneck"] = Field(
        description="plain: convolutions of the stage's kernel; bottleneck: 1, kernel, 1 with a quarter inside"
    )
    blocks: PositiveInt | list[PositiveInt] = Field(description="blocks per stage: one number, or one per level")
    convs: PositiveInt | list[PositiveInt] = Field(
        description="convolutions in a plain block, layers in a dense stage: one number, or one per level"
    )
    first_conv: float = Field(
        gt=0, le=1, description="share of a stage's channels that the first convolution of an encoder's block has"
    )
    decoder_block: Literal["plain", "bottleneck"] | None = Field(description="as block; null = as the encoder")
    decoder_blocks: PositiveInt | list[PositiveInt] | None = Field(description="as blocks; null = as the encoder")
    decoder_convs: PositiveInt | list[PositiveInt] | None = Field(description="as convs; null = as the encoder")
    kernel: PositiveInt = Field(
        description="voxels that a convolution sees along an axis (odd); along axes that are still too coarse it is 1"
    )
    norm: Literal["instance", "batch", "group", "none"] = Field(description="normalisation after each convolution")
    activation: Literal["leaky_relu", "relu", "prelu", "elu"] = Field(description="nonlinearity")
    order: Literal["post", "pre"] = Field(
        description="post: convolution, norm, activation; pre: norm, activation, convolution"
    )
    dropout: float = Field(ge=0, lt=1, description="share of channels dropped after each convolution in training")
    down: Literal["stride", "maxpool"] = Field(description="strided convolution, or max pooling")
    up: Literal["transposed", "nearest", "linear"] = Field(
        description="transposed convolution, or interpolation and a convolution"
    )
    up_keeps_channels: bool = Field(
        description="upsampling keeps the coarser level's channels; false = the finer level's"
    )
    up_bias: bool = Field(description="a bias in upsampling")
    conv_bias: bool = Field(description="a bias in convolutions that a norm follows, too")
    deep_supervision: bool = Field(
        description="a loss at every level of the decoder but the coarsest, halved each time"
    )

    @model_validator(mode="after")
    def _one_skip_per_level(self) -> "Model":
        if len(self.skips_per_level) != (levels := len(self.channels) - 1):
            raise ValueError(
                f"model.long_skips has {len(self.long_skips)} entries; model.channels has {len(self.channels)} levels, "
                f"so give {levels} (finest first, the coarsest has none) or one for all"
            )
        return self

    @field_validator("kernel")
    @classmethod
    def _is_odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError(f"{kernel} has no middle voxel: use {kernel - 1} or {kernel + 1}")
        return kernel

    @model_validator(mode="after")
    def _one_number_per_level(self) -> "Model":
        levels = len(self.channels)
        needed = {"blocks": levels, "convs": levels, "decoder_blocks": levels - 1, "decoder_convs": levels - 1}
        for key, count in needed.items():
            given = getattr(self, key)
            if isinstance(given, list) and len(given) < count:
                raise ValueError(
                    f"model.{key} has {len(given)} entries; model.channels has {levels} levels, so give {count} "
                    "(finest first) or one number for all"
                )
        return self

    @model_validator(mode="after")
    def _dense_stages_have_layers(self) -> "Model":
        if self.short_skips == "dense":
            if self.growth_rate is None:
                raise ValueError("model.short_skips=dense needs model.growth_rate, the channels that each layer adds")
            if self.block == "bottleneck":
                raise ValueError("model.short_skips=dense has layers, not bottlenecks: use model.block=plain")
            if self.blocks != 1:
                raise ValueError("model.short_skips=dense has layers, not blocks: use model.convs, with model.blocks=1")
        return self

    @property
    def skips_per_level(self) -> list[LongSkip]:
        """One long skip per level but the coarsest; a single value, or a list of one, stands for all."""
        skips: list[LongSkip] = self.long_skips if isinstance(self.long_skips, list) else [self.long_skips]
        return [*skips] * (len(self.channels) - 1) if len(skips) == 1 else skips

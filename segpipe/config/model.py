"""The network's options; `conf/model/*.yaml` holds their values."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveInt,
    Tag,
    field_validator,
    model_validator,
)

from segpipe.config.section import OneOf, Section, Unit
from segpipe.registry import BLOCKS, LONG_SKIPS, SHORT_SKIPS

LongSkip = Annotated[str, OneOf(LONG_SKIPS)]
ShortSkip = Annotated[str, OneOf(SHORT_SKIPS)]
Block = Annotated[str, OneOf(BLOCKS)]
Down = Literal["stride", "maxpool", "transition"]
Channels = Annotated[PositiveInt, Field(le=2**16)]
Blocks = Annotated[PositiveInt, Field(le=256)]  # blocks, convolutions or layers of a stage
LARGEST_KERNEL = 2**10 - 1
MOST_LEVELS = 32
T = TypeVar("T")
# of a network that a CPU can train, by axes: channels of the finest level, most channels, levels
SMALL = {2: (24, 192, 5), 3: (16, 128, 4)}
PER_LEVEL = ("blocks", "convs", "block", "short_skips")
PER_DECODER_LEVEL = (
    "long_skips",
    "down",
    "decoder_channels",
    "decoder_blocks",
    "decoder_convs",
    "decoder_block",
)


def per_level(value: T | list[T], levels: int) -> list[T]:
    """Return one value per level, finest first; a single one, or a list of one, is for all."""
    values = value if isinstance(value, list) else [value]
    return values * levels if len(values) == 1 else values


def doubling(first: int, widest: int, levels: int) -> list[int]:
    """Return channels per level, finest first, each twice those of the finer one up to `widest`."""
    return [min(first * 2**level, widest) for level in range(levels)]


class Model(Section):
    """A U-Net. Level 0 is the finest; a list is read finest first."""

    network: Literal["unet"] = Field(
        description="unet; with model=monai the name of a class of monai.networks.nets"
    )
    dims: Literal[2, 3] = Field(
        description="space that the network sees: 2 (slices or images) or 3 (volumes)"
    )
    channels: list[Channels] | None = Field(
        min_length=2,
        max_length=MOST_LEVELS,
        description="channels per level; its length is the number of levels; null = planned from "
        "device, memory, patch and spacing",
    )
    decoder_channels: list[Channels] | None = Field(
        description="likewise of the decoder, for each level but the coarsest; null = the encoder's"
    )
    long_skips: LongSkip | list[LongSkip] = Field(
        description="encoder-to-decoder joins: one value for all levels, or one per level but the "
        "coarsest; gate = attention gate before a concatenation"
    )
    skip_dropout: float = Field(
        ge=0, lt=1, description="chance that a long skip is dropped whole in training"
    )
    short_skips: ShortSkip | list[ShortSkip] = Field(
        description="skips inside a stage: a sum around each block, or every layer concatenated to "
        "all later ones; one value for all levels, or one per level"
    )
    short_skips_in: Literal["encoder", "decoder", "both"] = Field(
        description="where the short skips are"
    )
    growth_rate: Channels | None = Field(
        description="channels that each layer of a dense stage adds"
    )
    block: Block | list[Block] = Field(
        description="plain: convolutions of the stage's kernel; bottleneck: 1, kernel, 1 with a "
        "quarter inside; one value, or one per level"
    )
    blocks: Blocks | list[Blocks] = Field(
        description="blocks per stage: one number, or one per level"
    )
    convs: Blocks | list[Blocks] = Field(
        description="convolutions in a plain block, layers in a dense stage: one number, or one "
        "per level"
    )
    first_conv: float = Field(
        gt=0,
        le=1,
        description="share of a stage's channels that the first convolution of an encoder's stage "
        "has",
    )
    decoder_block: Block | list[Block] | None = Field(description="as block; null = as the encoder")
    decoder_blocks: Blocks | list[Blocks] | None = Field(
        description="as blocks; null = as the encoder"
    )
    decoder_convs: Blocks | list[Blocks] | None = Field(
        description="as convs; null = as the encoder"
    )
    kernel: Annotated[PositiveInt, Field(le=LARGEST_KERNEL), Unit("voxels")] = Field(
        description="what a convolution sees along an axis (odd); along axes that are still too "
        "coarse it is 1"
    )
    norm: Literal["instance", "batch", "group", "none"] = Field(
        description="normalisation after each convolution"
    )
    activation: Literal["leaky_relu", "relu", "prelu", "elu"] = Field(description="nonlinearity")
    order: Literal["post", "pre"] = Field(
        description="post: convolution, norm, activation; pre: norm, activation, convolution"
    )
    dropout: float = Field(
        ge=0, lt=1, description="share of channels dropped after each convolution in training"
    )
    down: Down | list[Down] = Field(
        description="strided convolution, max pooling, or transition: a 1-wide convolution and max "
        "pooling; one value, or one per level but the coarsest"
    )
    up: Literal["transposed", "nearest", "linear"] = Field(
        description="transposed convolution, or interpolation and a convolution"
    )
    up_kernel: NonNegativeInt | None = Field(
        le=LARGEST_KERNEL,
        description="kernel of upsampling's convolution; null = the stride if transposed, else "
        "model.kernel; 0 = interpolation alone",
    )
    up_keeps_channels: bool = Field(
        description="upsampling keeps the coarser level's channels; false = the finer level's"
    )
    up_bias: bool = Field(description="a bias in upsampling")
    conv_bias: bool = Field(description="a bias in convolutions that a norm follows, too")
    deep_supervision: bool = Field(
        description="a loss at every level of the decoder but the coarsest, halved each time"
    )

    match: Literal["none", "params", "flops"] = Field(
        description="scale channels until parameters or multiply-adds are within 1 % of this "
        "network with all skips on, or of few channels as near as can be, at most 5 %"
    )

    @property
    def fixed_by(self) -> str | None:
        """The key that says how many levels there are; None where that is left to the plan."""
        if self.channels is not None:
            return "channels"
        for key in (*PER_LEVEL, *PER_DECODER_LEVEL):
            if self._length(key) > 1 or (key == "decoder_channels" and self._length(key)):
                return key
        return None

    @property
    def levels(self) -> int:
        """The number of sizes that the network works at; of a CPU where that is not said."""
        key = self.fixed_by
        if key is None:
            return SMALL[self.dims][-1]
        return self._length(key) + (key in PER_DECODER_LEVEL)

    @property
    def widths(self) -> list[int]:
        """The channels per level of a network that is planned, or has them given."""
        assert self.channels is not None, "the network is not planned yet"
        return self.channels

    def with_channels(self, channels: list[int]) -> "Model":
        """Return the network with these channels per level, unless it has them given."""
        return self if self.channels else self.model_copy(update={"channels": channels})

    def small(self) -> "Model":
        """Return the network as a CPU gets it where its channels are left to the plan."""
        first, widest, _ = SMALL[self.dims]
        return self.with_channels(doubling(first, widest, self.levels))

    def _length(self, key: str) -> int:
        """Return how many entries a key has; 0 where it is no list."""
        value = getattr(self, key)
        return len(value) if isinstance(value, list) else 0

    @field_validator("kernel")
    @classmethod
    def _is_odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError(f"{kernel} has no middle voxel: use {kernel - 1} or {kernel + 1}")
        return kernel

    @model_validator(mode="after")
    def _one_value_per_level(self) -> "Model":
        for key in PER_LEVEL:
            self._check_count(key, self.levels, "")
        for key in PER_DECODER_LEVEL:
            self._check_count(key, self.levels - 1, ", the coarsest has none")
        return self

    def _check_count(self, key: str, count: int, which: str) -> None:
        values = getattr(self, key)
        one_for_all = key != "decoder_channels"
        if not isinstance(values, list) or len(values) == count:
            return
        if len(values) == 1 and one_for_all:
            return
        alternative = " or one for all" if one_for_all else ""
        has = "has" if self.channels else "is for"
        raise ValueError(
            f"model.{key} has {len(values)} entries; model.{self.fixed_by} {has} {self.levels} "
            f"levels, so give {count} (finest first{which}){alternative}"
        )

    @model_validator(mode="after")
    def _dense_stages_have_layers(self) -> "Model":
        for level, skip in enumerate(per_level(self.short_skips, self.levels)):
            if skip == "dense":
                self._check_dense(level)
        return self

    def _check_dense(self, level: int) -> None:
        level_name = f" (level {level})" if isinstance(self.short_skips, list) else ""
        dense = f"model.short_skips=dense{level_name}"
        if self.growth_rate is None:
            raise ValueError(f"{dense} needs model.growth_rate, the channels that each layer adds")
        if per_level(self.block, self.levels)[level] == "bottleneck":
            raise ValueError(f"{dense} has layers, not bottlenecks: use model.block=plain")
        if per_level(self.blocks, self.levels)[level] != 1:
            raise ValueError(
                f"{dense} has layers, not blocks: use model.convs, with model.blocks=1"
            )

    @model_validator(mode="after")
    def _upsampling_can_be_built(self) -> "Model":
        if self.up_kernel is None or self.up == "transposed":
            return self
        if self.up_kernel == 0 and not self.up_keeps_channels:
            raise ValueError(
                "model.up_kernel=0 leaves no convolution that could change channels: use "
                "model.up_keeps_channels=true"
            )
        if self.up_kernel % 2 == 0 and self.up_kernel:
            raise ValueError(
                f"model.up_kernel: {self.up_kernel} has no middle voxel: use {self.up_kernel + 1}"
            )
        return self


class MonaiModel(Section):
    """A registered network, or one of MONAI's as a baseline; its skips are no switches."""

    network: str = Field(
        description="name of a registered network, or of a class of monai.networks.nets"
    )
    dims: Literal[2, 3] = Field(
        description="space that the network sees: 2 (slices or images) or 3 (volumes)"
    )
    arguments: dict[str, Any] | None = Field(
        description="what its constructor is given beside the space, the image channels and the "
        "labels; null = nothing more"
    )
    levels: PositiveInt = Field(
        le=MOST_LEVELS,
        description="sizes that it works at: a patch can be halved one time less",
    )


def _kind(values: Any) -> str:
    network = values.get("network", "unet") if isinstance(values, dict) else values.network
    return "(unet)" if network == "unet" else "(monai)"


AnyModel = Model | MonaiModel
ModelChoice = Annotated[
    Annotated[Model, Tag("(unet)")] | Annotated[MonaiModel, Tag("(monai)")], Discriminator(_kind)
]

"""The options of `python -m segpipe.probe`, and of `python -m segpipe.study`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from segpipe.config.extensions import EXTENSIONS_HELP, Extensions
from segpipe.config.model import LongSkip, Model, ShortSkip, per_level
from segpipe.config.page import ComparisonOptions, FigureOptions
from segpipe.config.section import Section
from segpipe.config.train import DEVICE_HELP, Device, Duration, Precision

Factor = Annotated[float, Field(gt=1)]


class Probe(Section):
    """The options shared by all commands that measure trained networks."""

    checkpoint: list[Path] | None = Field(
        min_length=1,
        description="a run's folder (its best checkpoint) or a checkpoint file; several as "
        "[RUN,RUN]",
    )
    data_root: Path | None = Field(
        description="where the first run's dataset is now; null = where the runs found theirs "
        "(data.root)"
    )
    cases: list[str] | None = Field(
        min_length=1,
        description="names of labelled cases of that dataset; null = those that validated the run",
    )
    output: Path | None = Field(
        description="folder to write to; null = a folder named after the command in that of the "
        "first run"
    )
    device: Device = Field(description=DEVICE_HELP)
    precision: Precision = Field(
        description="auto = as in training: bf16 where the device computes it faster"
    )

    page: FigureOptions
    extensions: Extensions = Field(description=EXTENSIONS_HELP)

    @field_validator("checkpoint", mode="before")
    @classmethod
    def _one_or_several(cls, given: object) -> object:
        return [given] if isinstance(given, str) else given

    @model_validator(mode="after")
    def _says_which(self) -> "Probe":
        if self.checkpoint is None:
            raise ValueError("checkpoint is missing: name a run, as in checkpoint=runs/latest")
        return self


class Lesion(Probe):
    """The options of `lesion`, which replaces each long skip of a trained network in turn."""

    lesions: list[Literal["zero", "mean", "shuffle"]] = Field(
        min_length=1,
        description="what stands in for a skip: 0; each channel's mean over space and cases; or "
        "the skip that the network makes of another case",
    )
    nsd_tolerance_mm: PositiveFloat = Field(description="surfaces this close count as one, mm")

    @model_validator(mode="after")
    def _one_network(self) -> "Lesion":
        if self.checkpoint is not None and len(self.checkpoint) > 1:
            raise ValueError(
                f"checkpoint names {len(self.checkpoint)} networks; lesion looks into one"
            )
        return self


class Landscape(Probe):
    """The options of `landscape`, the loss along random directions."""

    axes: Literal[1, 2] = Field(description="1 = along one direction, 2 = over a plane of two")
    reach: PositiveFloat = Field(description="how far to go, in lengths of each filter")
    patches: PositiveInt = Field(
        description="validation patches, always the same, on which the loss is computed"
    )
    max_time: Duration = Field(
        description="wall time for all networks, DD:HH:MM:SS; the resolution fits it"
    )
    seed: NonNegativeInt = Field(description="seed of the directions and of the patches")


class Robustness(Probe):
    """The options of `robustness`, Dice of degraded scans."""

    blur_mm: list[PositiveFloat] = Field(description="standard deviations of a Gaussian blur, mm")
    noise: list[PositiveFloat] = Field(
        description="standard deviations of added Gaussian noise, as shares of the scan's own"
    )
    bias: list[PositiveFloat] = Field(
        description="largest coefficients of a smooth polynomial whose exponential multiplies the "
        "scan"
    )
    coarser: list[Factor] = Field(
        description="how many times as wide voxels become, before they are interpolated back"
    )
    seed: NonNegativeInt = Field(
        description="seed of noise and bias fields, the same for all networks"
    )


class Report(ComparisonOptions):
    """The options of the report of a sweep: `study.html` and its tables."""

    sweep: Path | None = Field(description="folder of a sweep, with a folder for each run in it")
    runs: list[Path] | None = Field(
        min_length=1, description="folders of runs to compare in place of a sweep's, [RUN,RUN]"
    )
    output: Path | None = Field(
        description="folder to write to; null = the sweep's, or of runs a folder study beside the "
        "first"
    )
    page: FigureOptions
    extensions: Extensions = Field(description=EXTENSIONS_HELP)

    @field_validator("sweep")
    @classmethod
    def _is_a_sweep(cls, folder: Path | None) -> Path | None:
        if folder is not None and not (folder / "multirun.yaml").is_file():
            raise ValueError(f"{folder} is not the folder of a sweep: it holds no multirun.yaml")
        return folder

    @model_validator(mode="after")
    def _says_which(self) -> "Report":
        if (self.sweep is None) == (self.runs is None):
            raise ValueError(
                "sweep is missing: name a sweep's folder, or the folders of runs, as in python -m "
                "segpipe.study runs/NAME/DATE_TIME"
            )
        return self

    @property
    def folder(self) -> Path:
        """Return the folder to write to."""
        if self.output is not None:
            return self.output
        return self.sweep or (self.runs or [Path()])[0].resolve().parent / "study"


class Depth(Section):
    """The options of `depth`, the gradient of each layer at initialisation."""

    model: Annotated[Model, AfterValidator(Model.small)]
    page: FigureOptions
    extensions: Extensions = Field(description=EXTENSIONS_HELP)
    long_skips: list[LongSkip] = Field(
        min_length=1, description="kinds of long skip to put in, at all levels"
    )
    short_skips: list[ShortSkip] = Field(
        min_length=1, description="kinds of short skip to put in, in every stage; of dense, in "
        "place of each stage's blocks as many layers, which together add the stage's channels",
    )  # fmt: skip
    init: Literal["default", "he"] = Field(
        description="of convolutions: default = PyTorch's, variance 1/(3 n) for n inputs of a "
        "value; he = 2/n and no bias (He 2015)"
    )
    size: PositiveInt = Field(description="edge of the image of noise, voxels")
    seeds: PositiveInt = Field(description="initialisations, of which the geometric mean is drawn")
    output: Path = Field(description="folder for depth.png and depth.csv, made if it is not there")

    @model_validator(mode="after")
    def _can_be_halved(self) -> "Depth":
        step = 2 ** (self.model.levels - 1)
        if self.size % step:
            raise ValueError(
                f"size is {self.size}; the {self.model.levels} levels need a multiple of {step}"
            )
        return self

    @model_validator(mode="after")
    def _plain_blocks_for_dense(self) -> "Depth":
        if "dense" in self.short_skips and "bottleneck" in per_level(
            self.model.block, self.model.levels
        ):
            raise ValueError(
                "short_skips: dense has layers, not bottlenecks: use model.block=plain"
            )
        return self

"""The options of `train.py`; `conf/train.yaml` and its groups hold their values."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from segpipe.config.data import DataChoice
from segpipe.config.device import DEVICE_HELP as DEVICE_HELP
from segpipe.config.device import Device as Device
from segpipe.config.duration import Duration as Duration
from segpipe.config.extensions import EXTENSIONS_HELP, Extensions
from segpipe.config.initial import NOTHING, InitOptions
from segpipe.config.logger import LoggerChoice
from segpipe.config.model import Model, ModelChoice
from segpipe.config.page import ComparisonOptions, RunPageOptions
from segpipe.config.scoring import Scoring
from segpipe.config.section import OneOf, RegisteredSection, Section, Unit, Was
from segpipe.config.trainer import Precision as Precision
from segpipe.config.trainer import TrainerOptions as TrainerOptions
from segpipe.registry import AUGMENTATIONS, LOSSES, OPTIMISERS

Probability = Annotated[float, Field(ge=0, le=1)]
Normalise = Literal["zscore", "zscore_nonzero", "ct", "rescale", "rgb", "none"]


class PlanOptions(Section):
    """The plan's keys; null = derived from the training cases."""

    spacing: Annotated[list[PositiveFloat] | None, Unit("mm")] = Field(
        min_length=3,
        max_length=3,
        description="voxel size of model space along left-right, posterior-anterior and foot-head",
    )
    patch: Annotated[list[PositiveInt] | None, Unit("voxels")] = Field(
        min_length=2,
        max_length=3,
        description="patch size in model space (2D networks: two entries)",
    )
    batch: PositiveInt | None = Field(
        description="patches per step, over all devices; each has as many as any other"
    )
    strides: list[list[Literal[1, 2]]] | None = Field(
        description="per downsampling, finest first, 2 for each axis that is halved and 1 for each "
        "other, as [[2,2,1],[2,2,2]]"
    )
    kernels: list[list[Literal[1, 3]]] | None = Field(
        description="per level, finest first, 1 for each axis of the network along which its "
        "convolutions do not look"
    )
    normalise: list[Normalise] | None = Field(
        description="intensities, for all channels or a list with one for each: zscore per scan, "
        "zscore_nonzero over what is not 0, ct (clip to the foreground's 0.5 and 99.5 percentiles, "
        "its mean and deviation), rescale (minimum and maximum of the scan become 0 and 1), rgb "
        "(divide by 255), none"
    )
    memory_gib: Annotated[PositiveFloat | None, Unit("GiB")] = Field(
        description="what a training step may need; null = 90 % of the GPU's memory, or 70 % of "
        "the machine's"
    )
    ceiling: Annotated[Probability, Was(1.0)] = Field(
        description="Dice that a perfect network must still have, mean of the labels, where model "
        "space is made coarser so that a patch sees whole scans (on a CPU); 1 = never"
    )
    short_ceiling: Annotated[Probability, Was(1.0)] = Field(
        description="the same, where it is made still coarser because the budget of wall time is "
        "too short for the many labels; 1 = never"
    )
    foreground: Probability = Field(
        description="share of patches that are centred on a labelled voxel"
    )

    @field_validator("normalise", mode="before")
    @classmethod
    def _for_all_or_each(cls, given: object) -> object:
        return [given] if isinstance(given, str) else given


class Augment(RegisteredSection):
    """Random changes of a training patch; each has its own probability."""

    registry = AUGMENTATIONS
    title = "augment"
    entry_type = Probability
    entry_help = "probability of"
    __pydantic_extra__: dict[str, Probability]  # pyright: ignore[reportIncompatibleVariableOverride]

    mirror_axes: list[Literal[0, 1, 2]] = Field(
        description="axes that may be mirrored (0 left-right, 1 posterior-anterior, 2 foot-head); "
        "[] = none"
    )
    affine: Probability = Field(description="probability of a rotation with scaling")
    rotate_deg: Annotated[float, Unit("degrees")] = Field(
        ge=0, le=180, description="largest rotation about each axis"
    )
    scale: float = Field(ge=0, lt=1, description="largest relative change of size")
    elastic: Probability = Field(description="probability of a smooth grid distortion")
    warmup: Annotated[NonNegativeInt, Was(0)] = Field(
        description="times that the patches show the labels of each training case while the share "
        "of augmented ones grows to 1; 0 = all from the first step"
    )


class Loss(RegisteredSection):
    """The loss: a weight for each term, and the options of some terms."""

    registry = LOSSES
    title = "loss"
    entry_type = NonNegativeFloat
    entry_help = "weight of this term, 0 = off:"
    __pydantic_extra__: dict[str, NonNegativeFloat]  # pyright: ignore[reportIncompatibleVariableOverride]

    class_weights: Annotated[dict[str, PositiveFloat] | None, Was(None)] = Field(
        description="cross_entropy and focal: how much a voxel of a label counts, as {vessel: 5}; "
        "1 for labels that are not named, null = 1 for all; of regions, how much a region counts"
    )
    focal_gamma: Annotated[NonNegativeFloat, Was(2.0)] = Field(
        description="focal: the higher, the less easy voxels count; 0 = as cross_entropy"
    )
    tversky_alpha: Annotated[NonNegativeFloat, Was(0.3)] = Field(
        description="tversky: weight of false alarms"
    )
    tversky_beta: Annotated[NonNegativeFloat, Was(0.7)] = Field(
        description="tversky: weight of misses; with tversky_alpha 0.5 each, it is soft Dice"
    )
    top_k_share: Annotated[float, Was(0.1)] = Field(
        gt=0, le=1, description="top_k: share of the voxels that count, those with the most loss"
    )
    cldice_steps: Annotated[PositiveInt, Unit("voxels"), Was(3)] = Field(
        description="cldice: radius of the widest tube; each step needs time and memory"
    )
    cldice_labels: Annotated[list[str] | None, Was(None)] = Field(
        min_length=1,
        description="cldice: names of the labels or regions that are tubes; null = all",
    )

    @property
    def weights(self) -> dict[str, float]:
        """The weights above 0, by term, in the order of registration."""
        terms = self.__pydantic_extra__ or {}
        return {name: terms[name] for name in self.registry if terms.get(name)}

    @model_validator(mode="after")
    def _has_a_term(self) -> "Loss":
        if not self.weights:
            names = ", ".join(self.registry)
            raise ValueError(f"the loss has no term: raise one of loss.{{{names}}} above 0")
        return self


class Optim(Section):
    """The optimiser and the course of its learning rate."""

    name: Annotated[str, OneOf(OPTIMISERS)] = Field(
        description="optimiser; sgd is with Nesterov momentum 0.99"
    )
    lr: PositiveFloat = Field(description="highest learning rate")
    weight_decay: NonNegativeFloat = Field(description="decay of convolution weights")
    schedule: Literal["cosine", "poly", "constant"] = Field(
        description="course of the learning rate over the budget"
    )
    warmup: float = Field(
        ge=0, lt=1, description="share of the budget in which the learning rate rises to lr"
    )
    clip: PositiveFloat | None = Field(
        description="gradients are scaled down to this norm; null = never"
    )
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        description="decay per step of a running mean of the weights, which is what is validated "
        "and kept; null = the weights themselves"
    )


class Train(Scoring):
    """All options of `train.py`."""

    name: str = Field(
        pattern=r"^[\w][\w.\-]*$", description="name of the run: its folder is runs/NAME/DATE_TIME"
    )
    seed: NonNegativeInt = Field(description="seed of weights, patches and augmentation")
    mode: Literal["train", "crossval", "doctor", "describe"] = Field(
        description="crossval = train all folds, then score and post-process all cases by the "
        "network that has not seen them; "
        "doctor = only look through the dataset and say what is wrong with each case; "
        "describe = print and draw the network, and stop before training"
    )
    extensions: Annotated[Extensions, Was([])] = Field(description=EXTENSIONS_HELP)
    fix: Path | None = Field(
        description="mode=doctor: new folder for a repaired copy of the dataset"
    )
    resume: Path | None = Field(description="folder of a run to go on with, where it stopped")
    resume_changed: Annotated[bool, Was(False)] = Field(
        description="with resume: go on though cases were added, changed or removed since the run "
        "began; the split stays, and new cases train"
    )
    init: Annotated[InitOptions, Was(NOTHING)]
    data: DataChoice
    plan: PlanOptions
    model: ModelChoice
    augment: Augment
    loss: Loss
    optim: Optim
    trainer: TrainerOptions
    logger: LoggerChoice
    comparison: ComparisonOptions
    page: RunPageOptions
    verbose: bool = Field(description="say more in the terminal; train.log has it all in any case")

    @field_validator("resume")
    @classmethod
    def _is_a_run(cls, folder: Path | None) -> Path | None:
        if folder is not None and not (folder / "config.yaml").is_file():
            raise ValueError(f"{folder} is not the folder of a run: it holds no config.yaml")
        if folder is not None and not (folder / "checkpoints" / "last.ckpt").is_file():
            raise ValueError(
                f"{folder} stopped before its first epoch ended: it holds no checkpoints/last.ckpt"
            )
        return folder

    @model_validator(mode="after")
    def _crossval_has_all_folds(self) -> "Train":
        if self.mode == "crossval" and self.data.fold is not None:
            raise ValueError("data.fold is one fold, but mode=crossval trains all data.folds")
        if self.mode == "crossval" and self.resume is not None:
            raise ValueError(
                "resume is for one run; mode=crossval goes on in its folder: hydra.run.dir=FOLDER"
            )
        return self

    @model_validator(mode="after")
    def _can_be_recomputed(self) -> "Train":
        if not self.trainer.recompute:
            return self
        if not isinstance(self.model, Model):
            raise ValueError("trainer.recompute is for network=unet")
        if self.model.norm == "batch":
            raise ValueError(
                "trainer.recompute would count each batch twice in the means of model.norm=batch: "
                "use model.norm=instance"
            )
        return self

    @model_validator(mode="after")
    def _doctor_fixes(self) -> "Train":
        if self.fix is not None and self.mode != "doctor":
            raise ValueError("fix needs mode=doctor: a training never changes a dataset")
        return self

    @model_validator(mode="after")
    def _patch_fits_network(self) -> "Train":
        patch, dims = self.plan.patch, self.model.dims
        if self.init.checkpoint is not None:  # the network is that of the checkpoint
            return self
        if patch is not None and len(patch) != dims:
            raise ValueError(
                f"plan.patch has {len(patch)} entries, but model.dims is {dims}: give {dims}"
            )
        return self

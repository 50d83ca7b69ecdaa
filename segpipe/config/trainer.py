"""The options of the trainer: `conf/trainer/*.yaml` holds their values."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from segpipe.config.device import DEVICE_HELP, Device
from segpipe.config.duration import Duration
from segpipe.config.section import Section, Unit, Was

Precision = Literal["auto", "float32", "bf16", "fp16"]


class TrainerOptions(Section):
    """Budget, device, number format and validations."""

    max_time: Duration | None = Field(description="budget of wall time; the schedule fits it")
    max_steps: Annotated[PositiveInt | None, Unit("optimiser steps")] = Field(
        description="budget in steps"
    )
    max_epochs: Annotated[PositiveInt | None, Unit("epochs")] = Field(
        description="budget in epochs"
    )
    default_time: Duration = Field(
        description="budget of wall time where none of the three above is given"
    )
    steps_per_epoch: Annotated[PositiveInt, Unit("optimiser steps")] = Field(
        description="steps that are called an epoch"
    )
    validations: PositiveInt = Field(
        description="how often whole scans are validated over the budget, the end included"
    )
    patience: Annotated[PositiveInt | None, Unit("validations"), Was(None)] = Field(
        description="end after so many without a better mean Dice; null = at the end of the budget"
    )
    checkpoint_every: Annotated[Duration | None, Was(None)] = Field(
        description="least time between two writings of last.ckpt, each after an epoch; null = so "
        "that writing takes a twentieth of the time at most"
    )
    postprocess: Annotated[bool, Was(False)] = Field(
        description="at the end, choose thresholds, largest parts and smallest volumes per label, "
        "and the temperature of probabilities, on the validation cases where they help, and store "
        "them in best.ckpt for predict.py"
    )
    quality: Annotated[bool, Was(False)] = Field(
        description="at the end, learn on the validation cases, and on copies of them that are "
        "made worse, to predict the Dice of a mask, and store that in best.ckpt for predict.py"
    )
    accumulate: Annotated[PositiveInt | None, Unit("parts"), Was(1)] = Field(
        description="parts of plan.batch that are computed one after another, and their gradients "
        "added: less memory, and a Dice of each part; null = 1, or as many as the memory asks for"
    )
    recompute: Annotated[bool | None, Was(False)] = Field(
        description="compute the activations of a U-Net again for the backward pass rather than "
        "keep them: less memory, one more forward pass; null = where the memory asks for it"
    )
    masks: Annotated[bool, Was(False)] = Field(
        description="at the end, write the masks of the validation cases by the best checkpoint, "
        "without post-processing, to masks/; mode=crossval always does"
    )
    gradient_flow: bool = Field(
        description="measure gradient and step of each layer, relative to its weights: "
        "gradient_flow.csv and .png"
    )
    device: Device = Field(description=DEVICE_HELP)
    devices: Annotated[PositiveInt | Literal["all"], Was(1)] = Field(
        description="devices of a machine that train one network together, each with its share of "
        "plan.batch: so many GPUs, or processes of the CPU; all = all its GPUs"
    )
    nodes: Annotated[PositiveInt, Unit("machines"), Was(1)] = Field(
        description="that train one network together; srun or torchrun starts it on each"
    )
    precision: Precision = Field(
        description="auto = bf16 where the device computes it faster, else fp16 on a GPU with "
        "tensor cores, else float32"
    )

    @property
    def wall_time(self) -> Duration | None:
        """The budget of wall time; None where it is of steps or epochs alone."""
        if self.max_time is None and self.max_steps is None and self.max_epochs is None:
            return self.default_time
        return self.max_time

    @model_validator(mode="after")
    def _devices_are_the_first(self) -> "TrainerOptions":
        if ":" in self.device and (self.devices != 1 or self.nodes > 1):
            raise ValueError(
                f"trainer.device={self.device} is one device, but trainer.devices={self.devices} "
                f"trainer.nodes={self.nodes} asks for several: use trainer.device=cuda"
            )
        return self

    @model_validator(mode="after")
    def _parts_are_of_one_device(self) -> "TrainerOptions":
        if self.accumulate not in (None, 1) and (self.devices != 1 or self.nodes > 1):
            raise ValueError(
                f"trainer.accumulate={self.accumulate} is for one device: with several, each has "
                "its share of plan.batch already"
            )
        return self

"""How cases become what the network sees; a plan is made once and stored in every checkpoint."""

from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveInt, field_validator

from segpipe.axes import Axes, Axis, Frame, Slices
from segpipe.config.data import NaNPolicy
from segpipe.config.section import Was
from segpipe.config.train import Normalise
from segpipe.units import UnitName

Rules = Literal["segpipe", "nnunet"]
ANISOTROPIC = 3.0  # a volume whose spacings differ by a larger factor is treated in-plane first
# voxels that a training step, or a batch of windows, holds; by device and number of network axes
BATCH_VOXELS = {
    ("cpu", 2): 4 * 128**2,
    ("cpu", 3): 2 * 40**3,
    ("cuda", 2): 12 * 512**2,
    ("cuda", 3): 2 * 128**3,
}


def network_axes(slice_axis: int | None) -> list[int]:
    """Return the axes that a network sees: all but the one across which slices are cut."""
    return [axis for axis in range(3) if axis != slice_axis]


class Plan(BaseModel):
    """How cases become what the network sees, and why.

    Attributes:
        channels: names of the image channels.
        labels: name -> id on disk; the index of a label is its position in this order.
        spacing_mm: voxel size of model space along its axes, which are those of RAS+ unless
            `slices` or `frame` says otherwise; None keeps the scan's own.
        averages: whether voxels are averaged along axes that become more than twice as coarse.
        regions: name -> label indices, outermost first; None where labels exclude one another.
        paint: region name -> the label index by which a mask shows it; None where labels exclude
            one another, and in plans of before there was a choice.
        ignore: id on disk of voxels that nobody has annotated; None where there are none.
        patch: size in voxels along the axes of model space, 1 along `slice_axis`.
        batch: patches per step.
        slice_axis: axis of model space that a 2D network does not see; None for a 3D network.
        slices: the axis of a scan that becomes the slice axis, as `Planes` has it.
        frame: directions in RAS+ to which a scan's axes are matched; None: RAS+ itself.
        axes: `ras`: model space has the axes of RAS+, or of `slices` and `frame`; `file`: those
            that a scan's file has, whatever their directions.
        rules: how an image is brought to model space and covered with windows, and labels decided.
            `segpipe`: resampled linearly, then normalised; probabilities are interpolated.
            `nnunet`: cropped to what is not 0, normalised, and resampled by cubic splines, a coarse
            axis apart (`nnunet_rules.py`); logits are interpolated and averaged. `zscore_nonzero`
            is then over all that some channel has, holes filled.
        mirror_axes: axes of model space along which the network was trained with mirror images;
            `predict.py mirror_axes=checkpoint` takes them.
        strides: the stride of each downsampling, finest first, one entry for each axis that the
            network sees.
        kernels: the kernel of each level, finest first, one entry for each axis that the network
            sees.
        normalise: per channel how its intensities are brought to a common scale.
        foreground: per channel the 0.5 and 99.5 percentiles, mean and standard deviation of the
            labelled voxels.
        nan: what becomes of voxels that are NaN or infinite when a scan is read.
        unit: the unit of `spacing_mm`, and of all lengths and volumes that are shown: `px2` and
            `px3` where the cases are images and stacks without millimetres.
        widths: channels of the network per level, finest first, where they were left to the plan;
            None where `model.channels` gave them.
        parts: into which a step's batch is divided; they are computed one after another, and their
            gradients added.
        recompute: whether the activations inside the stages of a U-Net are computed again for the
            backward pass rather than kept.
        reasons: a line per entry, `entry value: why`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: list[str]
    labels: dict[str, int]
    spacing_mm: list[float | None]
    averages: Annotated[bool, Was(False)]
    regions: dict[str, list[int]] | None
    paint: Annotated[dict[str, int] | None, Was(None)] = None
    ignore: int | None
    patch: list[int]
    batch: int
    slice_axis: Axis | None
    slices: Annotated[Slices, Was("plan")]
    frame: Annotated[Frame | None, Was(None)]
    axes: Annotated[Axes, Was("ras")] = "ras"
    rules: Annotated[Rules, Was("segpipe")] = "segpipe"
    mirror_axes: Annotated[list[Axis], Was([])] = []
    strides: list[list[int]]
    kernels: list[list[int]]
    normalise: list[Normalise]
    foreground: list[tuple[float, float, float, float]]
    nan: Annotated[NaNPolicy, Was("refuse")]
    unit: Annotated[UnitName, Was("mm")]
    widths: Annotated[list[PositiveInt] | None, Was(None)] = None
    parts: Annotated[PositiveInt, Was(1)] = 1
    recompute: Annotated[bool, Was(False)] = False
    reasons: list[str]

    @field_validator("frame")
    @classmethod
    def _is_perpendicular(cls, frame: Frame | None) -> Frame | None:
        if frame is not None and not np.allclose(
            np.array(frame) @ np.transpose(frame), np.eye(3), atol=1e-3
        ):
            raise ValueError("its three directions are not perpendicular, of length 1")
        return frame

    @property
    def outputs(self) -> int:
        """Logits per voxel: one per label, background included, or one per region."""
        return len(self.regions or self.labels)

    @property
    def targets(self) -> dict[str, list[int]]:
        """What is scored, name -> label indices: the regions, or else each label alone."""
        if self.regions:
            return self.regions
        return {name: [index] for index, name in enumerate(self.labels) if index > 0}

    @property
    def dims(self) -> int:
        """Number of axes that the network sees: 2 for slices, 3 for volumes."""
        return len(self.network_axes)

    @property
    def network_axes(self) -> list[int]:
        """Axes of model space that the network sees."""
        return network_axes(self.slice_axis)

    @property
    def network_patch(self) -> list[int]:
        """Patch size in voxels along the axes that the network sees."""
        return [self.patch[axis] for axis in self.network_axes]

    @property
    def label_names(self) -> list[str]:
        """Names of the labels without the background."""
        return list(self.labels)[1:]

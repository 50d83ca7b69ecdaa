"""How cases become what the network sees; a plan is made once and stored in every checkpoint."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from segpipe.config.train import Normalise

ANISOTROPIC = 3.0  # a volume whose spacings differ more than this is treated in-plane first
# voxels that a training step, or a batch of windows, holds; by device and network axes
BATCH_VOXELS = {
    ("cpu", 2): 4 * 128**2,
    ("cpu", 3): 2 * 40**3,
    ("cuda", 2): 12 * 512**2,
    ("cuda", 3): 2 * 128**3,
}


class Plan(BaseModel):
    """How cases become what the network sees; stored in every checkpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: list[str]
    labels: dict[str, int]  # name -> id on disk; the place in this order is the id inside
    spacing_mm: list[float | None]  # None keeps the scan's own
    regions: (
        dict[str, list[int]] | None
    )  # name -> ids inside, outermost first; None: labels exclude one another
    ignore: int | None  # id on disk of voxels that nobody has looked at
    patch: list[int]  # three axes, 1 along slice_axis
    batch: int
    slice_axis: Literal[0, 1, 2] | None  # None: the network sees volumes
    strides: list[list[int]]  # per downsampling, the network's axes
    kernels: list[list[int]]  # per level, the network's axes
    normalise: list[Normalise]  # per channel
    foreground: list[tuple[float, float, float, float]]  # as in Fingerprint
    reasons: list[str]

    @property
    def outputs(self) -> int:
        """Logits that the network gives per voxel: one per label, background included, or one per region."""
        return len(self.regions or self.labels)

    @property
    def targets(self) -> dict[str, list[int]]:
        """What is scored: the regions, or else the labels but the background; name -> ids inside."""
        return self.regions or {name: [place] for place, name in enumerate(self.labels) if place}

    @property
    def dims(self) -> int:
        """Axes that the network sees: 2 for slices, 3 for volumes."""
        return 3 if self.slice_axis is None else 2

    @property
    def network_axes(self) -> list[int]:
        """Axes of RAS+ that the network sees."""
        return [axis for axis in range(3) if axis != self.slice_axis]

    @property
    def network_patch(self) -> list[int]:
        """Patch size in voxels along the axes that the network sees."""
        return [self.patch[axis] for axis in self.network_axes]

    @property
    def label_names(self) -> list[str]:
        """Names of the labels without the background."""
        return list(self.labels)[1:]

"""Patch and batch: how many voxels a training step holds, and how they are spread."""

from dataclasses import dataclass

import numpy as np

from segpipe.config.train import Train
from segpipe.errors import ConfigError
from segpipe.plan import BATCH_VOXELS
from segpipe.planning.capacity import Capacity
from segpipe.planning.decision import GIVEN, Decision, by_times
from segpipe.planning.patch_size import round_up

# voxels of a patch, by device and number of network axes
PATCH_VOXELS = {("cpu", 2): 128**2, ("cpu", 3): 40**3, ("cuda", 2): 512**2, ("cuda", 3): 128**3}
SMALLEST_BATCH = 2
LARGEST_BATCH = 16


@dataclass(frozen=True)
class Room:
    """What there is room for on a device.

    Attributes:
        device: `cpu` or `cuda`.
        scale: fraction of the usual voxels per step.
        capacity: what the network may be; None where its channels are given.
    """

    device: str
    scale: float
    capacity: Capacity | None

    def patch_voxels(self, axes: int) -> float:
        """Return the voxels of a patch, of a network that sees so many axes."""
        return self.scale * self._growth**0.5 * PATCH_VOXELS[self.device, axes]

    def batch_voxels(self, axes: int) -> float:
        """Return the voxels of a step."""
        return self.scale * self._growth * BATCH_VOXELS[self.device, axes]

    @property
    def largest_batch(self) -> int:
        """The most patches of a step."""
        return int(LARGEST_BATCH * self._growth**0.5)

    @property
    def _growth(self) -> float:
        return 1.0 if self.capacity is None else self.capacity.growth


def at_least(size: list[int], strides: list[list[int]], options: Train) -> list[int]:
    """Return a derived patch of two voxels or more at the coarsest level, which a norm needs."""
    if options.plan.patch is not None:
        return size
    steps = np.prod(strides, axis=0).tolist()
    return [
        max(edge, 2 * step) if step > 1 else edge for edge, step in zip(size, steps, strict=True)
    ]


def decide_patch(
    options: Train,
    size: list[int],
    strides: list[list[int]],
    axes: list[int],
    median: list[int],
    device: str,
) -> Decision[list[int]]:
    """Return the patch size in voxels along all three axes, 1 along a slice axis.

    A derived size is rounded up to what the network's levels can halve.

    Raises:
        ConfigError: if a given size cannot be halved.
    """
    given = options.plan.patch is not None
    steps = np.prod(strides, axis=0).tolist()
    rounded = round_up(size, strides)
    patch = [1, 1, 1]
    for entry, axis in enumerate(axes):
        step = steps[entry]
        above = rounded[entry]
        if given and above != size[entry]:
            raise ConfigError(
                f"plan.patch entry {entry} is {size[entry]}, which the network's levels cannot "
                f"halve to whole voxels (it needs a multiple of {step}): use "
                f"{max(step, above - step)} or {above}, or fewer levels"
            )
        patch[axis] = above
    why = GIVEN if given else f"of a median case of {by_times(median)} voxels, for {device}"
    return Decision(patch, f"patch {by_times(patch)}", why)


def decide_batch(options: Train, patch: list[int], room: Room, smallest: int) -> Decision[int]:
    """Return the number of patches per step, `smallest` or more."""
    given = options.plan.batch
    if given is not None:
        return Decision(given, f"batch {given}", GIVEN)
    voxels = int(room.batch_voxels(options.model.dims))
    batch = int(np.clip(voxels // np.prod(patch), smallest, room.largest_batch))
    return Decision(batch, f"batch {batch}", f"about {voxels} voxels a step, for {room.device}")

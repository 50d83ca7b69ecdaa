"""How sure a network is of each target, and what it sees there, added up as slabs pass by."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from segpipe.nets.ensemble import Agreement

TAKEN = 0.5  # probability from which a voxel belongs to a region


class Confidence:
    """Sums over the voxels of model space, one row for each target that the network has.

    Args:
        image: `(c, x, y, z)` in model space, as the network sees it.
        axis: the axis of model space along which the slabs follow one another.
        exclusive: whether a voxel has one label; the first class is then the background.
        agreement: the agreement of the members of an ensemble and of mirrored windows, while it is
            measured; None of one network.
        of_logits: whether the slabs hold logits, not probabilities.

    Attributes:
        sums: a row for each target: voxels that it takes, its probability over the scan, its
            probability over these voxels, and the image over these, a column for each channel.
        agreement: the agreement of the members of an ensemble, and of mirrored windows; None of one
            network.
    """

    def __init__(
        self,
        image: Float[Tensor, "c x y z"],
        axis: int,
        exclusive: bool,
        agreement: Agreement | None = None,
        of_logits: bool = False,
    ) -> None:
        self.of_logits = of_logits
        self.agreement = agreement
        self.image = image
        self.axis = axis
        self.exclusive = exclusive
        self.first = 0
        self.sums: np.ndarray | None = None

    def watch(self, slabs: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the slabs `(k, x, y, z)` again, after adding up what they hold."""
        for slab in slabs:
            rows = slab.shape[self.axis + 1]
            image = self.image.narrow(self.axis + 1, self.first, rows)
            self.first += rows
            sums = self._sums_of(slab, image)
            self.sums = sums if self.sums is None else self.sums + sums
            yield slab
        self.image = self.image.new_zeros(0)  # no longer needed

    def _sums_of(self, slab: Tensor, image: Tensor) -> np.ndarray:
        """Return a row for each target: voxels, both sums of probability, sums of intensity."""
        if self.of_logits:
            slab = torch.softmax(slab, 0) if self.exclusive else torch.sigmoid(slab)
        probability = slab[1:] if self.exclusive else slab
        taken = probability == slab.amax(0) if self.exclusive else probability > TAKEN
        inside = taken.to(slab.dtype).flatten(1)
        flat = probability.flatten(1)
        columns = [inside.sum(1), flat.sum(1), (inside * flat).sum(1)]
        columns += (inside @ image.to(slab.dtype).flatten(1).T).unbind(1)
        return torch.stack(columns, 1).double().cpu().numpy()

    @property
    def disagreement(self) -> list[float]:
        """Return for each target 1 minus the Dice of single predictions with their mean."""
        return [] if self.agreement is None else [1 - dice for dice in self.agreement.dice]

    @property
    def unsureness(self) -> list[float]:
        """Return for each target 1 minus its expected Dice; NaN where nothing speaks for it.

        The expected Dice of a mask is 2 p(mask) / (p(scan) + voxels), where p sums probabilities.
        """
        if self.sums is None:
            return []
        voxels, probability, inside = self.sums[:, :3].T
        total = voxels + probability
        with np.errstate(invalid="ignore"):
            unsure = np.where(total >= 1, 1 - 2 * inside / total, np.nan)
        return unsure.tolist()

    @property
    def intensities(self) -> list[Sequence[float]]:
        """Return for each target the mean of each channel inside it; NaN where it is empty."""
        if self.sums is None:
            return []
        with np.errstate(invalid="ignore", divide="ignore"):
            means = self.sums[:, 3:] / self.sums[:, :1]
        return means.tolist()

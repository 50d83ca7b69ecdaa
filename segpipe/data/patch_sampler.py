"""A patch is cut from a prepared case: where, and what it holds there."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.nn.functional import pad


class PatchSampler:
    """Prepared case -> patch, centred on a voxel of a label that is drawn; inside the case, or around a smaller one.

    Draws and gives what MONAI's `RandCropByLabelClassesd` and `SpatialPadd` do, in one copy.

    Args:
        size: of the patch in voxels.
        shares: of the patches, how many are centred on a voxel of each label, with the background. A label that a case
            does not hold leaves its share to the others.
    """

    def __init__(self, size: Sequence[int], shares: Sequence[float]) -> None:
        self.size, self.shares, self.rng = size, shares, np.random.RandomState(0)

    def __call__(
        self, image: Tensor, label: Tensor, indices: Sequence[np.ndarray], seed: int
    ) -> dict[str, Tensor]:
        """The patch: `image` `(c, *size)` and `label` `(1, *size)`, 0 outside of the case.

        Args:
            image: `(c, x, y, z)`.
            label: `(1, x, y, z)`.
            indices: per label the flat places of its voxels.
            seed: decides the place.
        """
        self.rng.seed(seed)
        edges = tuple(label.shape[1:])
        centre = np.unravel_index(self._drawn(indices, label.numel()), edges)
        inside, rims = [slice(None)], []
        for at, edge, size in zip(centre, edges, self.size, strict=True):
            start, short = (
                min(max(int(at) - size // 2, 0), max(edge - size, 0)),
                max(size - edge, 0),
            )
            inside.append(slice(start, start + size))
            rims = [short // 2, short - short // 2, *rims]  # `pad` wants the last axis first
        return {
            name: pad(whole[tuple(inside)], rims)
            for name, whole in (("image", image), ("label", label))
        }

    def _drawn(self, indices: Sequence[np.ndarray], voxels: int) -> int:
        shares = np.array(
            [share * (len(places) > 0) for share, places in zip(self.shares, indices, strict=True)]
        )
        if not shares.any():  # nothing that patches are centred on: anywhere, then
            return self.rng.randint(voxels)
        places = indices[self.rng.choice(len(shares), p=shares / shares.sum())]
        return int(places[self.rng.randint(len(places))])

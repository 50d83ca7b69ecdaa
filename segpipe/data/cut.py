"""A patch is cut from a prepared case: where, and what it holds there."""

from collections.abc import Sequence

import numpy as np
import torch
from monai.transforms.transform import Randomizable
from torch import Tensor


class Cut(Randomizable):
    """Prepared case -> patch, centred on a voxel of a label that is drawn; inside the case, or around a smaller one.

    Draws and gives what MONAI's `RandCropByLabelClassesd` and `SpatialPadd` do, in one copy.

    Args:
        size: of the patch in voxels.
        shares: of the patches, how many are centred on a voxel of each label, with the background. A label that a case
            does not hold leaves its share to the others.
    """

    def __init__(self, size: Sequence[int], shares: Sequence[float]) -> None:
        self.size, self.shares = size, shares
        self.R = np.random.RandomState(0)

    def __call__(self, image: Tensor, label: Tensor, indices: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """The patch: `image` `(c, *size)` and `label` `(1, *size)`, 0 outside of the case.

        Args:
            image: `(c, x, y, z)`.
            label: `(1, x, y, z)`.
            indices: per label the flat places of its voxels.
        """
        edges = tuple(label.shape[1:])
        centre = np.unravel_index(self._drawn(indices, label.numel()), edges)
        source, target = [slice(None)], [slice(None)]
        for at, edge, size in zip(centre, edges, self.size, strict=True):
            start, before = min(max(int(at) - size // 2, 0), max(edge - size, 0)), max(size - edge, 0) // 2
            source.append(slice(start, start + min(size, edge)))
            target.append(slice(before, before + min(size, edge)))
        patch = {"image": torch.zeros(len(image), *self.size), "label": torch.zeros(1, *self.size, dtype=label.dtype)}
        for name, whole in (("image", image), ("label", label)):
            patch[name][tuple(target)] = whole[tuple(source)]
        return patch

    def _drawn(self, indices: Sequence[np.ndarray], voxels: int) -> int:
        shares = np.array([share * (len(places) > 0) for share, places in zip(self.shares, indices, strict=True)])
        if not shares.any():  # nothing that patches are centred on: anywhere, then
            return self.R.randint(voxels)
        places = indices[self.R.choice(len(shares), p=shares / shares.sum())]
        return int(places[self.R.randint(len(places))])

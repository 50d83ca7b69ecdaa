"""Cut a patch from a prepared case at a random position."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.nn.functional import pad


class PatchSampler:
    """Cuts patches that are centred on a voxel of a randomly drawn label.

    A patch lies inside the case, or around a case that is smaller. The draws and the result are
    those of MONAI's `RandCropByLabelClassesd` followed by `SpatialPadd`, in a single copy.

    Args:
        size: the size of the patch in voxels, three axes.
        shares: share of patches that are centred on a voxel of each label, background first. The
            share of a label that a case does not hold goes to the others.
    """

    def __init__(self, size: Sequence[int], shares: Sequence[float]) -> None:
        self.size = size
        self.shares = shares
        self.rng = np.random.RandomState(0)

    def __call__(
        self, image: Tensor, label: Tensor, indices: Sequence[np.ndarray], seed: int
    ) -> dict[str, Tensor]:
        """Cut a patch.

        Args:
            image: shape `(c, x, y, z)`.
            label: shape `(1, x, y, z)`.
            indices: per label the flat indices of its voxels.
            seed: the seed of the position.

        Returns:
            `image`, shape `(c, *size)`, and `label`, shape `(1, *size)`, both 0 outside of the
            case.
        """
        self.rng.seed(seed)
        case_shape = tuple(label.shape[1:])
        centre = np.unravel_index(self._draw_centre(indices, label.numel()), case_shape)
        region = [slice(None)]
        margins: list[int] = []
        for position, edge, size in zip(centre, case_shape, self.size, strict=True):
            last_start = max(edge - size, 0)
            start = min(max(int(position) - size // 2, 0), last_start)
            region.append(slice(start, start + size))
            missing = max(size - edge, 0)
            # `pad` takes the last axis first
            margins = [missing // 2, missing - missing // 2, *margins]
        return {
            "image": pad(image[tuple(region)], margins),
            "label": pad(label[tuple(region)], margins),
        }

    def _draw_centre(self, indices: Sequence[np.ndarray], voxels: int) -> int:
        """Draw the flat index of the voxel on which the patch is centred."""
        is_present = np.array([len(voxels_of_label) > 0 for voxels_of_label in indices])
        shares = np.array(self.shares) * is_present
        if not shares.any():  # the case holds no label on which patches are centred
            return self.rng.randint(voxels)
        candidates = indices[self.rng.choice(len(shares), p=shares / shares.sum())]
        return int(candidates[self.rng.randint(len(candidates))])

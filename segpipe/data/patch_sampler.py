"""Cut a patch from a prepared case at a random position."""

import math
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
        case_shape = tuple(label.shape[1:])
        region = [slice(None)]
        margins: list[int] = []
        starts = self._draw_start(case_shape, indices, seed)
        for start, edge, size in zip(starts, case_shape, self.size, strict=True):
            region.append(slice(start, start + size))
            missing = max(size - edge, 0)
            # `pad` takes the last axis first
            margins = [missing // 2, missing - missing // 2, *margins]
        return {
            "image": pad(image[tuple(region)], margins),
            "label": pad(label[tuple(region)], margins),
        }

    def shown(
        self, case_shape: tuple[int, ...], indices: Sequence[np.ndarray], seed: int
    ) -> list[float]:
        """Return the share of its voxels that a patch shows of each label that the case holds.

        Args:
            case_shape: voxels along three axes.
            indices: per label the flat indices of its voxels, background first, which is left out.
            seed: the seed of the position.
        """
        start = np.array(self._draw_start(case_shape, indices, seed))
        shares = []
        for voxels in indices[1:]:
            if len(voxels) > 0:
                inside = np.column_stack(np.unravel_index(voxels, case_shape)) - start
                is_shown = ((inside >= 0) & (inside < self.size)).all(axis=1)
                shares.append(float(is_shown.mean()))
        return shares

    def _draw_start(
        self, case_shape: tuple[int, ...], indices: Sequence[np.ndarray], seed: int
    ) -> list[int]:
        """Draw the first voxel of a patch along each axis."""
        self.rng.seed(seed)
        centre = self._draw_centre(indices, math.prod(case_shape))
        starts = []
        for position, edge, size in zip(
            np.unravel_index(centre, case_shape), case_shape, self.size, strict=True
        ):
            last_start = max(edge - size, 0)
            starts.append(min(max(int(position) - size // 2, 0), last_start))
        return starts

    def _draw_centre(self, indices: Sequence[np.ndarray], voxels: int) -> int:
        """Draw the flat index of the voxel on which the patch is centred."""
        is_present = np.array([len(voxels_of_label) > 0 for voxels_of_label in indices])
        shares = np.array(self.shares) * is_present
        if not shares.any():  # the case holds no label on which patches are centred
            return self.rng.randint(voxels)
        candidates = indices[self.rng.choice(len(shares), p=shares / shares.sum())]
        return int(candidates[self.rng.randint(len(candidates))])

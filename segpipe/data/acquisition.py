"""Random faults of the acquisition: a bias field, ghosts, and a channel that is missing.

Each is drawn on the host and applied on the device that holds the patch, which the host never waits
for.
"""

import numpy as np
import torch
from torch import Tensor

from segpipe.data.image_change import RandImageChange
from segpipe.device import to_device

DEGREE = 3  # of the polynomial of a bias field


class RandBiasFieldd(RandImageChange):
    """Multiplies `image` by a smooth field, as the coils of an MR scanner do (Van Leemput 1999).

    The field is the exponential of a polynomial of degree 3 in the position. What it multiplies is
    the distance from the smallest value, which stands for air; mean and standard deviation of each
    channel stay the same, as the normalisation of a whole scan would keep them.

    Args:
        prob: probability of any field.
        largest: coefficients are drawn from minus this to this; positions go from -1 to 1.
    """

    def __init__(self, prob: float, largest: float) -> None:
        super().__init__(prob)
        self.largest = largest

    def change(self, image: Tensor) -> Tensor:
        """Return the image multiplied by a field."""
        shape = (DEGREE + 1,) * 3
        coefficients = self.R.uniform(-self.largest, self.largest, shape)
        coefficients[np.indices(shape).sum(0) > DEGREE] = 0
        exponent = to_device(torch.from_numpy(coefficients).float(), image.device)
        for edge in image.shape[1:]:  # each time the first axis of powers becomes the last of space
            powers = to_device(_powers(edge), image.device)
            exponent = torch.einsum("i...,ij->...j", exponent, powers)
        axes = (1, 2, 3)
        lowest = image.amin(axes, keepdim=True)
        changed = (image - lowest) * exponent.exp()
        changed = changed - changed.mean(axes, keepdim=True)
        scale = image.std(axes, keepdim=True) / (changed.std(axes, keepdim=True) + 1e-8)
        return changed * scale + image.mean(axes, keepdim=True)


def _powers(edge: int) -> Tensor:
    """Return the powers 0 to `DEGREE` of the positions along an axis, shape `(DEGREE + 1, edge)`.

    An axis of one voxel lies at 0.
    """
    positions = np.linspace(-1, 1, edge) if edge > 1 else np.zeros(1)
    powers = np.vander(positions, DEGREE + 1, increasing=True).T
    return torch.from_numpy(np.ascontiguousarray(powers)).float()


class RandGhostd(RandImageChange):
    """Adds ghosts to `image`: fainter copies along an axis, as a moving patient leaves in MR.

    Every n-th line of the spectrum along the axis is weakened, but not the mean.

    Args:
        prob: probability of any ghosts.
        copies: smallest and largest number of copies.
        strengths: smallest and largest share of a weakened line that is lost.
    """

    def __init__(
        self, prob: float, copies: tuple[int, int], strengths: tuple[float, float]
    ) -> None:
        super().__init__(prob)
        self.copies = copies
        self.strengths = strengths

    def change(self, image: Tensor) -> Tensor:
        """Return the image with ghosts, if an axis has room for them."""
        smallest, largest = self.copies
        copies = self.R.randint(smallest, largest + 1)
        strength = self.R.uniform(*self.strengths)
        axes = [axis for axis, edge in enumerate(image.shape) if axis > 0 and edge > copies]
        if not axes:
            return image
        axis = axes[self.R.randint(len(axes))]
        kept = np.ones(image.shape[axis], dtype=np.float32)
        frequencies = np.round(np.fft.fftfreq(len(kept), 1 / len(kept))).astype(int)
        kept[(frequencies % copies == 0) & (frequencies != 0)] = 1 - strength
        shape = [1] * image.ndim
        shape[axis] = len(kept)
        weights = to_device(torch.from_numpy(kept), image.device).view(shape)
        spectrum = torch.fft.fft(image, dim=axis) * weights
        return torch.fft.ifft(spectrum, dim=axis).real


class RandMissingChanneld(RandImageChange):
    """Sets one channel of `image` to 0, as a scan has it whose channel is a constant.

    An image of one channel stays as it is.

    Args:
        prob: probability that a channel is missing.
    """

    def change(self, image: Tensor) -> Tensor:
        """Return the image with one channel less."""
        if len(image) == 1:
            return image
        kept = torch.ones(len(image), 1, 1, 1)
        kept[self.R.randint(len(image))] = 0
        return image * to_device(kept, image.device)

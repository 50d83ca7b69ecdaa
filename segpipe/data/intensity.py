"""Random changes of intensity, each registered by the key of `augment` that holds its probability.

Strengths are those of nnU-Net (Isensee 2021) where `conf/augment/*.yaml` does not say otherwise.
The transforms are MONAI's except for two that took most of the time, `RandNoised` and `RandBlurd`
(`benchmarks/augment.py`), `RandGammad`, whose own waits for a GPU, and those of `acquisition.py`.
"""

import torch
from monai.networks.layers.convutils import gaussian_1d
from monai.transforms.intensity.dictionary import (
    RandScaleIntensityd,
    RandScaleIntensityFixedMeand,
)
from monai.transforms.spatial.dictionary import RandSimulateLowResolutiond
from monai.transforms.transform import MapTransform
from torch import Tensor

from segpipe.data.acquisition import RandBiasFieldd, RandGhostd, RandMissingChanneld
from segpipe.data.image_change import RandImageChange
from segpipe.device import to_device
from segpipe.registry import AUGMENTATIONS


@AUGMENTATIONS.register("noise", help="Gaussian noise")
def noise(probability: float) -> MapTransform:
    """Add noise whose standard deviation is drawn from 0 to 0.3."""
    return RandNoised(probability, 0.3)


@AUGMENTATIONS.register("blur", help="Gaussian blur")
def blur(probability: float) -> MapTransform:
    """Blur with a standard deviation drawn from 0.5 to 1 voxels, for each axis anew."""
    return RandBlurd(probability, (0.5, 1.0))


@AUGMENTATIONS.register("brightness", help="a multiplied brightness")
def brightness(probability: float) -> MapTransform:
    """Multiply by a factor drawn from 0.75 to 1.25."""
    return RandScaleIntensityd("image", 0.25, prob=probability)


@AUGMENTATIONS.register("contrast", help="a stretched or squeezed contrast")
def contrast(probability: float) -> MapTransform:
    """Multiply the distance from the mean by 0.75 to 1.25; the range of values stays the same."""
    return RandScaleIntensityFixedMeand(
        "image", (-0.25, 0.25), prob=probability, preserve_range=True
    )


@AUGMENTATIONS.register("low_resolution", help="a simulated coarser scan")
def low_resolution(probability: float) -> MapTransform:
    """Sample at 0.5 to 1 times the resolution, and interpolate back."""
    return RandSimulateLowResolutiond("image", prob=probability, zoom_range=(0.5, 1.0))


@AUGMENTATIONS.register("gamma", help="a gamma curve")
def gamma(probability: float) -> MapTransform:
    """Raise to a power drawn from 0.7 to 1.5; mean and deviation stay the same."""
    return RandGammad(probability, (0.7, 1.5))


@AUGMENTATIONS.register("bias_field", help="a bias field of MR")
def bias_field(probability: float) -> MapTransform:
    """Multiply by a smooth field whose coefficients are drawn from -0.3 to 0.3."""
    return RandBiasFieldd(probability, 0.3)


@AUGMENTATIONS.register("ghosts", help="ghosts of a moving patient, in MR")
def ghosts(probability: float) -> MapTransform:
    """Add 2 to 6 fainter copies along an axis, by weakening lines of the spectrum by 20 to 60 %."""
    return RandGhostd(probability, (2, 6), (0.2, 0.6))


@AUGMENTATIONS.register("missing_channel", help="one of several channels set to 0")
def missing_channel(probability: float) -> MapTransform:
    """Set a channel to 0, as a scan has it in which that channel is a constant."""
    return RandMissingChanneld(probability)


@AUGMENTATIONS.register("colour", help="other colours: channels mixed, scaled and shifted")
def colour(probability: float) -> MapTransform:
    """Add to each channel -0.25 to 0.25 times each channel and of its own deviation."""
    return RandColourd(probability, 0.25)


class RandNoised(RandImageChange):
    """Adds Gaussian noise to `image`, drawn in float32 on the host.

    MONAI's transform draws it in float64, which takes far longer. A GPU would draw other noise from
    the same seed.

    Args:
        prob: probability of any noise.
        largest: the standard deviation is drawn from 0 to this.
    """

    def __init__(self, prob: float, largest: float) -> None:
        super().__init__(prob)
        self.largest = largest

    def change(self, image: Tensor) -> Tensor:
        """Return the image with noise."""
        rng = torch.Generator().manual_seed(int(self.R.randint(2**31)))
        noise = torch.randn(image.shape, generator=rng)
        noise.mul_(self.R.uniform(0, self.largest))
        return to_device(noise, image.device).add_(image)


class RandColourd(RandImageChange):
    """Changes the colours of `image`, as other stains, lamps and cameras do.

    Each channel becomes a sum of all, itself most of all, and is shifted; Tellez 2019 shifts hues
    and stains to the same end. An image of one channel, which has no colour, stays as it is.

    Args:
        prob: probability of any change.
        largest: the share of each channel that is added to each, and the shift in standard
            deviations of a channel, are drawn from minus this to this.
    """

    def __init__(self, prob: float, largest: float) -> None:
        super().__init__(prob)
        self.largest = largest

    def change(self, image: Tensor) -> Tensor:
        """Return the image in other colours."""
        channels = len(image)
        if channels == 1:
            return image
        drawn = self.R.uniform(-self.largest, self.largest, (channels, channels + 1))
        added = to_device(torch.from_numpy(drawn).float(), image.device)
        shift = added[:, -1, None] * image.flatten(1).std(1, keepdim=True)
        changed = image.flatten(1) + added[:, :-1] @ image.flatten(1) + shift
        return changed.view_as(image)


class RandGammad(RandImageChange):
    """Raises `image` to a power; its range, mean and standard deviation stay the same.

    The draws and the result are those of MONAI's `RandAdjustContrastd`, which fetches the range of
    each image from the GPU.

    Args:
        prob: probability of any change.
        powers: smallest and largest power.
    """

    def __init__(self, prob: float, powers: tuple[float, float]) -> None:
        super().__init__(prob)
        self.powers = powers

    def change(self, image: Tensor) -> Tensor:
        """Return the image with other greys."""
        self.R.rand()  # MONAI draws here whether an image is changed, a second time
        power = self.R.uniform(*self.powers)
        lowest = image.min()
        extent = image.max() - lowest
        changed = ((image - lowest) / (extent + 1e-7)) ** power * extent + lowest
        changed = changed - changed.mean()
        changed = changed / (changed.std() + 1e-8)
        return image.std() * changed + image.mean()


class RandBlurd(RandImageChange):
    """Blurs `image` with a Gaussian, by matrix products instead of convolutions.

    Args:
        prob: probability of any blur.
        deviation: smallest and largest standard deviation in voxels; drawn for each axis anew.
    """

    def __init__(self, prob: float, deviation: tuple[float, float]) -> None:
        super().__init__(prob)
        self.deviation = deviation

    def change(self, image: Tensor) -> Tensor:
        """Return the image blurred."""
        blurs = []
        for edge in image.shape[1:]:
            deviation = self.R.uniform(*self.deviation)
            blurs.append(to_device(_blur_matrix(deviation, edge), image.device))
        x, y, z = blurs
        image = y @ (image @ z)
        return (x @ image.flatten(2)).view_as(image)


def _blur_matrix(deviation: float, edge: int) -> Tensor:
    """Return the weight of each voxel along an axis in each blurred one.

    Args:
        deviation: standard deviation in voxels.
        edge: voxels along the axis.

    Returns:
        Shape `(edge, edge)`, symmetric; an axis of a single voxel is not blurred.
    """
    if edge == 1:
        return torch.ones(1, 1)
    kernel = gaussian_1d(torch.tensor(deviation), truncated=4.0, approx="erf")
    radius = len(kernel) // 2
    offsets = torch.arange(edge)[:, None] - torch.arange(edge) + radius
    is_in_kernel = (offsets >= 0) & (offsets < len(kernel))
    return torch.where(is_in_kernel, kernel[offsets.clamp(0, len(kernel) - 1)], 0.0)

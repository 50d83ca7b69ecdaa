"""Grey values of a scan: which value is shown as black, and which as white."""

import math

import numpy as np

AIR_HU = -500  # no other modality has values as low as the air of a CT
SOFT_TISSUE_HU = (-160.0, 240.0)
CONTRAST_SAMPLE = 1_000_000  # voxels of a scan from which its contrast is estimated
LABEL_SAMPLE = 1_000  # labelled voxels among them that suffice


def foreground(prediction: np.ndarray, truth: np.ndarray | None) -> np.ndarray:
    """Return where either mask has a label."""
    return prediction > 0 if truth is None else (prediction > 0) | (truth > 0)


def window(image: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """Return grey values between 0 and 1 in the limits of `contrast`."""
    return to_grey(image, contrast(image, labelled))


def contrast(image: np.ndarray, labelled: np.ndarray) -> tuple[float, float]:
    """Return the values shown as black and as white: the 0.5th and 99.5th percentile.

    For a CT, whose air would take most of that range, return the soft tissue window of -160 to
    240 HU, widened to the labelled voxels (of lung or bone) where they lie outside it.

    Args:
        image: the image of any shape.
        labelled: where a label is, in the same shape.
    """
    step = math.ceil((image.size / CONTRAST_SAMPLE) ** (1 / image.ndim))
    every_nth = (slice(None, None, step),) * image.ndim
    sample = image[every_nth]
    low, high = _percentiles(sample[np.isfinite(sample)], (0.5, 99.5), (0.0, 1.0))
    if low == high:  # nearly all voxels have one value: show the few that differ
        finite = image[np.isfinite(image)]
        low, high = _percentiles(finite, (0.0, 100.0), (0.0, 1.0))
    if low < AIR_HU:
        inside = sample[labelled[every_nth]]
        if inside.size <= LABEL_SAMPLE:
            inside = image[labelled]
        lowest, highest = _percentiles(inside, (5.0, 95.0), SOFT_TISSUE_HU)
        low = min(SOFT_TISSUE_HU[0], lowest)
        high = max(SOFT_TISSUE_HU[1], highest)
    return low, high


def _percentiles(
    values: np.ndarray, percentages: tuple[float, float], default: tuple[float, float]
) -> tuple[float, float]:
    """Return two percentiles, or the default of no values."""
    if not values.size:
        return default
    low, high = np.percentile(values.astype(float), percentages)
    return float(low), float(high)


def to_grey(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Scale values so that the limits become 0 and 1; clip others, and show NaN as black."""
    low, high = limits
    return np.clip((np.nan_to_num(values, nan=low) - low) / ((high - low) or 1), 0, 1)

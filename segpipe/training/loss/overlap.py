"""Terms that compare whole labels, as Dice does."""

from jaxtyping import Float
from monai.losses.dice import GeneralizedDiceLoss
from monai.losses.tversky import TverskyLoss
from torch import Tensor

from segpipe.registry import LOSSES
from segpipe.training.loss.loss_input import LossInput

# MONAI's 1e-5 is as large as what it is added to, which is 1 / voxels of a label
GENERALISED_SMOOTH = 1e-12


@LOSSES.register("tversky", help="Dice in which misses count more than false alarms (Salehi 2017)")
def tversky(batch: LossInput) -> Float[Tensor, ""]:
    """Return 1 minus the mean Tversky index `TP / (TP + alpha FP + beta FN)`, without background.

    Salehi 2017: https://arxiv.org/abs/1706.05721
    """
    compare = TverskyLoss(
        include_background=not batch.exclusive,
        alpha=batch.options.tversky_alpha,
        beta=batch.options.tversky_beta,
        batch=True,
    )
    return compare(batch.probabilities, batch.truth)


@LOSSES.register("generalised_dice", help="one Dice of all labels, rare ones up (Sudre 2017)")
def generalised_dice(batch: LossInput) -> Float[Tensor, ""]:
    """Return 1 minus the Dice of all channels, each weighted by `1 / voxels^2` of its truth.

    The background is a label as any other, as in the paper. A label that no patch of the batch
    holds has the largest weight of the others.

    Sudre 2017: https://arxiv.org/abs/1707.03237
    """
    compare = GeneralizedDiceLoss(
        w_type="square",
        smooth_nr=GENERALISED_SMOOTH,
        smooth_dr=GENERALISED_SMOOTH,
        batch=True,
    )
    return compare(batch.probabilities, batch.truth)

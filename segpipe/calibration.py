"""Temperature scaling: probabilities that say how often they are right (Guo 2017).

Dividing logits by one temperature changes no order, and so no mask: what changes are the
probabilities and the entropy that are saved.
"""

from collections.abc import Iterator, Sequence

from jaxtyping import Float
from torch import Tensor

SMALLEST = 1e-12  # a probability below it counts as this


def tempered(
    classes: Sequence[Float[Tensor, "..."]], temperature: float, exclusive: bool
) -> Iterator[Float[Tensor, "..."]]:
    """Yield the probabilities that logits divided by a temperature have, class by class.

    Args:
        classes: probabilities of each label, the background included, or of each region.
        temperature: the divisor of the logits; above 1 probabilities become less sure, below 1
            more.
        exclusive: whether a voxel has one label (softmax), or may lie in several regions (sigmoid).
    """
    if not exclusive:
        for probability in classes:
            yield probability.clamp(SMALLEST, 1 - 1e-7).logit().div_(temperature).sigmoid_()
        return
    powers = [_power(probability, temperature) for probability in classes]
    total = powers[0].clone()
    for power in powers[1:]:
        total += power
    for power in powers:
        yield power / total


def _power(probability: Tensor, temperature: float) -> Tensor:
    return probability.clamp(min=SMALLEST).pow_(1 / temperature)

"""Windows of nothing but the air around a patient, which a network need not be asked about."""

from collections.abc import Callable
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from segpipe.data.prepare import AIR_HU
from segpipe.errors import ConfigError
from segpipe.plan import Plan

SURE = 20.0  # a logit so far above the others leaves them 2e-9


def should_skip_air(asked: Literal["auto"] | bool, plan: Plan) -> bool:
    """Whether windows of air are skipped: `auto` where all channels are CT and no label lies in air.

    Labels lie in air, as airways do, where the darkest half per cent of what was labelled for training is air.

    Raises:
        ConfigError: if it is asked for, but a channel is not CT, so that it has no Hounsfield units.
    """
    ct = all(how == "ct" for how in plan.normalise)
    if asked is True and not ct:
        raise ConfigError(
            f"skip_air=true needs Hounsfield units, but the network's channels are normalised by "
            f"{', '.join(plan.normalise)}, not ct: use skip_air=auto or false"
        )
    return (
        ct
        and asked is not False
        and (asked is True or all(low > AIR_HU for low, *_ in plan.foreground))
    )


class SkipEmptyWindows:
    """A network that is asked only about windows in which not all is air; the others are certain background.

    Args:
        network: maps `(b, c, *space)` to logits `(b, k, *space)`.
        outputs: logits per voxel.
        exclusive: whether a voxel has just one label, the first of which is the background, or may lie in several
            regions.

    Attributes:
        windows: that were given.
        skipped: of them.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], outputs: int, exclusive: bool) -> None:
        self.network, self.outputs, self.exclusive = network, outputs, exclusive
        self.windows = self.skipped = 0

    def __call__(self, patches: Float[Tensor, "b c *space"]) -> Float[Tensor, "b k *space"]:
        """Logits of windows whose last channel is 0 where there is air, and else 1."""
        seen = patches[:, -1].flatten(1).any(1)
        self.windows += len(seen)
        self.skipped += int((~seen).sum())
        image = patches[:, :-1]
        if seen.all():
            return self.network(image)
        logits = image.new_zeros(len(image), self.outputs, *image.shape[2:])
        if self.exclusive:
            logits[:, 0] = SURE
        else:
            logits -= SURE
        if seen.any():
            logits[seen] = self.network(image[seen]).to(logits)
        return logits

"""Skip windows that hold only the air around a patient."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from segpipe.data.prepare import AIR_HU
from segpipe.errors import ConfigError
from segpipe.plan import Plan

CERTAIN_LOGIT = 20.0  # so far above the others, it leaves them a probability of 2e-9


def should_skip_air(requested: Literal["auto"] | bool, plan: Plan) -> bool:
    """Return whether windows of air are skipped.

    `auto` skips them where all channels are CT and no label lies in air. Labels lie in air, as
    airways do, where the darkest half per cent of what was labelled for training is air. By
    nnU-Net's rules none is skipped.

    Raises:
        ConfigError: if it is requested, but a channel is not CT and so has no Hounsfield units.
    """
    if plan.rules == "nnunet":
        if requested is True:
            raise ConfigError("skip_air=true: a network of nnU-Net's has seen all windows")
        return False
    is_ct = set(plan.normalise) == {"ct"}
    if requested is True and not is_ct:
        raise ConfigError(
            f"skip_air=true needs Hounsfield units, but the network's channels are normalised by "
            f"{', '.join(plan.normalise)}, not ct: use skip_air=auto or false"
        )
    if requested != "auto":
        return requested and is_ct
    return is_ct and all(low > AIR_HU for low, *_ in plan.foreground)


class SkipEmptyWindows:
    """A network that computes only windows with something other than air; the rest is background.

    Args:
        network: maps `(b, c, *space)` to logits `(b, k, *space)`.
        outputs: logits per voxel.
        exclusive: whether a voxel has one label, the first of which is the background, or may lie
            in several regions.

    Attributes:
        windows: number of windows that were given.
        skipped: number of those that were not computed.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], outputs: int, exclusive: bool) -> None:
        self.network = network
        self.outputs = outputs
        self.exclusive = exclusive
        self.windows = 0
        self.skipped = 0

    def __call__(self, patches: Float[Tensor, "b c *space"]) -> Float[Tensor, "b k *space"]:
        """Return the logits of windows whose last channel is 0 in air and 1 elsewhere."""
        has_body: list[bool] = patches[:, -1].flatten(1).any(1).tolist()  # a GPU is asked but once
        image = patches[:, :-1]
        computed = [number for number, has in enumerate(has_body) if has]
        self.windows += len(has_body)
        self.skipped += len(has_body) - len(computed)
        if len(computed) == len(has_body):
            return self.network(image)
        logits = image.new_zeros(len(image), self.outputs, *image.shape[2:])
        if self.exclusive:
            logits[:, 0] = CERTAIN_LOGIT
        else:
            logits -= CERTAIN_LOGIT
        if computed:
            with_body = torch.stack([image[number] for number in computed])
            for number, window in zip(computed, self.network(with_body), strict=True):
                logits[number] = window.to(logits)
        return logits

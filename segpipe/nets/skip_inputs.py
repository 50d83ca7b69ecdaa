"""Where long skips enter a network that is built, so that what comes through one can be looked at or replaced."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from segpipe.errors import ConfigError
from segpipe.nets.skips import NoSkip
from segpipe.nets.unet import UNet


@dataclass(frozen=True)
class SkipInput:
    """The module in which a long skip meets what comes from below.

    Attributes:
        name: `level 0`, the finest; of a foreign network, the module's path.
        module: to which the skip is given.
        argument: of its forward pass that is the skip; None where the module is given what goes both across and down,
            and hands on the skip in front of what came back.
    """

    name: str
    module: nn.Module
    argument: str | None

    def intercept(self, change: Callable[[Tensor], Tensor]) -> RemovableHandle:
        """Lets `change` make what the module is given as its skip, `(b, c, *space)`, until the handle is removed."""
        argument = self.argument
        if argument is None:
            return self.module.register_forward_hook(
                lambda _module, given, output: torch.cat(
                    [change(given[0]), output[:, given[0].shape[1] :]], 1
                )
            )
        signature = inspect.signature(self.module.forward)

        def before(
            _module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]
        ) -> tuple[Any, dict[str, Any]]:
            given = signature.bind(*args, **named).arguments
            return (), {**given, argument: change(given[argument])}

        return self.module.register_forward_pre_hook(before, with_kwargs=True)  # type: ignore[arg-type]


def skip_inputs(network: nn.Module) -> list[SkipInput]:
    """The long skips of a network: a U-Net's finest first, a foreign one's in the order of its modules.

    Raises:
        ConfigError: if it has none, or none that enters a module of its own.
    """
    if isinstance(network, UNet):
        skips = [
            (level, join) for level, join in enumerate(network.skips) if type(join) is not NoSkip
        ]
        if not skips:
            raise ConfigError("checkpoint: its network has no long skip (model.long_skips=none)")
        return [SkipInput(f"level {level}", join, "skip") for level, join in skips]
    from segpipe.nets.monai import skip_argument  # MONAI's networks take long to import

    asked = [(path, part, skip_argument(part)) for path, part in network.named_modules()]
    found = [
        SkipInput(path, part, argument or None)
        for path, part, argument in asked
        if argument is not None
    ]
    if not found:
        kind = type(network).__name__
        raise ConfigError(
            f"checkpoint: no long skip of {kind} enters a module of its own, where it could be replaced"
        )
    return found

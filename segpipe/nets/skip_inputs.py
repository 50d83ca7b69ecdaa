"""Where the long skips of a built network enter, so that what comes through can be replaced."""

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
        name: `level 0`, the finest; in a foreign network, the module's path.
        module: the module that is given the skip.
        argument: the argument of its forward pass that is the skip; None where the module's input
            goes both across and down, and its output holds the skip in front of what came back.
    """

    name: str
    module: nn.Module
    argument: str | None

    def intercept(self, change: Callable[[Tensor], Tensor]) -> RemovableHandle:
        """Replace the skip `(B, C, *spatial)` by `change(skip)` until the handle is removed."""
        if self.argument is None:
            return self._intercept_output(change)
        argument = self.argument
        signature = inspect.signature(self.module.forward)

        def replace_argument(
            _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[Any, dict[str, Any]]:
            arguments = dict(signature.bind(*args, **kwargs).arguments)
            arguments[argument] = change(arguments[argument])
            return (), arguments

        return self.module.register_forward_pre_hook(replace_argument, with_kwargs=True)  # type: ignore[arg-type]

    def _intercept_output(self, change: Callable[[Tensor], Tensor]) -> RemovableHandle:
        def replace_front(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            skip = inputs[0]
            below = output[:, skip.shape[1] :]
            return torch.cat([change(skip), below], 1)

        return self.module.register_forward_hook(replace_front)


def skip_inputs(network: nn.Module) -> list[SkipInput]:
    """Return the long skips of a network: a U-Net's finest first, others in the order of modules.

    Raises:
        ConfigError: if it has none, or none that enters a module of its own.
    """
    if isinstance(network, UNet):
        found = _of_unet(network)
        if not found:
            raise ConfigError("checkpoint: its network has no long skip (model.long_skips=none)")
        return found
    found = _of_foreign(network)
    if not found:
        raise ConfigError(
            f"checkpoint: no long skip of {type(network).__name__} enters a module of its own, "
            "where it could be replaced"
        )
    return found


def _of_unet(network: UNet) -> list[SkipInput]:
    found = []
    for level, skip in enumerate(network.skips):
        if not isinstance(skip, NoSkip):
            found.append(SkipInput(f"level {level}", skip, "skip"))
    return found


def _of_foreign(network: nn.Module) -> list[SkipInput]:
    from segpipe.nets.monai import skip_argument  # MONAI's networks take long to import

    found = []
    for path, module in network.named_modules():
        argument = skip_argument(module)
        if argument is not None:
            found.append(SkipInput(path, module, argument or None))
    return found

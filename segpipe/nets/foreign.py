"""Networks that are built from a name and its arguments: registered ones, and those of MONAI.

A registered network is a class or function

    @NETWORKS.register("my_net", help="...")
    def my_net(spatial_dims: int, in_channels: int, out_channels: int, ...) -> nn.Module: ...

which maps `(B, in_channels, *spatial)` to logits `(B, out_channels, *spatial)`. It is chosen by
`model=monai model.network=my_net`; further arguments are given by `model.arguments`.
"""

import inspect
import re
from collections.abc import Callable
from typing import Any

from torch import nn

from segpipe.config.model import MonaiModel
from segpipe.errors import ConfigError
from segpipe.registry import NETWORKS
from segpipe.text import first_line, nearest

# arguments of MONAI's networks that name weights to fetch or to read
FETCHES = re.compile("pretrain|^weights$|download|url$|filename|path_or_repo")


def build_foreign(model: MonaiModel, in_channels: int, out_channels: int) -> nn.Module:
    """Build the network that `model.network` names.

    Raises:
        ConfigError: if there is none of this name, or it does not take these arguments.
    """
    name = model.network
    if name in NETWORKS:
        factory = NETWORKS[name]
        full_name = name
    else:
        from segpipe.nets.monai import find_network  # MONAI's networks take long to import

        factory = find_network(name)
        full_name = f"monai.networks.nets.{name}"
    shape = {
        "spatial_dims": model.dims,
        "in_channels": in_channels,
        "out_channels": out_channels,
    }
    arguments = model.arguments or {}
    _check_arguments(factory, name, full_name, shape, arguments)
    if name not in NETWORKS:
        arguments = without_fetching(factory, arguments)
    try:
        return factory(**shape, **arguments)
    except ConfigError:
        raise
    except ImportError as error:
        raise ConfigError(
            f"model.network={name} needs a package that is not installed: {first_line(error)}"
        ) from None
    except (TypeError, ValueError, AssertionError, NotImplementedError, RuntimeError) as error:
        raise ConfigError(f"model.arguments: {name} refuses them: {error}") from None


def without_fetching(
    factory: Callable[..., nn.Module], arguments: dict[str, Any]
) -> dict[str, Any]:
    """Return arguments with which a network of MONAI fetches and reads no weights of its own.

    Raises:
        ConfigError: if one asks for such weights.
    """
    for name, value in arguments.items():
        if FETCHES.search(name) and value:
            raise ConfigError(
                f"model.arguments.{name}: networks are trained from the start here, and fetch or "
                "read no weights: leave it out"
            )
    off = {}
    for name, parameter in inspect.signature(factory).parameters.items():
        if parameter.default is True and FETCHES.search(name):
            off[name] = False
    return off | arguments


def _check_arguments(
    factory: Callable[..., nn.Module],
    name: str,
    full_name: str,
    shape: dict[str, int],
    arguments: dict[str, Any],
) -> None:
    """Check that a network takes these arguments.

    Raises:
        ConfigError: naming the first that it does not take.
    """
    parameters = inspect.signature(factory).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    if inspect.Parameter.VAR_KEYWORD in kinds:
        accepted = {*parameters, *shape, *arguments}
    else:
        accepted = {*parameters}
    missing = sorted(shape.keys() - accepted)
    if missing:
        raise ConfigError(
            f"model.network={name} takes no {', '.join(missing)}, so it cannot be used here"
        )
    repeated = sorted(shape.keys() & arguments.keys())
    if repeated:
        raise ConfigError(
            f"model.arguments: {', '.join(repeated)} follow from the data and model.dims; "
            "leave them out"
        )
    unknown = sorted(arguments.keys() - accepted)
    if unknown:
        hint = nearest(unknown[0], list(parameters))
        raise ConfigError(f"model.arguments.{unknown[0]} is no argument of {full_name}.{hint}")

"""Networks of MONAI as baselines; the only place in `nets` that knows of MONAI."""

import inspect

import monai.networks.nets as library
from torch import nn

from segpipe.config.compose import nearest
from segpipe.config.model import MonaiModel
from segpipe.errors import ConfigError


def build_monai(model: MonaiModel, in_channels: int, out_channels: int) -> nn.Module:
    """The network of this name.

    Raises:
        ConfigError: if MONAI has none, or it does not take these arguments.
    """
    known = sorted(name for name, one in vars(library).items() if inspect.isclass(one) and issubclass(one, nn.Module))
    if model.network not in known:
        hint = nearest(model.network, known)
        raise ConfigError(f"model.network is {model.network!r}, which is no class of monai.networks.nets.{hint}")
    network = getattr(library, model.network)
    given = {"spatial_dims": model.dims, "in_channels": in_channels, "out_channels": out_channels}
    more = model.arguments or {}
    taken = inspect.signature(network).parameters
    if lacking := given.keys() - taken.keys():
        raise ConfigError(
            f"model.network={model.network} takes no {', '.join(sorted(lacking))}, so it cannot stand here"
        )
    if twice := given.keys() & more.keys():
        raise ConfigError(f"model.arguments: {', '.join(sorted(twice))} follow from the data and model.dims; leave out")
    if strange := more.keys() - taken.keys():
        first = min(strange)
        hint = nearest(first, list(taken))
        raise ConfigError(f"model.arguments.{first} is no argument of monai.networks.nets.{model.network}.{hint}")
    try:
        return network(**given, **more)
    except ImportError as error:
        line = str(error).split("\n")[0]
        raise ConfigError(f"model.network={model.network} needs a package that is not installed: {line}") from None
    except (TypeError, ValueError, AssertionError, NotImplementedError, RuntimeError) as error:
        raise ConfigError(f"model.arguments: {model.network} refuses them: {error}") from None

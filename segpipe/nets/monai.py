"""Networks of MONAI as baselines; the only place in `nets` that knows of MONAI."""

import inspect

import monai.networks.nets as library
from monai.networks.blocks.dynunet_block import UnetUpBlock
from monai.networks.blocks.unetr_block import UnetrUpBlock
from monai.networks.layers.simplelayers import SkipConnection
from monai.networks.nets.attentionunet import AttentionBlock
from monai.networks.nets.basic_unet import UpCat
from monai.networks.nets.vnet import UpTransition
from torch import nn

from segpipe.config.model import MonaiModel
from segpipe.errors import ConfigError
from segpipe.text import nearest

# modules that a long skip enters, each with the argument of its forward pass that is the skip; SegResNet and others add
# theirs in the network's own forward pass, where no module is given it
SKIP_ARGUMENTS: dict[type[nn.Module], str] = {
    UnetUpBlock: "skip",  # DynUNet
    UnetrUpBlock: "skip",  # UNETR, SwinUNETR
    UpCat: "x_e",  # BasicUNet, BasicUNetPlusPlus
    UpTransition: "skipx",  # VNet
    AttentionBlock: "x",  # AttentionUnet
}


def skip_argument(part: nn.Module) -> str | None:
    """The argument of a module's forward pass that is a long skip; empty where it goes past the module's inside (UNet).

    None where no skip enters.
    """
    if type(part) is SkipConnection and (part.mode, part.dim) == ("cat", 1):
        return ""
    return SKIP_ARGUMENTS.get(type(part))


def build_monai(model: MonaiModel, in_channels: int, out_channels: int) -> nn.Module:
    """The network of this name.

    Raises:
        ConfigError: if MONAI has none, or it does not take these arguments.
    """
    known = sorted(
        name
        for name, one in vars(library).items()
        if inspect.isclass(one) and issubclass(one, nn.Module)
    )
    if model.network not in known:
        hint = nearest(model.network, known)
        raise ConfigError(
            f"model.network is {model.network!r}, which is no class of monai.networks.nets.{hint}"
        )
    network = getattr(library, model.network)
    given = {"spatial_dims": model.dims, "in_channels": in_channels, "out_channels": out_channels}
    more = model.arguments or {}
    taken = inspect.signature(network).parameters
    if lacking := given.keys() - taken.keys():
        raise ConfigError(
            f"model.network={model.network} takes no {', '.join(sorted(lacking))}, so it cannot stand here"
        )
    if twice := given.keys() & more.keys():
        raise ConfigError(
            f"model.arguments: {', '.join(sorted(twice))} follow from the data and model.dims; leave out"
        )
    if strange := more.keys() - taken.keys():
        first = min(strange)
        hint = nearest(first, list(taken))
        raise ConfigError(
            f"model.arguments.{first} is no argument of monai.networks.nets.{model.network}.{hint}"
        )
    try:
        return network(**given, **more)
    except ImportError as error:
        line = str(error).split("\n")[0]
        raise ConfigError(
            f"model.network={model.network} needs a package that is not installed: {line}"
        ) from None
    except (TypeError, ValueError, AssertionError, NotImplementedError, RuntimeError) as error:
        raise ConfigError(f"model.arguments: {model.network} refuses them: {error}") from None

"""Networks of MONAI as baselines; the only module of `nets` that imports MONAI."""

import inspect

import monai.networks.nets as library
from monai.networks.blocks.dynunet_block import UnetUpBlock
from monai.networks.blocks.unetr_block import UnetrUpBlock
from monai.networks.layers.simplelayers import SkipConnection
from monai.networks.nets.attentionunet import AttentionBlock
from monai.networks.nets.basic_unet import UpCat
from monai.networks.nets.vnet import UpTransition
from torch import nn

from segpipe.errors import ConfigError
from segpipe.registry import NETWORKS
from segpipe.text import nearest

# Modules that are given a long skip, each with the name of that argument of its forward pass.
# SegResNet and others add their skips in the network's own forward pass, where no module gets them.
SKIP_ARGUMENTS: dict[type[nn.Module], str] = {
    UnetUpBlock: "skip",  # DynUNet
    UnetrUpBlock: "skip",  # UNETR, SwinUNETR
    UpCat: "x_e",  # BasicUNet, BasicUNetPlusPlus
    UpTransition: "skipx",  # VNet
    AttentionBlock: "x",  # AttentionUnet
}


def skip_argument(module: nn.Module) -> str | None:
    """Return the argument of a module's forward pass that is a long skip; None where there is none.

    An empty string means that the skip goes around the module's inside, as in MONAI's UNet.
    """
    if type(module) is SkipConnection and (module.mode, module.dim) == ("cat", 1):
        return ""
    return SKIP_ARGUMENTS.get(type(module))


def find_network(name: str) -> type[nn.Module]:
    """Return the class of this name in `monai.networks.nets`.

    Raises:
        ConfigError: if there is none.
    """
    classes = dict(inspect.getmembers(library, _is_network))
    if name not in classes:
        hint = nearest(name, [*classes, *NETWORKS])
        raise ConfigError(
            f"model.network is {name!r}, which is no class of monai.networks.nets{_or()}.{hint}"
        )
    return classes[name]


def _is_network(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, nn.Module)


def _or() -> str:
    """Return what an error says of registered networks; empty where there are none."""
    return f" and none of {', '.join(NETWORKS)}" if NETWORKS.names() else ""

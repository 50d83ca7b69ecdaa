"""Optimisers: each is a function registered with `@OPTIMISERS.register`, here or in an extension.

Args of every optimiser:
    groups: parameter groups as `torch.optim` takes them, each with its own `weight_decay`.
    options: learning rate and the like.
"""

from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from segpipe.config.train import Optim
from segpipe.registry import OPTIMISERS

Groups = list[dict[str, Any]]
MOMENTUM = 0.99  # that of nnU-Net (Isensee 2021)


@OPTIMISERS.register("adamw", help="Adam with decoupled weight decay (Loshchilov 2019)")
def adamw(groups: Groups, options: Optim) -> Optimizer:
    """Return AdamW with PyTorch's own betas."""
    return AdamW(groups, options.lr)


@OPTIMISERS.register("sgd", help="stochastic gradient descent with Nesterov momentum 0.99")
def sgd(groups: Groups, options: Optim) -> Optimizer:
    """Return SGD with Nesterov momentum."""
    return SGD(groups, options.lr, momentum=MOMENTUM, nesterov=True)


def make_optimizer(network: nn.Module, options: Optim) -> Optimizer:
    """Return the optimiser of the options; norms and biases are not decayed.

    Raises:
        ConfigError: if no optimiser of that name is registered.
    """
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in network.parameters():
        if parameter.ndim > 1:
            decayed.append(parameter)
        else:
            others.append(parameter)
    groups: Groups = [
        {"params": decayed, "weight_decay": options.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if next(network.parameters()).device.type == "cuda":
        # One kernel for all weights. It is said of each group, since Lightning refuses to clip the
        # gradients of an optimiser that is made with `fused=True`.
        for group in groups:
            group["fused"] = True
    return OPTIMISERS[options.name](groups, options)

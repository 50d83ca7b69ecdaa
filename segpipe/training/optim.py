"""Optimisers: each is a function registered with `@OPTIMISERS.register`, here or in an extension.

Args of every optimiser:
    groups: parameter groups as `torch.optim` takes them, each with its own `weight_decay` and
        share of the learning rate, `lr_scale`, which the training applies.
    options: learning rate and the like.
"""

from collections.abc import Collection, Sequence
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from segpipe.config.train import Optim
from segpipe.registry import OPTIMISERS

Groups = list[dict[str, Any]]
MOMENTUM = 0.99  # that of nnU-Net (Isensee 2021)
LR_SCALE = "lr_scale"  # key of a group: its share of the learning rate


@OPTIMISERS.register("adamw", help="Adam with decoupled weight decay (Loshchilov 2019)")
def adamw(groups: Groups, options: Optim) -> Optimizer:
    """Return AdamW with PyTorch's own betas."""
    return AdamW(groups, options.lr)


@OPTIMISERS.register("sgd", help="stochastic gradient descent with Nesterov momentum 0.99")
def sgd(groups: Groups, options: Optim) -> Optimizer:
    """Return SGD with Nesterov momentum."""
    return SGD(groups, options.lr, momentum=MOMENTUM, nesterov=True)


def make_optimizer(
    network: nn.Module, options: Optim, loaded: Collection[str] = (), lr_scale: float = 1.0
) -> Optimizer:
    """Return the optimiser of the options; norms and biases are not decayed.

    Args:
        network: the network whose weights are trained, those without `requires_grad` left out.
        options: the options of the optimiser.
        loaded: names of weights that come from a checkpoint.
        lr_scale: share of the learning rate for those.

    Raises:
        ConfigError: if no optimiser of that name is registered.
    """
    own: list[nn.Parameter] = []
    slower: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            is_slower = lr_scale != 1 and name in loaded
            chosen = slower if is_slower else own
            chosen.append(parameter)
    groups = _groups(own, options, 1.0)
    if slower:
        groups += _groups(slower, options, lr_scale)
    if next(network.parameters()).device.type == "cuda":
        # One kernel for all weights. It is said of each group, since Lightning refuses to clip the
        # gradients of an optimiser that is made with `fused=True`.
        for group in groups:
            group["fused"] = True
    return OPTIMISERS[options.name](groups, options)


def _groups(parameters: Sequence[nn.Parameter], options: Optim, lr_scale: float) -> Groups:
    """Return a group of weights that are decayed, and one of those that are not."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in parameters:
        if parameter.ndim > 1:
            decayed.append(parameter)
        else:
            others.append(parameter)
    scale = {LR_SCALE: lr_scale}
    return [
        {"params": decayed, "weight_decay": options.weight_decay, **scale},
        {"params": others, "weight_decay": 0.0, **scale},
    ]


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Give every group of weights its share of a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(LR_SCALE, 1.0)  # groups of older checkpoints have no share

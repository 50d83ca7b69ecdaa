"""Optimiser from the config."""

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from segpipe.config.train import Optim


def make_optimizer(network: nn.Module, options: Optim) -> Optimizer:
    """AdamW (Loshchilov 2019) or SGD with Nesterov momentum; norms and biases are not decayed."""
    weights = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": options.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if options.name == "sgd":
        return SGD(groups, options.lr, momentum=0.99, nesterov=True)
    return AdamW(groups, options.lr)

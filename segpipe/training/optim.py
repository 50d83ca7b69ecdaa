"""Optimiser and learning rate from the config."""

import math

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


def learning_rate(spent: float, options: Optim) -> float:
    """The learning rate when a share `spent` of the budget is gone.

    It rises linearly over the warm-up, then falls to 0 along a cosine (Loshchilov 2017) or the polynomial
    `(1 - t)^0.9` (Chen 2017, nnU-Net), or stays.
    """
    if spent < options.warmup:
        return options.lr * max(spent / options.warmup, 0.01)
    left = 1 - (spent - options.warmup) / (1 - options.warmup)
    course = {"cosine": (1 - math.cos(math.pi * left)) / 2, "poly": max(left, 0.0) ** 0.9, "constant": 1.0}
    return options.lr * course[options.schedule]

"""Where a gradient goes: against depth at initialisation, and layer by layer over a training."""

import csv
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra import compose
from omegaconf import OmegaConf
from support.networks import network
from torch import nn

from segpipe.config.compose import hydra_on_conf
from segpipe.config.probe import Depth
from segpipe.config.validation import validate
from segpipe.errors import ConfigError
from segpipe.nets.gradient import bottleneck, gradients, layers_in_order, relative_norms
from segpipe.probe.depth import depth, ends, measure
from segpipe.reporting.gradient_flow import draw_gradient_flow
from segpipe.training.callbacks.gradient_flow import GradientFlow


def depth_options(*overrides: str) -> Depth:
    with hydra_on_conf():
        values = OmegaConf.to_container(compose("depth", overrides=list(overrides)), resolve=True)
    return validate(Depth, values)  # type: ignore[arg-type]


def relative_gradient(long: str, short: str, *overrides: str) -> np.ndarray:
    return measure(depth_options(*overrides), long, short, seed=0).gradients


def test_without_skips_the_gradient_vanishes_and_short_skips_keep_it() -> None:
    plain, residual = relative_gradient("none", "none"), relative_gradient("none", "residual")
    assert len(plain) >= 40
    (first, last), (kept, end) = ends(plain), ends(residual)
    assert first < last / 100
    assert end / 10 < kept < 10 * end
    for activation in ("relu", "elu"):
        first, last = ends(relative_gradient("none", "none", f"model.activation={activation}"))
        assert first < last / 100


def test_long_skips_keep_the_ends_alive_but_not_the_middle() -> None:
    """What Drozdzal 2016 saw in training, at initialisation."""
    plain, long = relative_gradient("none", "none"), relative_gradient("concat", "none")
    assert ends(long)[0] > 1e6 * ends(plain)[0]
    assert long[len(long) // 2] < 1e-3 * min(ends(long))


def test_hes_initialisation_keeps_the_gradient_of_a_plain_network() -> None:
    first, last = ends(relative_gradient("none", "none", "init=he"))
    assert last / 10 < first < 10 * last


def test_layers_come_in_the_order_in_which_they_run() -> None:
    net = network(3, ("concat", "add"))
    layers = layers_in_order(net, (2, 8, 8, 8))
    stages = list(dict.fromkeys(layer.stage for layer in layers))
    assert stages == ["encoder 0", "encoder 1", "encoder 2", "decoder 1", "decoder 0", "head 0"]
    assert len(layers) == sum(
        isinstance(part, nn.Conv3d | nn.ConvTranspose3d) for part in net.modules()
    )
    assert all(layer.weight is net.get_submodule(layer.name).weight for layer in layers)
    assert layers[int(bottleneck(layers))].stage == "encoder 2"


def test_relative_norms_are_those_of_each_weight() -> None:
    net = network(2)
    net(torch.randn(1, 2, 8, 8, dtype=torch.float64)).square().mean().backward()
    layers = layers_in_order(net, (2, 8, 8))
    found = relative_norms(gradients(layers), [layer.weight for layer in layers])
    by_hand = [float(layer.weight.grad.norm() / layer.weight.detach().norm()) for layer in layers]  # type: ignore[union-attr]
    assert found.tolist() == pytest.approx(by_hand, rel=1e-12)


def test_an_odd_size_and_a_dense_bottleneck_are_refused() -> None:
    with pytest.raises(ConfigError, match="size is 60; the 4 levels need a multiple of 8"):
        depth_options("size=60")
    with pytest.raises(ConfigError, match="dense has layers, not bottlenecks"):
        depth_options("model.block=bottleneck")


def test_the_command_leaves_a_table_and_a_picture(tmp_path: Path) -> None:
    given = depth_options(
        f"output={tmp_path}", "model.blocks=1", "long_skips=[none,gate]", "size=16", "seeds=2"
    )
    assert depth(given) == 0
    with (tmp_path / "depth.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["long_skips"], row["short_skips"]) for row in rows} == {
        (long, short) for long in ("none", "gate") for short in ("none", "residual", "dense")
    }
    assert (tmp_path / "depth.png").stat().st_size > 10_000


class Steps(pl.Trainer):
    """What the callback asks of a trainer, and nothing else."""

    global_step = current_epoch = 0  # type: ignore[assignment]

    def __init__(self) -> None: ...


def test_gradient_flow_of_plain_descent_is_the_rate_times_the_gradient(tmp_path: Path) -> None:
    """Where `dW = -lr grad W`, the two columns must differ by `lr` alone."""
    net, flow, trainer = network(2), GradientFlow(tmp_path, steps_per_epoch=5), Steps()
    flow.layers = layers_in_order(net, (2, 8, 8))
    optimizer, module = torch.optim.SGD(net.parameters(), lr=0.25), pl.LightningModule()
    for epoch in range(2):
        trainer.current_epoch = epoch
        for _ in range(5):
            optimizer.zero_grad()
            net(torch.randn(1, 2, 8, 8, dtype=torch.float64)).square().mean().backward()
            flow.on_before_optimizer_step(trainer, module, optimizer)
            optimizer.step()
            trainer.global_step += 1
            flow.on_train_batch_end(trainer, module, None, None, 0)
        flow.on_train_epoch_end(trainer, module)
    again = GradientFlow(tmp_path, steps_per_epoch=5)
    again.layers = flow.layers
    again.load_state_dict(flow.state_dict())
    again.on_train_end(trainer, module)
    draw_gradient_flow(tmp_path)
    with (tmp_path / "gradient_flow.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0"] * len(flow.layers) + ["1"] * len(flow.layers)
    for row in rows:
        assert float(row["relative_step"]) == pytest.approx(
            0.25 * float(row["relative_gradient"]), rel=2e-3
        )
    assert (tmp_path / "gradient_flow.png").stat().st_size > 10_000

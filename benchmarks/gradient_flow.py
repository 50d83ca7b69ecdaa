"""What measuring the gradient flow costs a training, as a ratio measured in turns in one run.

    python benchmarks/gradient_flow.py                     # the default network and patch
    python benchmarks/gradient_flow.py model=unet2d        # any other override

An epoch of steps on one batch in memory, each with what `trainer.gradient_flow=true` does, against the same epoch
without; and the same where every step is measured.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pytorch_lightning as pl
import torch
from step import batch_of, options_of, plan_of

from segpipe.config.train import Train
from segpipe.device import NumberFormat, choose_device, choose_format, computing_in
from segpipe.nets.build import build
from segpipe.nets.gradient import layers_in_order
from segpipe.plan import Plan
from segpipe.training.callbacks.gradient_flow import GradientFlow
from segpipe.training.loss import SegmentationLoss
from segpipe.training.optim import make_optimizer
from segpipe.windows import to_network

ROUNDS = 12


class Steps(pl.Trainer):
    """What the callback asks of a trainer, and nothing else."""

    global_step = current_epoch = 0  # type: ignore[assignment]

    def __init__(self) -> None: ...


def epoch(
    options: Train, plan: Plan, number_format: NumberFormat, flow: GradientFlow | None
) -> Callable[[], float]:
    """A function that trains for an epoch and gives the seconds of a step."""
    torch.manual_seed(0)
    device, count = choose_device(options.trainer.device), options.trainer.steps_per_epoch
    network = build(options.model, len(plan.channels), plan.outputs, plan.strides, plan.kernels).to(
        device
    )
    loss = SegmentationLoss(plan, options.loss.weights, options.loss)
    optimizer = make_optimizer(network, options.optim)
    image, label = (
        to_network(batch_of(plan)[name].to(device), plan.slice_axis) for name in ("image", "label")
    )
    trainer, module = Steps(), pl.LightningModule()
    if flow is not None:
        flow.layers = layers_in_order(network, image.shape[1:])

    def run() -> float:
        start = time.perf_counter()
        for _ in range(count):
            with computing_in(number_format, device):
                logits = network(image)
            loss(logits, label).backward()
            if flow is not None:
                flow.on_before_optimizer_step(trainer, module, optimizer)
            torch.nn.utils.clip_grad_norm_(network.parameters(), options.optim.clip or torch.inf)
            optimizer.step()
            optimizer.zero_grad()
            trainer.global_step += 1  # type: ignore[misc]
            if flow is not None:
                flow.on_train_batch_end(trainer, module, None, None, 0)
        if flow is not None:
            flow.on_train_epoch_end(trainer, module)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / count

    return run


def in_turns(ways: Sequence[Callable[[], float]]) -> list[float]:
    """Return what each way takes, in their order."""
    return [way() for way in ways]


def main() -> None:
    """Prints the ratios."""
    options = options_of(sys.argv[1:])
    plan, device = plan_of(options), choose_device(options.trainer.device)
    number_format = choose_format(options.trainer.precision, device)
    with tempfile.TemporaryDirectory() as folder:
        every = GradientFlow(Path(folder), 1)
        flows = [None, GradientFlow(Path(folder), options.trainer.steps_per_epoch), every]
        ways = [epoch(options, plan, number_format, flow) for flow in flows]
        rounds = [in_turns(ways) for _ in range(ROUNDS + 1)]
        times = np.array(rounds[1:])  # the first warms up
    print(
        f"{device}, {number_format}, patch {plan.patch}, batch {plan.batch}; medians of {ROUNDS} epochs in turns"
    )
    for name, way in (("gradient flow / without", 1), ("every step measured / without", 2)):
        low, middle, high = np.percentile(times[:, way] / times[:, 0], [25, 50, 75])
        print(f"{name}: {middle:.3f} (quartiles {low:.3f} to {high:.3f})")
    print(f"seconds a step without: {np.median(times[:, 0]):.4f}")


if __name__ == "__main__":
    main()

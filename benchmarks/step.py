"""The speed of a training step, as ratios measured in turns in one run.

    python benchmarks/step.py [overrides]

1. `segpipe-train`'s whole step, with patches cut and augmented by its worker, against the same step on one batch that
   is in memory already.
2. That bare step against plain PyTorch: float32, channels first.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch.utils.data import DataLoader

from segpipe.config.compose import CONF, validate
from segpipe.config.train import Train
from segpipe.data.module import CaseData
from segpipe.data.patches import Onwards
from segpipe.device import NumberFormat, choose_device, choose_format, computing_in
from segpipe.nets import build
from segpipe.plan import Fingerprint, Plan, make_plan
from segpipe.training.cases import open_dataset
from segpipe.training.loss import SegmentationLoss
from segpipe.training.optim import make_optimizer
from segpipe.windows import to_network

ROUNDS, STEPS = 12, 20
LABELS = {"background": 0, "liver": 1, "kidneys": 2, "vessel": 3}


def options_of(overrides: list[str]) -> Train:
    """The options that these overrides make."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(CONF), version_base="1.3"):
        values = OmegaConf.to_container(compose("train", overrides), resolve=True)
    assert isinstance(values, dict)
    return validate(Train, {str(key): value for key, value in values.items()})


def plan_of(options: Train) -> Plan:
    """A plan for cases of 1 mm as large as the phantom's."""
    cases = np.ones((1, 3)), np.full((1, 3), 64)
    return make_plan(options, Fingerprint(*cases, cases[1], [0.0], [(0.0, 1.0, 0.5, 0.2)], {}), ["MRI"], LABELS, "cpu")


def batch_of(plan: Plan) -> dict[str, torch.Tensor]:
    """A batch of noise with random labels."""
    image = torch.randn(plan.batch, 1, *plan.patch)
    return {"image": image, "label": torch.randint(0, plan.outputs, image.shape, dtype=torch.uint8)}


def stepper(
    options: Train, plan: Plan, device: torch.device, number_format: NumberFormat, plain: bool = False
) -> Callable[[dict[str, torch.Tensor]], None]:
    """A function that takes one training step; `plain`: as PyTorch does it when nothing is asked for."""
    torch.manual_seed(0)
    network = build(options.model, 1, plan.outputs, plan.strides, plan.kernels).to(device)
    if plain:
        network = network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    loss, optimizer = SegmentationLoss(plan, options.optim), make_optimizer(network, options.optim)

    def step(batch: dict[str, torch.Tensor]) -> None:
        image, label = (to_network(batch[name].to(device), plan.slice_axis) for name in ("image", "label"))
        with computing_in("float32" if plain else number_format, device):
            logits = network(image)
        loss(logits, label).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), options.optim.clip or torch.inf)
        optimizer.step()
        optimizer.zero_grad()

    return step


def train_steps(options: Train, plan: Plan, device: torch.device, number_format: NumberFormat, steps: int) -> None:
    """Takes some steps on one batch of noise."""
    step, batch = stepper(options, plan, device, number_format), batch_of(plan)
    for _ in range(steps):
        step(batch)


def seconds(step: Callable[[dict[str, torch.Tensor]], None], batches: Callable[[], dict[str, torch.Tensor]]) -> float:
    """Seconds a step, of `STEPS` steps."""
    start = time.perf_counter()
    for _ in range(STEPS):
        step(batches())
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / STEPS


def main() -> None:
    """Prints the ratios."""
    with tempfile.TemporaryDirectory() as folder:
        options = options_of([f"data.root={folder}/phantom", f"data.cache={folder}/cache", *sys.argv[1:]])
        device = choose_device(options.trainer.device)
        number_format = choose_format(options.trainer.precision, device)
        plan, cases = plan_of(options), open_dataset(options.data).cases
        data = CaseData(cases, [], plan, options, device)
        data.setup("fit")
        assert data.patches is not None
        workers = data.workers
        loader = iter(
            DataLoader(
                data.patches,
                plan.batch,
                sampler=Onwards(0, (ROUNDS + 1) * STEPS * plan.batch),
                num_workers=workers,
                prefetch_factor=4 if workers else None,
                worker_init_fn=lambda _: torch.set_num_threads(1),
            )
        )
        ours, plain = (stepper(options, plan, device, number_format, plain=which) for which in (False, True))
        fixed = batch_of(plan)
        seconds(plain, lambda: fixed)
        seconds(ours, lambda: data.on_after_batch_transfer(next(loader), 0))
        times = np.array(
            [
                [
                    seconds(ours, lambda: data.on_after_batch_transfer(next(loader), 0)),
                    seconds(ours, lambda: fixed),
                    seconds(plain, lambda: fixed),
                ]
                for _ in range(ROUNDS)
            ]
        )
        whole, bare, usual = (median(column) for column in times.T.tolist())
        print(
            f"{device}, {number_format}, patch {plan.patch}, batch {plan.batch}, {workers} workers; medians of {ROUNDS}"
        )
        print(f"step with patches {whole:.4f} s, bare step {bare:.4f} s: ratio {whole / bare:.3f}")
        print(f"bare step {bare:.4f} s, plain PyTorch {usual:.4f} s: ratio {bare / usual:.3f}")


if __name__ == "__main__":
    main()

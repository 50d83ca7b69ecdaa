"""The speed of a training step, as ratios measured in turns in one run.

    python benchmarks/step.py                                      # the phantom enlarged to 256x256x160 at 0.8 mm
    python benchmarks/step.py data=decathlon data.root=DIR         # any dataset, planned as in training
    python benchmarks/step.py data.workers=1                    # and any other override

1. The whole step, with patches that are cut and augmented as in training, against the same step on one batch that is in
   memory already.
2. That bare step against plain PyTorch: float32, channels first, its own instance norm.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nibabel as nib
import numpy as np
import torch
from scipy.ndimage import zoom
from torch import nn
from torch.utils.data import DataLoader

from segpipe.config.compose import hydra_on_conf
from segpipe.config.model import Model
from segpipe.config.train import Train
from segpipe.config.validation import validate
from segpipe.data.datasets import open_dataset
from segpipe.data.doctor import inspect_cases
from segpipe.data.module import CaseData
from segpipe.data.patches import ContinuingSampler
from segpipe.data.phantom import write_phantom
from segpipe.device import NumberFormat, choose_device, choose_format, computing_in, hold_memory
from segpipe.nets.build import build
from segpipe.plan import Plan
from segpipe.planning.fingerprint import Fingerprint
from segpipe.planning.planner import plan_dataset
from segpipe.planning.rules import make_plan
from segpipe.training.loss import SegmentationLoss
from segpipe.training.optim import make_optimizer
from segpipe.windows import to_network

ROUNDS, STEPS = 12, 20
LABELS = {"background": 0, "liver": 1, "kidneys": 2, "vessel": 3}


def options_of(overrides: list[str]) -> Train:
    """The options that these overrides make."""
    from hydra import compose
    from omegaconf import OmegaConf

    with hydra_on_conf():
        values = OmegaConf.to_container(compose("train", overrides), resolve=True)
    assert isinstance(values, dict)
    options = validate(Train, {str(key): value for key, value in values.items()})
    model = options.model
    if isinstance(model, Model):  # of a CPU's size, where nothing is given
        options = options.model_copy(update={"model": model.small()})
    return options


def plan_of(options: Train) -> Plan:
    """A plan for cases of 1 mm as large as the phantom's."""
    cases = np.ones((1, 3)), np.full((1, 3), 64)
    return make_plan(
        options,
        Fingerprint(*cases, cases[1], [0.0], [(0.0, 1.0, 0.5, 0.2)], {}),
        ["MRI"],
        LABELS,
        "cpu",
    )


def batch_of(plan: Plan) -> dict[str, torch.Tensor]:
    """A batch of noise with random labels."""
    image = torch.randn(plan.batch, len(plan.channels), *plan.patch)
    return {
        "image": image,
        "label": torch.randint(0, plan.outputs, (plan.batch, 1, *plan.patch), dtype=torch.uint8),
    }


def stepper(
    options: Train,
    plan: Plan,
    device: torch.device,
    number_format: NumberFormat,
    plain: bool = False,
) -> Callable[[dict[str, torch.Tensor]], None]:
    """A function that takes one training step; `plain`: as PyTorch does it when nothing is asked for."""
    torch.manual_seed(0)
    network = build(options.model, len(plan.channels), plan.outputs, plan.strides, plan.kernels).to(
        device
    )
    if plain:
        network = network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        for module in network.modules():
            if isinstance(module, nn.InstanceNorm2d | nn.InstanceNorm3d):
                module.__class__ = type(module).__mro__[1]
    loss = SegmentationLoss(plan, options.loss.weights, options.loss)
    optimizer = make_optimizer(network, options.optim)

    def step(batch: dict[str, torch.Tensor]) -> None:
        image, label = (
            to_network(batch[name].to(device), plan.slice_axis) for name in ("image", "label")
        )
        with computing_in("float32" if plain else number_format, device):
            logits = network(image)
        loss(logits, label).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), options.optim.clip or torch.inf)
        optimizer.step()
        optimizer.zero_grad()

    return step


def train_steps(
    options: Train, plan: Plan, device: torch.device, number_format: NumberFormat, steps: int
) -> None:
    """Takes some steps on one batch of noise."""
    step, batch = stepper(options, plan, device, number_format), batch_of(plan)
    for _ in range(steps):
        step(batch)


def seconds(
    step: Callable[[dict[str, torch.Tensor]], None], batches: Callable[[], dict[str, torch.Tensor]]
) -> float:
    """Seconds a step, of `STEPS` steps."""
    start = time.perf_counter()
    for _ in range(STEPS):
        step(batches())
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / STEPS


def enlarged(
    root: Path, shape: tuple[int, int, int] = (256, 256, 160), spacing_mm: float = 0.8
) -> None:
    """Writes six cases of the phantom with this many voxels."""
    write_phantom(root, train=6, test=0)
    affine = np.diag([spacing_mm] * 3 + [1])
    for folder, order in (("imagesTr", 1), ("labelsTr", 0)):
        for path in sorted((root / folder).iterdir()):
            voxels: Any = np.asarray(nib.load(path).dataobj)  # type: ignore[attr-defined]
            factors = [wanted / found for wanted, found in zip(shape, voxels.shape, strict=True)]
            nib.save(nib.Nifti1Image(zoom(voxels, factors, order=order), affine), path)  # type: ignore[attr-defined]


def ready(options: Train, device: torch.device, number_format: NumberFormat) -> CaseData:
    """The loaders of a training on these options' dataset."""
    dataset = open_dataset(options.data)
    seen = inspect_cases(dataset.cases, [], dataset.labels, None, lambda: None)
    plan = plan_dataset(dataset, seen, [], options, device, number_format)
    data = CaseData(dataset.cases, [], plan, options, device)
    data.setup("fit")
    return data


def main() -> None:
    """Prints the ratios."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = ["augment.warmup=0", f"data.cache={folder}/cache", *sys.argv[1:]]
        if not any(override.startswith("data") for override in sys.argv[1:]):
            enlarged(Path(folder) / "phantom")
            overrides += ["data=decathlon", f"data.root={folder}/phantom"]
        options = options_of(overrides)
        device = choose_device(options.trainer.device)
        hold_memory(device)
        number_format = choose_format(options.trainer.precision, device)
        data = ready(options, device, number_format)
        assert data.patches is not None
        for number in range(len(data.train_cases)):  # opens each case, as a run does once
            data.patches[number]
        plan, workers = data.plan, data.workers
        loader = iter(
            DataLoader(
                data.patches,
                plan.batch,
                sampler=ContinuingSampler(0, (ROUNDS + 1) * STEPS * plan.batch),
                num_workers=workers,
                prefetch_factor=4 if workers else None,
                worker_init_fn=lambda _: torch.set_num_threads(1),
            )
        )
        ours, plain = (
            stepper(options, plan, device, number_format, plain=which) for which in (False, True)
        )
        fixed = batch_of(plan)
        ways = [
            lambda: seconds(ours, lambda: data.on_after_batch_transfer(next(loader), 0)),
            lambda: seconds(ours, lambda: fixed),
            lambda: seconds(plain, lambda: fixed),
        ]
        for way in ways:  # warms up
            way()
        times = np.zeros((ROUNDS, len(ways)))
        for turn in times:
            turn[:] = [way() for way in ways]
    whole, bare, usual = np.median(times, axis=0)
    print(
        f"{device}, {number_format}, patch {plan.patch}, batch {plan.batch}, {workers} workers; medians of {ROUNDS}"
    )
    for name, over, under in (("with patches / bare", 0, 1), ("bare / plain PyTorch", 1, 2)):
        low, middle, high = np.percentile(times[:, over] / times[:, under], [25, 50, 75])
        print(f"{name}: {middle:.3f} (quartiles {low:.3f} to {high:.3f})")
    print(f"seconds a step: with patches {whole:.4f}, bare {bare:.4f}, plain PyTorch {usual:.4f}")


if __name__ == "__main__":
    main()

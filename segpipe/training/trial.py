"""A few training steps on one case, and from these how long a run would take here."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from segpipe.accelerator import is_out_of_memory, place
from segpipe.config.train import Train
from segpipe.data.cases import Case
from segpipe.data.module import CaseData
from segpipe.data.patches import ContinuingSampler
from segpipe.data.prepare import model_space
from segpipe.device import NumberFormat, computing_in
from segpipe.geometry import Grid
from segpipe.plan import Plan
from segpipe.planning.capacity import planned_model
from segpipe.training.loss import SegmentationLoss
from segpipe.training.network import make_network
from segpipe.training.optim import make_optimizer
from segpipe.training.out_of_memory import out_of_memory
from segpipe.training.schedule import Budget
from segpipe.windows import Windowing, to_network

MOST_STEPS = 6
ENOUGH_S = 10.0  # of steps, after which no other begins but the second
OVERLAP = 0.5  # of the windows of a validation


@dataclass(frozen=True)
class Trial:
    """What was measured on one case.

    Attributes:
        step_s: a training step, with the cutting and augmentation of its patches where no process
            does that beside it, s.
        window_s: a window of a whole scan, s.
        prepare_s: reading, resampling and normalising the case, s; nearly 0 where it is cached.
    """

    step_s: float
    window_s: float
    prepare_s: float


@dataclass(frozen=True)
class Forecast:
    """How long a run would take, validations included.

    Attributes:
        steps: the steps of the optimiser.
        patches: number of patches of each training case.
        validation_s: the prediction of all validation cases, once, s.
        total_s: the run, from the preparation of its cases to the scores, s.
    """

    steps: int
    patches: float
    validation_s: float
    total_s: float


def try_steps(
    case: Case, plan: Plan, options: Train, device: torch.device, number_format: NumberFormat
) -> Trial:
    """Prepare a case and take some training steps on it; nothing is kept but the cached case.

    Args:
        case: a training case without an error.
        plan: the plan of the run, with the batch of one device.
        options: the options of the run.
        device: the device that trains.
        number_format: the number format in which the network computes.

    Raises:
        SegpipeError: if the network cannot be built, the case not be prepared, or a step needs
            more memory than the device has.
    """
    model = planned_model(options.model, plan)
    network = place(make_network(model, plan, options.seed).module, device)
    cases = CaseData([case], [], plan, options, device)
    prepare_s = _seconds(lambda: cases.setup("fit"), device)
    step = _Step(network, cases, number_format)
    steps_s: list[float] = []
    try:
        while len(steps_s) < 2 or (len(steps_s) < MOST_STEPS and sum(steps_s) < ENOUGH_S):
            steps_s.append(_seconds(step, device))
        window_s = _time_window(network, step.image, number_format)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(plan, device) from None
    later = sorted(steps_s[1:])  # the first one is slower
    return Trial(later[len(later) // 2], window_s, prepare_s)


class _Step:
    """A training step at each call, on new patches where this process has to cut them.

    Args:
        network: the network, on the device.
        cases: the cases that train.
        number_format: the number format in which the network computes.
    """

    def __init__(self, network: nn.Module, cases: CaseData, number_format: NumberFormat) -> None:
        options = cases.options
        self.network = network
        self.cases = cases
        self.number_format: NumberFormat = number_format
        self.loss = SegmentationLoss(cases.plan, options.loss.weights, options.loss)
        self.optimizer = make_optimizer(network, options.optim)
        self.batches = iter(_batches(cases))
        self.batch: dict[str, Any] = {}

    @property
    def image(self) -> Tensor:
        """Return the images of the last step as the network takes them, `(B, C, *spatial)`."""
        image = self.batch["image"].to(self.cases.device)
        return to_network(image, self.cases.plan.slice_axis)

    def __call__(self) -> None:
        device = self.cases.device
        if not self.batch or not self.cases.workers:
            self.batch = next(self.batches)
        moved = dict(self.batch)
        for name in ("image", "label"):
            moved[name] = moved[name].to(device)
        patches = self.cases.on_after_batch_transfer(moved, 0)
        slice_axis = self.cases.plan.slice_axis
        with computing_in(self.number_format, device):
            logits = self.network(to_network(patches["image"], slice_axis))
        self.loss(logits, to_network(patches["label"], slice_axis)).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def _batches(cases: CaseData) -> DataLoader[dict[str, Any]]:
    """Return batches of patches, cut by this process."""
    assert cases.patches is not None
    size = cases.plan.batch
    return DataLoader(cases.patches, size, sampler=ContinuingSampler(0, MOST_STEPS * size))


def _time_window(network: nn.Module, image: Tensor, number_format: NumberFormat) -> float:
    """Return the seconds that a window of a whole scan takes."""
    network.eval()

    def predict() -> None:
        with torch.inference_mode(), computing_in(number_format, image.device):
            network(image)

    _seconds(predict, image.device)  # the first one is slower
    return _seconds(predict, image.device) / len(image)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return how long some work takes, until the device has done it."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def forecast(trial: Trial, plan: Plan, options: Train, train: int, val: Sequence[Grid]) -> Forecast:
    """Return how long a run would take: its budget, the validations, and what is around them.

    Pictures and what a run learns at its end are not counted.

    Args:
        trial: the trial as it was measured.
        plan: the plan of the run.
        options: the options of the run.
        train: number of training cases.
        val: grids of the validation cases.
    """
    budget = Budget.of(options.trainer)
    space = model_space(plan)
    windowing = Windowing(plan.patch, plan.slice_axis, OVERLAP)
    windows = 0
    for grid in val:
        windows += windowing.count(space.shape(grid))
    validation_s = windows * trial.window_s + len(val) * trial.prepare_s
    validations_s = options.trainer.validations * validation_s
    limits: list[int] = []
    if budget.steps is not None:
        limits.append(budget.steps)
    if budget.time is not None:
        left_s = max(0.0, budget.time.total_seconds() - validations_s)
        limits.append(max(1, round(left_s / trial.step_s)))
    steps = min(limits)
    around_s = train * trial.prepare_s + validation_s  # scores are of a last prediction
    total_s = steps * trial.step_s + validations_s + around_s
    return Forecast(steps, steps * plan.batch / max(1, train), validation_s, total_s)

"""Loss terms and optimisers: registered by name, numerically those of the literature."""

import ast
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from monai.losses.focal_loss import FocalLoss
from support.config import composed
from support.plans import fingerprint
from torch import Tensor, nn
from torch.optim import Optimizer, RMSprop

from segpipe.config.train import Optim
from segpipe.errors import ConfigError
from segpipe.plan import Plan
from segpipe.planning.memory import state_per_weight
from segpipe.planning.rules import make_plan
from segpipe.registry import LOSSES, OPTIMISERS, Registry
from segpipe.training.loss import LossInput, SegmentationLoss, focal
from segpipe.training.optim import Groups, make_optimizer

LABELS = {"background": 0, "organ": 1, "vessel": 2}


@pytest.fixture
def plan() -> Plan:
    return make_plan(composed(), fingerprint((1, 1, 1), (64, 64, 64)), ["MRI"], LABELS, "cpu")


@pytest.fixture
def squared_error() -> Iterator[str]:
    """Name of a loss term that an extension registers."""

    @LOSSES.register("squared_error", help="mean squared error of the probabilities")
    def squared_error(batch: LossInput) -> Tensor:
        return batch.mean((batch.probabilities - batch.truth) ** 2)

    yield "squared_error"
    _remove(LOSSES, "squared_error")


@pytest.fixture
def rmsprop() -> Iterator[str]:
    """Name of an optimiser that an extension registers."""

    @OPTIMISERS.register("rmsprop", help="RMSprop (Tieleman 2012)")
    def rmsprop(groups: Groups, options: Optim) -> Optimizer:
        return RMSprop(groups, options.lr)

    yield "rmsprop"
    _remove(OPTIMISERS, "rmsprop")


def _remove(registry: Registry, name: str) -> None:
    del registry.added[name]
    del registry.values[name]


@pytest.mark.parametrize("registry", ["LOSSES", "OPTIMISERS"])
def test_entries_are_listed_without_importing_torch(registry: str) -> None:
    code = (
        f"import sys; from segpipe.registry import {registry}\n"
        f"print([entry.name for entry in {registry}.entries().values() if entry.help])\n"
        "assert 'torch' not in sys.modules and 'monai' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = {
        "LOSSES": [
            *("dice", "cross_entropy", "focal", "boundary", "cldice", "top_k"),
            *("tversky", "generalised_dice"),
        ],
        "OPTIMISERS": ["adamw", "sgd"],
    }
    assert ast.literal_eval(done.stdout) == expected[registry]


def test_focal_loss_of_labels_is_monais() -> None:
    """MONAI divides by channels too, though all but one of them are 0."""
    logits = torch.randn(2, 3, 4, 5, 6)
    index = torch.randint(0, 3, (2, 4, 5, 6))
    truth = nn.functional.one_hot(index, 3).movedim(-1, 1).float()
    reference = FocalLoss(include_background=True, gamma=2.0, use_softmax=True)
    value = focal(LossInput(logits, torch.softmax(logits, 1), truth, index, None, True))
    assert float(value) == pytest.approx(3 * float(reference(logits, truth)), rel=1e-5)


def test_focal_loss_of_regions_is_monais() -> None:
    logits = torch.randn(2, 3, 4, 5, 6)
    truth = torch.randint(0, 2, (2, 3, 4, 5, 6)).float()
    index = torch.zeros(2, 4, 5, 6, dtype=torch.uint8)
    reference = FocalLoss(include_background=True, gamma=2.0)
    value = focal(LossInput(logits, torch.sigmoid(logits), truth, index, None, False))
    assert float(value) == pytest.approx(float(reference(logits, truth)), rel=1e-5)


def test_a_registered_term_trains(plan: Plan, squared_error: str) -> None:
    network = nn.Conv3d(1, plan.outputs, 1)
    optimiser = make_optimizer(network, composed("optim.lr=0.1").optim)
    loss = SegmentationLoss(plan, {squared_error: 2.0, "dice": 0.0, "cross_entropy": 1.0})
    image = torch.randn(2, 1, 8, 8, 8)
    label = (image > 0).to(torch.uint8)
    values = []
    for _ in range(20):
        optimiser.zero_grad()
        terms = loss.terms(network(image), label)
        total = torch.stack(list(terms.values())).sum()
        total.backward()
        optimiser.step()
        values.append(total.item())
    assert list(terms) == [squared_error, "cross_entropy"], "a term of weight 0 is left out"
    assert values[-1] < 0.7 * values[0]


def test_an_unknown_term_is_refused(plan: Plan) -> None:
    with pytest.raises(
        ConfigError, match="dicce is no loss term; there are .* Did you mean 'dice'"
    ):
        SegmentationLoss(plan, {"dicce": 1.0})


def test_memory_counts_the_state_of_each_optimiser(rmsprop: str) -> None:
    options = composed().optim
    states = {}
    for name in OPTIMISERS:
        states[name] = state_per_weight(options.model_copy(update={"name": name}))
    assert states == {"adamw": 2, "sgd": 1, rmsprop: 1}


@pytest.mark.parametrize("name", OPTIMISERS.names())
def test_norms_and_biases_are_not_decayed(name: str) -> None:
    network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.InstanceNorm3d(2, affine=True))
    options = composed(f"optim.name={name}", "optim.weight_decay=0.01").optim
    decay = {}
    for group in make_optimizer(network, options).param_groups:
        for parameter in group["params"]:
            decay[parameter.shape] = group["weight_decay"]
    assert decay == {(2, 1, 3, 3, 3): 0.01, (2,): 0.0}

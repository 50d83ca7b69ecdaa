"""The way over a GPU, without one: nothing meets what lies elsewhere, and the host seldom waits.

A step never waits; what waits does so once an epoch, a validation or a slab.
"""

import itertools
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from support.config import composed
from support.datasets import write_cases
from support.pairwise import pairwise
from support.plans import case, plan
from support.pretended_gpu import PretendedGpu, pretended_gpu
from torch import nn

from segpipe import checkpoint
from segpipe.checkpoint import TrainedOn
from segpipe.config.compose import defaults
from segpipe.config.probe import Landscape, Lesion, Robustness
from segpipe.config.train import Train
from segpipe.config.validation import validate
from segpipe.data.augment import make_sampler
from segpipe.data.module import CaseData, count_workers
from segpipe.data.prepare import prepare_scan
from segpipe.metrics import IGNORED
from segpipe.plan import Plan
from segpipe.prediction.predictor import Predictor
from segpipe.probe.landscape import landscape
from segpipe.probe.lesion import lesion
from segpipe.probe.robustness import robustness
from segpipe.registry import AUGMENTATIONS
from segpipe.run import Run
from segpipe.training import trainer as training
from segpipe.training.network import make_network
from segpipe.training.schedule import Budget
from segpipe.training.task import SegmentationTask

CUDA = torch.device("cuda", 0)
MOST_WAITS = 0  # of a step
MOST_WAITS_OF_ALL = 0  # with what Lightning, progress bars and other callbacks add
TINY = ["model.channels=[4,8]", "plan.batch=2", "data.workers=0", "trainer.precision=float32"]
PATCHES = {"unet2d": "plan.patch=[16,12]", "unet3d": "plan.patch=[12,16,8]"}
TRUTHS = {
    "labels": "data.ignore_label=null",
    "regions": "data.regions={whole:[1,2,4],inner:[1,4]}",
    "ignored": "data.ignore_label=3",
}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedGpu]:
    with pretended_gpu(monkeypatch) as pretended:
        yield pretended


# --- a training step


class Steps:
    """A network and its optimiser on the pretended GPU, and batches as the loader gives them."""

    def __init__(self, *words: str) -> None:
        self.options = composed(*TINY, *words)
        self.plan: Plan = plan(*TINY, *words)
        network = make_network(self.options.model, self.plan, 0).module
        budget = Budget.of(self.options.trainer)
        data = TrainedOn("tiny", "", 1, 1)
        self.task = SegmentationTask(network, self.plan, self.options, budget, "float32", data)
        self.task.to(CUDA)
        self.task.loss._to_device(CUDA)  # as the first step does, once
        self.optimiser: Any = self.task.configure_optimizers()
        self.data = CaseData([], [], self.plan, self.options, CUDA)

    def batch(self, number: int) -> dict[str, Any]:
        """Return the patches of a step, as they are cut, in pinned memory."""
        sampler = make_sampler(self.plan, 0.5, self.options.augment)
        count = self.plan.batch
        rng = torch.Generator().manual_seed(number)
        size = (count, 1, *sampler.size)
        label = torch.randint(0, 4, size, generator=rng, dtype=torch.uint8)
        if self.plan.ignore is not None:
            label[label == 3] = IGNORED
        image = torch.randn(size, generator=rng)
        seeds = torch.arange(count) + count * number
        cases = ["case"] * count
        batch = {"image": image.pin_memory(), "label": label.pin_memory()}
        return batch | {"seed": seeds, "case": cases}

    def step(self, number: int) -> torch.Tensor:
        """Feed, compute and learn from a batch; return the loss."""
        batch = self.data.transfer_batch_to_device(self.batch(number), CUDA, 0)
        batch = self.data.on_after_batch_transfer(batch, 0)
        loss = self.task.training_step(batch, number)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.task.network.parameters(), 5.0)
        self.optimiser.step()
        return loss.detach()


LONG_SKIPS = ["none", "add", "concat", "gate"]
SHORT_SKIPS = ["none", "residual", "dense"]
ROWS = pairwise(
    list(PATCHES),
    list(TRUTHS),
    LONG_SKIPS,
    SHORT_SKIPS,
    ["none", "light", "strong"],
    ["model.deep_supervision=true", "model.deep_supervision=false"],
    ["optim=adamw", "optim=sgd"],
)
REST = ("strong", "model.deep_supervision=true", "optim=adamw")
ALL_ROWS = [(*row, *REST) for row in itertools.product(PATCHES, TRUTHS, LONG_SKIPS, SHORT_SKIPS)]


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize("row", ROWS, ids=" ".join)
def test_a_step_stays_on_its_device_and_seldom_waits(gpu: PretendedGpu, row: Any) -> None:
    _check_step(gpu, row)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize("row", ALL_ROWS, ids=" ".join)
def test_a_step_of_any_network_stays_on_its_device(gpu: PretendedGpu, row: Any) -> None:
    _check_step(gpu, row)


def _check_step(gpu: PretendedGpu, row: tuple[str, ...]) -> None:
    network, truth, long_skip, short_skip, augment, supervision, optimiser = row
    steps = Steps(
        f"model={network}",
        PATCHES[network],
        TRUTHS[truth],
        f"model.long_skips={long_skip}",
        f"model.short_skips={short_skip}",
        f"model.growth_rate={2 if short_skip == 'dense' else 'null'}",
        f"augment={augment}",
        "augment.warmup=0",
        supervision,
        optimiser,
    )
    gpu.waits.clear()
    assert steps.step(0).device == CUDA
    assert gpu.waits.total() <= MOST_WAITS, gpu.waits


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize("network", list(PATCHES))
def test_every_augmentation_stays_on_its_device_and_never_waits(
    gpu: PretendedGpu, network: str
) -> None:
    steps = Steps(
        f"model={network}",
        PATCHES[network],
        "augment=strong",
        "augment.warmup=0",
        "augment.mirror_axes=[0,1]",
        *[f"augment.{name}=1" for name in ("affine", "elastic", *AUGMENTATIONS.names())],
    )
    batch = steps.data.transfer_batch_to_device(steps.batch(0), CUDA, 0)
    gpu.waits.clear()
    changed = steps.data.on_after_batch_transfer(batch, 0)
    assert changed["image"].device == changed["label"].device == CUDA
    assert not gpu.waits
    on_host = steps.data.on_after_batch_transfer(steps.batch(0), 0)
    assert torch.equal(changed["image"].cpu(), on_host["image"])
    assert torch.equal(changed["label"].cpu(), on_host["label"])


# --- what feeds it


def test_patches_are_pinned_where_the_network_is_on_the_gpu_alone(
    gpu: PretendedGpu, tmp_path: Path
) -> None:
    options = composed(*TINY, PATCHES["unet3d"], f"data.cache={tmp_path / 'cache'}")
    planned = plan(*TINY, PATCHES["unet3d"])
    for device in (CUDA, torch.device("cpu")):
        data = CaseData([case(tmp_path)], [], planned, options, device)
        data.trainer = SimpleNamespace(global_step=0)  # type: ignore[assignment]
        data.setup("fit")
        batch = next(iter(data.train_dataloader()))
        assert batch["image"].is_pinned() == (device == CUDA)


def test_workers_are_as_many_as_cores_that_the_process_may_use(
    gpu: PretendedGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 5, 6}, raising=False)
    assert count_workers(None, CUDA) == 2  # one core is left to the network


# --- a whole training


def options_of(folder: Path, *words: str) -> Train:
    source = ["data=folder", f"data.root={folder / 'data'}", f"data.cache={folder / 'cache'}"]
    labels = "data.labels={background:0,organ:1,core:2}"
    budget = ["trainer.steps_per_epoch=4", "trainer.validations=1", "trainer.device=cuda"]
    patch = "plan.patch=[12,16,8]"
    return composed(*TINY, *source, labels, *budget, patch, "page.viewer=false", *words)


class WaitsOfSteps(pl.Callback):
    """Waits between the ends of two steps of an epoch, by line, as an average."""

    def __init__(self, gpu: PretendedGpu) -> None:
        self.gpu = gpu
        self.before: Counter[str] | None = None
        self.waits: Counter[str] = Counter()
        self.steps = 0

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        if self.before is not None:
            self.waits += self.gpu.waits - self.before
            self.steps += 1
        self.before = Counter(self.gpu.waits)

    def on_train_epoch_end(self, *_: Any, **__: Any) -> None:
        self.before = None

    def on_validation_start(self, *_: Any, **__: Any) -> None:
        self.before = None


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, WaitsOfSteps]]:
    """The folder of a short training on the pretended GPU, `run` inside it, and its waits."""
    folder = tmp_path_factory.mktemp("gpu")
    write_cases(folder / "data", 5)
    with pytest.MonkeyPatch.context() as patch, pretended_gpu(patch) as gpu:
        waits = WaitsOfSteps(gpu)
        callbacks = training._callbacks
        patch.setattr(training, "_callbacks", lambda *given: [*callbacks(*given), waits])
        run = Run(options_of(folder, "trainer.max_steps=8"), folder / "run", [])
        run.prepare()
        run.train()
    yield folder, waits
    shutil.rmtree(folder)


def test_a_step_of_a_whole_training_seldom_waits(trained: tuple[Path, WaitsOfSteps]) -> None:
    folder, waits = trained
    assert (folder / "run/checkpoints/best.ckpt").is_file()
    assert (folder / "run/dice.csv").is_file()
    assert waits.steps == 6
    assert waits.waits.total() <= MOST_WAITS_OF_ALL * waits.steps, waits.waits


def test_a_run_goes_on_where_it_stopped(
    trained: tuple[Path, WaitsOfSteps], gpu: PretendedGpu
) -> None:
    folder = trained[0]
    shutil.copytree(folder / "run", folder / "resumed")
    resumed = f"resume={folder / 'resumed'}"
    run = Run(options_of(folder, "trainer.max_steps=12", resumed), folder / "resumed", [])
    run.prepare()
    run.train()
    assert checkpoint.load(folder / "resumed/checkpoints/last.ckpt").step == 12


# --- a prediction


def test_a_scan_is_predicted_alike_by_all_ways_that_memory_allows(
    trained: tuple[Path, WaitsOfSteps], gpu: PretendedGpu
) -> None:
    folder = trained[0]
    predictor = Predictor.of(checkpoint.load(folder / "run"), CUDA, "float32")
    predictor.batch_size = 4
    scan = prepare_scan([folder / "data/images/case0.nii"], predictor.plan)
    plans = predictor.fallbacks_for(scan.grid)
    assert [str(plan.blending) for plan in plans] == ["cuda:0", "cpu", "cpu", "cpu"]
    masks = []
    for way in plans:
        masks.append(predictor._segmenter()(scan, way, "", None).labels)
    on_host = Predictor.of(checkpoint.load(folder / "run"), torch.device("cpu"), "float32")
    expected = on_host.segment(scan).labels
    assert all(np.array_equal(mask, expected) for mask in masks)


def test_scarce_memory_of_a_gpu_leads_to_the_next_way(
    trained: tuple[Path, WaitsOfSteps], gpu: PretendedGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = trained[0]
    predictor = Predictor.of(checkpoint.load(folder / "run"), CUDA, "float32")
    compute = predictor._compute
    sizes: list[int] = []

    def scarce(patches: torch.Tensor) -> torch.Tensor:
        sizes.append(len(patches))
        if len(patches) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return compute(patches)

    predictor.batch_size = 4
    monkeypatch.setattr(predictor, "_compute", scarce)
    found = predictor.predict(folder / "data/images/case0.nii")
    assert sizes[:4] == [4, 4, 2, 1]
    assert found.note.endswith("done with 1 window at once, blended on cpu")


@pytest.mark.parametrize(
    ("save", "skip_air"), [(("mask",), True), (("mask", "probabilities", "entropy"), False)]
)
def test_a_ct_is_predicted_on_the_device(
    gpu: PretendedGpu, save: tuple[str, ...], skip_air: bool
) -> None:
    words = [*TINY, PATCHES["unet3d"], "plan.normalise=ct"]
    planned = plan(*words)
    network = make_network(composed(*words).model, planned, 0).module.to(CUDA)
    predictor = Predictor(network, planned, CUDA, save=save, skip_air=skip_air)
    image = np.full((30, 20, 12), -1000.0, np.float32)
    image[18:, 4:16, 2:10] = 40.0
    found = predictor.predict(nib.Nifti1Image(image, np.eye(4)))
    assert found.labels.shape == image.shape
    assert (found.skipped > 0) == skip_air
    assert (found.maps.entropy is not None) == ("entropy" in save)


@pytest.mark.parametrize("rules", ["whole", "scarce", "failing"])
def test_a_scan_enters_model_space_where_there_is_room(
    trained: tuple[Path, WaitsOfSteps],
    gpu: PretendedGpu,
    monkeypatch: pytest.MonkeyPatch,
    rules: str,
) -> None:
    folder = trained[0]
    predictor = Predictor.of(checkpoint.load(folder / "run"), CUDA, "float32")
    files = [folder / "data/images/case0.nii"]
    on_host = prepare_scan(files, predictor.plan)
    if rules == "failing":
        monkeypatch.setattr("segpipe.data.prepare.to_device", _out_of_memory_on_the_gpu)
    with monkeypatch.context() as scarce:
        if rules == "scarce":
            scarce.setattr("segpipe.prediction.inference_plan.usable_mib", lambda _: 0.0)
        entrance = predictor.entrance(on_host.grid)
    assert entrance.type == ("cpu" if rules == "scarce" else "cuda")
    scan = prepare_scan(files, predictor.plan, device=entrance)
    assert gpu.device_of(scan.image).type == ("cuda" if rules == "whole" else "cpu")
    assert torch.equal(scan.image.cpu(), on_host.image)
    for way in predictor.fallbacks_for(scan.grid):
        found = predictor._segmenter()(scan, way, "", None).labels
        assert np.array_equal(found, predictor.segment(on_host).labels)


def _out_of_memory_on_the_gpu(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    if device.type == "cuda":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    return tensor


# --- the commands that measure networks


@pytest.mark.parametrize(
    ("schema", "command", "few"),
    [
        (Lesion, lesion, {"lesions": ["zero", "shuffle"], "cases": ["case0", "case1"]}),
        (Landscape, landscape, {"patches": 2, "axes": 1, "max_time": "00:00:00:01"}),
        (
            Robustness,
            robustness,
            {"blur_mm": [1], "noise": [0.2], "bias": [0.2], "coarser": [2]},
        ),
    ],
)
def test_a_probe_runs_on_the_device(
    trained: tuple[Path, WaitsOfSteps],
    gpu: PretendedGpu,
    tmp_path: Path,
    schema: Any,
    command: Any,
    few: dict[str, Any],
) -> None:
    folder = trained[0]
    given = {
        "checkpoint": str(folder / "run"),
        "data_root": str(folder / "data"),
        "output": str(tmp_path / "probe"),
        "device": "cuda",
    }
    options = validate(schema, defaults(schema.__name__.lower()) | given | few)
    assert command(options) == 0
    assert list((tmp_path / "probe").glob("*.csv"))

"""Everything that a GPU decides, measured by one command in under nine minutes on an H100.

    python benchmarks/gpu.py --data Task04_Hippocampus     # on a GPU; without --data all but the training to a Dice
    python benchmarks/gpu.py --tiny                        # seconds, on any device: a test of the script itself

Each figure is printed as soon as it is known, and written to `gpu.json` (`--output`), so that a run that is cut off still
tells something; a table of all ends it. A part is left out where its share of `--minutes` is no longer there. Times are
of CUDA events on a GPU, of the clock on a CPU.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from step import batch_of, enlarged, options_of, plan_of, ready
from synthetic import plan_of_ct, write_checkpoint, write_ct

from segpipe.accelerator import gpu_facts, place, tune_process
from segpipe.config.train import Train
from segpipe.data.phantom import write_phantom
from segpipe.device import NumberFormat, choose_device, choose_format, computing_in
from segpipe.nets.build import CHANNELS_LAST, build
from segpipe.plan import Plan
from segpipe.planning.memory import step_mib
from segpipe.prediction.predictor import Predictor
from segpipe.stored import read_yaml
from segpipe.training.loss import SegmentationLoss
from segpipe.training.optim import make_optimizer
from segpipe.windows import to_network

ROOT = Path(__file__).resolve().parents[1]
GOAL = 0.889  # Dice of the hippocampus fold
MIB = 2**20
OF_ANY_DEVICE = ("as it is", "contiguous", "bf16")  # variants that tell something of a CPU
WARM_UP = 4  # steps, in which cuDNN tries its algorithms


@dataclass(frozen=True)
class Sizes:
    """How large everything is that is measured."""

    copied_mib: int = 1024
    matrix: int = 8192
    steps: int = 20
    nets: dict[str, list[str]] = field(
        default_factory=lambda: {
            "hippocampus, batch 16": ["plan.patch=[40,56,40]", "plan.batch=16", "model.channels=[32,64,128,256]"],
            "128^3, batch 2": ["plan.patch=[128,128,128]", "plan.batch=2", "model.channels=[32,64,128,256,320,320]"],
            "nnunet, 128^3, batch 2": ["plan.patch=[128,128,128]", "plan.batch=2", "model=nnunet"],
        }
    )  # fmt: skip
    workers: Sequence[int] = (0, 4, 8, 15)
    scans: int = 5
    scan: tuple[int, int, int] = (512, 512, 200)
    window: int = 128
    channels: str = "model.channels=[32,64,128,256,320,320]"
    training: str = "trainer.max_time=00:00:02:30"


TINY = Sizes(
    copied_mib=1, matrix=64, steps=1, nets={"tiny": ["plan.patch=[16,16,16]", "plan.batch=2", "model.channels=[4,8]"]},
    workers=(0,), scans=1, scan=(40, 40, 24), window=16, channels="model.channels=[4,8]", training="trainer.max_steps=2",
)  # fmt: skip


class Figures:
    """What is known so far: printed at once, and kept in a file."""

    def __init__(self, file: Path, device: torch.device) -> None:
        self.file, self.rows = file, []
        self.facts: dict[str, Any] = {
            "torch": torch.__version__,
            "device": str(device),
            **gpu_facts(device),
        }

    def add(self, name: str, value: float | str, unit: str = "") -> None:
        """Adds a figure."""
        value = float(f"{value:.4g}") if isinstance(value, float) else value
        self.rows.append({"figure": name, "value": value, "unit": unit})
        print(f"{name}: {value} {unit}", flush=True)
        self.file.write_text(json.dumps({**self.facts, "figures": self.rows}, indent=2) + "\n")

    def table(self) -> None:
        """Prints all figures once more, one below the other."""
        width = max(len(row["figure"]) for row in self.rows)
        print(
            "\n"
            + "\n".join(
                f"{row['figure']:{width}s}  {row['value']} {row['unit']}" for row in self.rows
            )
        )


@dataclass(frozen=True)
class Switches:
    """How a step is computed; the values are those of a training, unless a variant has others."""

    number_format: NumberFormat = "float32"
    layout: str = "placed"
    tf32: bool = False
    benchmark: bool = True
    fused: bool = True
    compiled: bool = False


def variants(usual: Switches) -> dict[str, Switches]:
    """The ways in which a step is measured: each differs from the usual one in a single switch."""
    changed: dict[str, dict[str, Any]] = {
        "as it is": {}, "channels last": {"layout": "channels_last"}, "contiguous": {"layout": "contiguous"},
        "float32": {"number_format": "float32"}, "float32 with TF32": {"number_format": "float32", "tf32": True},
        "bf16": {"number_format": "bf16"}, "fp16": {"number_format": "fp16"}, "benchmark off": {"benchmark": False},
        "not fused": {"fused": False}, "compiled": {"compiled": True},
    }  # fmt: skip
    return {name: Switches(**{**asdict(usual), **change}) for name, change in changed.items()}


def stepper(
    options: Train, plan: Plan, device: torch.device, how: Switches
) -> Callable[[dict[str, Any]], None]:
    """A function that takes one training step, computed so."""
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = how.benchmark
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = how.tf32
    network = place(
        build(options.model, 1, plan.outputs, plan.strides, plan.kernels), device
    ).train()
    if how.layout != "placed":
        layout = (
            CHANNELS_LAST[plan.dims] if how.layout == "channels_last" else torch.contiguous_format
        )
        network.to(memory_format=layout)  # type: ignore[call-overload]
    loss, optimizer = (
        SegmentationLoss(plan, options.loss.weights, options.loss),
        make_optimizer(network, options.optim),
    )
    for group in optimizer.param_groups:
        group["fused"] = group.get("fused") and how.fused
    scaler = torch.amp.GradScaler(device.type, enabled=how.number_format == "fp16")
    forward: Any = torch.compile(network) if how.compiled else network

    def step(batch: dict[str, Any]) -> None:
        image, label = (
            to_network(batch[name].to(device), plan.slice_axis) for name in ("image", "label")
        )
        with computing_in(how.number_format, device):
            logits = forward(image)
        scaler.scale(loss(logits, label)).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return step


def milliseconds(work: Callable[[], object], device: torch.device, times: int) -> float:
    """The time of some work that is done several times, as the device has it."""
    if device.type != "cuda":
        start = time.perf_counter()
        for _ in range(times):
            work()
        return 1000 * (time.perf_counter() - start) / times
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    first.record()
    for _ in range(times):
        work()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / times


@dataclass
class Bench:
    """The parts of the benchmark."""

    device: torch.device
    sizes: Sizes
    figures: Figures
    data: Path | None

    @property
    def usual(self) -> Switches:
        """How a training computes on this device."""
        return Switches(choose_format("auto", self.device))

    def ceilings(self) -> None:
        """What the device could do at best: copies and matrix products."""
        block = torch.empty(self.sizes.copied_mib * MIB // 4, device=self.device)
        ms = milliseconds(block.clone, self.device, 5)
        self.figures.add("copy", 2 * self.sizes.copied_mib / 1024 / ms * 1000, "GiB/s")
        for dtype in (torch.float32, torch.bfloat16):
            square = torch.ones(
                self.sizes.matrix, self.sizes.matrix, device=self.device, dtype=dtype
            )
            _ = square @ square
            ms = milliseconds(lambda one=square: one @ one, self.device, 5)
            self.figures.add(
                f"matrix product, {dtype}".replace("torch.", ""),
                2 * self.sizes.matrix**3 / ms / 1e9,
                "TFLOP/s",
            )

    def waits(self) -> None:
        """How often the host waits for the device in a step, by what CUDA itself says."""
        if self.device.type != "cuda":
            return self.figures.add("waits per step", "of a GPU only")
        options = options_of(["plan.patch=[40,56,40]", "plan.batch=2", "model.channels=[16,32,64]"])
        plan = plan_of(options)
        step, batch = (
            stepper(options, plan, self.device, self.usual),
            on(batch_of(plan), self.device),
        )
        for _ in range(WARM_UP):
            step(batch)
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as noted:
            warnings.simplefilter("always")
            step(batch)
        torch.cuda.set_sync_debug_mode("default")
        self.figures.add(
            "waits per step", len([one for one in noted if "synchroniz" in str(one.message)])
        )

    def step(self) -> None:
        """A step of each network, computed in each way."""
        for name, words in self.sizes.nets.items():
            options = options_of(words)
            plan = plan_of(options)
            batch = on(batch_of(plan), self.device)
            for way, how in variants(self.usual).items():
                if self.device.type != "cuda" and way not in OF_ANY_DEVICE:
                    continue
                with noting(self.figures, f"step, {name}, {way}"):
                    step = stepper(options, plan, self.device, how)
                    for _ in range(WARM_UP if self.sizes.steps > 1 else 1):
                        step(batch)
                    ms = milliseconds(partial(step, batch), self.device, self.sizes.steps)
                    self.figures.add(f"step, {name}, {way}", ms, "ms")
        tune_process(self.device)

    def loader(self) -> None:
        """A step with its patches against the step alone, by the number of workers."""
        with tempfile.TemporaryDirectory() as folder:
            write = (
                enlarged
                if self.sizes is not TINY
                else lambda root: write_phantom(root, train=3, test=0)
            )
            write(Path(folder) / "phantom")
            source = [
                "data=decathlon",
                f"data.root={folder}/phantom",
                f"data.cache={folder}/cache",
                "augment.warmup=0",
            ]
            for workers in self.sizes.workers:
                options = options_of([*source, f"data.workers={workers}", *next(iter(self.sizes.nets.values())),
                                      f"trainer.steps_per_epoch={4 * self.sizes.steps}"])  # fmt: skip
                data = ready(options, self.device, self.usual.number_format)
                data.trainer = argparse.Namespace(global_step=0)  # type: ignore[assignment]
                step = stepper(options, data.plan, self.device, self.usual)
                batches = iter(data.train_dataloader())

                def fed(batches: Any = batches, data: Any = data, step: Any = step) -> None:
                    batch = data.transfer_batch_to_device(next(batches), self.device, 0)
                    step(data.on_after_batch_transfer(batch, 0))

                fed()
                with_patches = milliseconds(fed, self.device, self.sizes.steps)
                fixed = on(batch_of(data.plan), self.device)
                bare = milliseconds(partial(step, fixed), self.device, self.sizes.steps)
                self.figures.add(
                    f"step with patches / bare step, {workers} workers", with_patches / bare
                )

    def memory(self) -> None:
        """What a step is forecast to need, and what it takes."""
        if self.device.type != "cuda":
            return self.figures.add("memory", "of a GPU only; of a CPU: benchmarks/memory.py")
        for name, words in self.sizes.nets.items():
            options = options_of(words)
            plan = plan_of(options)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            step, batch = (
                stepper(options, plan, self.device, self.usual),
                on(batch_of(plan), self.device),
            )
            for _ in range(WARM_UP):
                step(batch)
            forecast = step_mib(plan, options, self.usual.number_format, "cuda")
            self.figures.add(f"memory, {name}, forecast", forecast, "MiB")
            self.figures.add(
                f"memory, {name}, allocated", torch.cuda.max_memory_allocated() / MIB, "MiB"
            )
            self.figures.add(
                f"memory, {name}, reserved", torch.cuda.max_memory_reserved() / MIB, "MiB"
            )

    def prediction(self) -> None:
        """CTs end to end against their forward passes alone; masks of the GPU against those of the CPU."""
        options = options_of(
            [
                self.sizes.channels,
                "plan.spacing=[1,1,1]",
                f"plan.patch={[self.sizes.window] * 3}".replace(" ", ""),
            ]
        )
        plan = plan_of_ct(options, 1.0)
        torch.manual_seed(0)
        network = build(options.model, 1, plan.outputs, plan.strides, plan.kernels).eval()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_checkpoint(folder / "random.ckpt", options, plan, network)
            (folder / "scans").mkdir()
            for number in range(self.sizes.scans):
                write_ct(
                    folder / f"scans/scan{number}.nii.gz", self.sizes.scan, (0.8, 0.8, 1.0), number
                )
            start = time.perf_counter()
            call = ["predict.py", f"checkpoint={folder}/random.ckpt", f"input={folder}/scans", f"output={folder}/masks",
                    f"device={self.device}", "skip_air=false"]  # fmt: skip
            subprocess.run([sys.executable, *call], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            whole = time.perf_counter() - start
            with (folder / "masks/predictions.csv").open() as table:
                network_s = [
                    float(row["network_seconds"])
                    for row in csv.DictReader(table)
                    if row.get("network_seconds")
                ]
            self.figures.add("prediction, whole command", whole, "s")
            if network_s:
                self.figures.add(
                    "prediction, whole command / network alone", whole / sum(network_s)
                )
            if self.device.type == "cuda":
                self._agreement(network, plan, folder / "scans/scan0.nii.gz")

    def _agreement(self, network: torch.nn.Module, plan: Plan, scan: Path) -> None:
        on_host = Predictor(network, plan, torch.device("cpu"), "float32").predict(scan).labels
        for number_format in ("float32", "bf16"):
            found = (
                Predictor(network.to(self.device), plan, self.device, number_format)
                .predict(scan)
                .labels
            )
            self.figures.add(
                f"masks as on the CPU, {number_format}",
                100 * float((found == on_host).mean()),
                "% of voxels",
            )

    def training(self) -> None:
        """A short training: minutes to the goal, and the shares of validations and of everything else."""
        with tempfile.TemporaryDirectory() as name:
            run = Path(name) / "run"
            if self.data is None:
                source = [
                    "data=phantom",
                    f"data.root={name}/phantom",
                    "data.phantom.train=3",
                    "data.phantom.test=1",
                ]
            else:
                source = ["data=decathlon", f"data.root={self.data}", "data.fold=0"]
            small = (
                [*TINY.nets["tiny"], "trainer.steps_per_epoch=2", "trainer.validations=1"]
                if self.sizes is TINY
                else []
            )
            call = ["train.py", *source, *small, f"data.cache={name}/cache", self.sizes.training,
                    f"trainer.device={self.device}", f"hydra.run.dir={run}", "trainer.postprocess=false",
                    "trainer.quality=false", "page.viewer=false"]  # fmt: skip
            subprocess.run([sys.executable, *call], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            self._tell(run)

    def _tell(self, run: Path) -> None:
        with (run / "metrics.csv").open() as table:
            rows = [
                (int(row["step"]), float(row["dice/mean"]))
                for row in csv.DictReader(table)
                if row.get("dice/mean")
            ]
        self.figures.add("training, highest Dice", max(dice for _, dice in rows))
        step_s = json.loads((run / "cost.json").read_text())["seconds_per_step"]
        self.figures.add("training, seconds per step", step_s, "s")
        reached = [step for step, dice in rows if dice >= GOAL]
        self.figures.add(
            f"training, to Dice {GOAL}",
            step_s * reached[0] / 60 if reached else "not reached",
            "min of steps",
        )
        self.figures.add("training, channels", str(read_yaml(run / "plan.yaml")["widths"]))
        for phase in json.loads((run / "stages.json").read_text()):
            self.figures.add(f"training, {phase['name']}", float(phase["seconds"]), "s")


def on(batch: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """The batch on the device."""
    return {name: tensor.to(device) for name, tensor in batch.items()}


@contextmanager
def noting(figures: Figures, name: str) -> Iterator[None]:
    """Lets what cannot be done here be a line, rather than the end of all that follows."""
    try:
        yield
    except Exception as error:  # whatever a driver or compiler does not like
        figures.add(
            name,
            f"failed: {type(error).__name__}: {str(error).strip().partition(chr(10))[0][:100]}",
        )


def main() -> None:
    """Measures part by part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, help="Task04_Hippocampus of the Medical Segmentation Decathlon"
    )
    parser.add_argument(
        "--tiny", action="store_true", help="sizes with which any device is done in seconds"
    )
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", nargs="+", help="names of parts")
    asked = parser.parse_args()
    device = choose_device(asked.device)
    tune_process(device)
    bench = Bench(
        device, TINY if asked.tiny else Sizes(), Figures(asked.output, device), asked.data
    )
    # seconds that each may take
    parts = {
        "ceilings": 20,
        "waits": 20,
        "step": 130,
        "loader": 45,
        "memory": 40,
        "prediction": 70,
        "training": 200,
    }
    end = time.monotonic() + 60 * asked.minutes
    for name, needed in parts.items():
        if asked.only and name not in asked.only:
            continue
        if not asked.tiny and time.monotonic() + needed > end:
            bench.figures.add(name, "left out: no time left")
            continue
        start = time.monotonic()
        with noting(bench.figures, name):
            getattr(bench, name)()
        bench.figures.add(f"{name}, all", time.monotonic() - start, "s")
    bench.figures.table()


if __name__ == "__main__":
    main()

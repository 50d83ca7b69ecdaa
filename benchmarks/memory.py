"""The memory of a training step: what the plan estimates against the peak that is measured.

    python benchmarks/memory.py

Each configuration runs in a process of its own. On a CPU the peak is that of the resident memory (Linux), less what was
resident before the network was made; on a GPU that of torch's own allocator.
"""

import subprocess
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

CASES = {
    "unet3d, 96x96x96, batch 2, bf16": ["plan.patch=[96,96,96]", "plan.batch=2", "trainer.precision=bf16"],
    "unet3d, 96x96x96, batch 2, float32": ["plan.patch=[96,96,96]", "plan.batch=2", "trainer.precision=float32"],
    "unet3d, 64x64x64, batch 8, bf16": ["plan.patch=[64,64,64]", "plan.batch=8", "trainer.precision=bf16"],
    "unet3d without long skips, float32": ["plan.patch=[96,96,96]", "plan.batch=2", "trainer.precision=float32",
                                           "model.long_skips=none"],
    "nnunet, 96x96x96, batch 2, bf16": ["model=nnunet", "plan.patch=[96,96,96]", "plan.batch=2",
                                        "trainer.precision=bf16"],
    "unet2d, 512x512, batch 8, bf16": ["model=unet2d", "plan.patch=[512,512]", "plan.batch=8",
                                       "trainer.precision=bf16"],
    "resunet_2016, 256x256, batch 8, float32": ["model=resunet_2016", "plan.patch=[256,256]", "plan.batch=8",
                                                "trainer.precision=float32"],
    "unet2d_2015, 256x256, batch 8, bf16": ["model=unet2d_2015", "plan.patch=[256,256]", "plan.batch=8",
                                            "trainer.precision=bf16"],
}  # fmt: skip


def main() -> None:
    """Prints a line per configuration."""
    if len(sys.argv) > 1:
        return one(sys.argv[1:])
    print(f"{'configuration':42s}  estimate MiB  peak MiB  ratio")
    for name, overrides in CASES.items():
        done = subprocess.run(
            [sys.executable, __file__, *overrides], capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(done.stderr)
        estimate, peak = map(float, done.stdout.split())
        print(f"{name:42s}  {estimate:12.0f}  {peak:8.0f}  {estimate / peak:5.2f}", flush=True)


def one(overrides: list[str]) -> None:
    """Prints estimate and peak of one configuration."""
    from step import options_of, plan_of, train_steps

    from segpipe.device import choose_device, choose_format, hold_memory
    from segpipe.planning.memory import step_mib

    options = options_of(overrides)
    device = choose_device(options.trainer.device)
    hold_memory(device)
    number_format = choose_format(options.trainer.precision, device)
    plan = plan_of(options)
    small = plan.model_copy(
        update={"batch": 2, "patch": [size if size == 1 else size // 2 for size in plan.patch]}
    )
    train_steps(options, small, device, number_format, steps=1)  # what libraries take once
    before = _reset(device)
    train_steps(options, plan, device, number_format, steps=3)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else _status("VmHWM")
    print(step_mib(plan, options, number_format), (peak - before) / 2**20)


def _reset(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()

"""Checkpoints of small networks that were never trained."""

from dataclasses import replace
from pathlib import Path

import torch
from support.config import composed
from support.plans import fingerprint

from segpipe.checkpoint import KEY, NETWORK, TrainedOn, metadata
from segpipe.nets.build import build
from segpipe.planning.rules import make_plan

PHANTOM_LABELS = {"background": 0, "liver": 1, "kidneys": 2, "vessel": 4}


def write_checkpoint(file: Path, channels: int = 1) -> Path:
    """A checkpoint of a network of two labels, which predicts in no time."""
    options = composed("model.channels=[4,8]", "plan.spacing=[1,1,2]", "plan.patch=[16,16,8]")
    labels = {"background": 0, "organ": 1}
    names = ["MRI", "T2", "FLAIR", "T1"][:channels]
    one = fingerprint((1.0, 1.0, 2.0), (20, 16, 8))
    zeros = one.zero_fraction * channels
    cases = replace(one, zero_fraction=zeros, foreground=one.foreground * channels)
    plan = make_plan(options, cases, names, labels, "cpu")
    torch.manual_seed(0)
    network = build(options.model, channels, plan.outputs, plan.strides, plan.kernels)
    weights = {NETWORK + name: weight for name, weight in network.state_dict().items()}
    torch.save({"state_dict": weights, KEY: metadata(options.model_dump(mode="json"), plan)}, file)
    return file


def network_file(file: Path, *overrides: str, seed: int = 0) -> Path:
    """A checkpoint of a network that was never trained; its weights are wide, so that all labels occur."""
    options = composed("model.channels=[4,8]", *overrides)
    dims = options.model.dims
    plan = make_plan(
        options, fingerprint((2.0, 2.0, 2.0), (40, 36, 32)), ["MRI"], PHANTOM_LABELS, "cpu"
    )
    torch.manual_seed(seed)
    network = build(options.model, 1, plan.outputs, plan.strides, plan.kernels)
    weights = {NETWORK + name: weight for name, weight in network.state_dict().items()}
    data, dice = (
        TrainedOn("Phantom", "c0ffee", 8, 2),
        {"liver": 0.9, "kidneys": 0.8, "vessel": float("nan")},
    )
    about = metadata(options.model_dump(mode="json"), plan, data, dice)
    torch.save({"state_dict": weights, "global_step": 1234 + dims, KEY: about}, file)
    return file

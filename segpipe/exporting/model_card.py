"""The card of a checkpoint in the form of the Hugging Face Hub: metadata in YAML, then Markdown."""

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from segpipe import checkpoint
from segpipe.checkpoint import Trained
from segpipe.plan import Plan
from segpipe.text import count

UNKNOWN = "not noted"
NOTE = (
    "Written by segpipe from what the checkpoint stores. It is research software: not a medical "
    "device, and not validated for clinical use."
)


def model_card(path: Path) -> str:
    """Return the model card of a checkpoint, or of the best one of a run.

    Args:
        path: folder of a run, or a checkpoint file.

    Raises:
        ConfigError: if there is none.
    """
    file = checkpoint.find(path)
    trained = checkpoint.load(file)
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    metadata = yaml.safe_dump(_metadata(trained), sort_keys=False, allow_unicode=True)
    return f"---\n{metadata}---\n\n" + "\n".join(_lines(trained, file, sha256)) + "\n"


def _metadata(trained: Trained) -> dict[str, Any]:
    """Return the metadata that the hub reads."""
    plan = trained.plan
    network = str(trained.config["model"]["network"])
    tags = ["medical-imaging", "image-segmentation", f"{plan.dims}d", network]
    return {
        "library_name": "segpipe",
        "license": "unknown",
        "pipeline_tag": "image-segmentation",
        "tags": list(dict.fromkeys([*tags, *map(str.lower, plan.channels)])),
        "model-index": [{"name": _name(trained), "results": [_result(trained)]}],
    }


def _name(trained: Trained) -> str:
    data = UNKNOWN if trained.data is None else trained.data.name
    return f"{trained.config['model']['network']} on {data}"


def _result(trained: Trained) -> dict[str, Any]:
    """Return the scores of the validation as the hub lists them."""
    data = trained.data
    metrics = []
    for name, value in trained.dice.items():
        if not math.isnan(value):  # of labels that no validation case has
            metrics.append({"type": "dice", "name": f"Dice {name}", "value": round(value, 4)})
    dataset = {"type": "other", "name": UNKNOWN if data is None else data.name}
    return {
        "task": {"type": "image-segmentation"},
        "dataset": dataset | {"split": "validation"},
        "metrics": metrics,
    }


def _lines(trained: Trained, file: Path, sha256: str) -> Iterator[str]:
    """Yield the lines of the text."""
    plan = trained.plan
    weights = sum(weight.numel() for weight in trained.network.parameters())
    yield f"# {_name(trained)}"
    yield f"\n{NOTE}\n"
    yield f"- Network: {trained.config['model']['network']}, {plan.dims}D, {weights:,} parameters"
    yield f"- Labels: {', '.join(f'{number} {name}' for name, number in plan.labels.items())}"
    for name, indices in (plan.regions or {}).items():
        yield f"- Region {name}: the labels of the indices {', '.join(map(str, indices))}"
    yield f"- Input: {_input(plan)}"
    yield from _training(trained)
    yield f"- File: `{file.name}`, SHA-256 `{sha256}`"
    yield "- License, intended use, population and limits: not noted; add them here"
    yield "\n## Scores\n"
    yield "Dice over whole validation scans, which have also chosen the checkpoint.\n"
    yield "| label | Dice |\n|---|---|"
    for name, value in trained.dice.items():
        yield f"| {name} | {value:.4f} |"
    yield "\n## Use\n"
    yield "```sh\npip install 'segpipe[hub]'"
    address = f"hf://ORG/NAME/{file.name}@COMMIT:{sha256}"
    yield f"segpipe-predict checkpoint={address} input=SCANS output=MASKS"
    yield "```\n\n## Plan\n"
    for reason in plan.reasons:
        yield f"- {reason}"


def _input(plan: Plan) -> str:
    """Return the channels, with how each is normalised."""
    channels = []
    for name, method in zip(plan.channels, plan.normalise, strict=True):
        channels.append(f"{name} ({method})")
    return ", ".join(channels)


def _training(trained: Trained) -> Iterator[str]:
    """Yield the lines on the training."""
    data = trained.data
    if data is None:
        yield f"- Training data: {UNKNOWN}"
    else:
        train = count(data.train, "training case")
        validate = count(data.validate, "validation case")
        yield f"- Training data: {data.name}, {train}, {validate}"
        yield f"- Hash of the data's voxels, labels and geometry: `{data.content}`"
    yield f"- Trained by segpipe {trained.version}, {trained.step:,} steps"

"""`python -m segpipe.export checkpoint=RUN output=network.onnx`: a trained network as ONNX."""

import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segpipe.cli import launch
from segpipe.config.checkpoint_tools import Export
from segpipe.config.validation import validate
from segpipe.ensembles import load_ensemble
from segpipe.errors import ConfigError, SegpipeError
from segpipe.files import atomic
from segpipe.text import first_line

if TYPE_CHECKING:
    from segpipe.checkpoint import Trained

log = logging.getLogger("segpipe")
MIN_AGREEMENT = 0.999  # share of voxels in which ONNX and torch must agree
AXES = "xyz"


def export(checkpoints: Sequence[Path], file: Path) -> float:
    """Write the network of a checkpoint, or the mean of several, as ONNX; compare it with torch.

    The input `image` is `(B, C, *spatial)` in float32, in model space and normalised as the plan
    says; the output `logits` is `(B, labels, *spatial)`. Batch and spatial axes may have any size
    that the network can halve. Plan, labels and config are stored as JSON in the metadata entry
    `segpipe`.

    Args:
        checkpoints: folder of a run or a checkpoint file, or several.
        file: ONNX file to write.

    Returns:
        The share of voxels with torch's label, on noise of two sizes the smaller one.

    Raises:
        ConfigError: if ONNX is not installed, or cannot take the network.
        SegpipeError: if the masks differ in more than one voxel of a thousand.
    """
    try:
        import onnxruntime  # noqa: F401  # pyright: ignore[reportMissingImports]
        import onnxscript  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError(
            f"ONNX: {error.name} is not installed: pip install 'segpipe[onnx]'"
        ) from None

    trained = load_ensemble(checkpoints)
    window = trained.plan.network_patch
    with atomic(file) as part:
        _write(trained, window, part)
        longer = [2 * window[0], *window[1:]]
        alike = min(agreement(trained, part, window), agreement(trained, part, longer))
        if alike < MIN_AGREEMENT:
            raise SegpipeError(
                f"{file}: only {alike:.2%} of voxels are as torch has them, so it was not written"
            )
    return alike


def _write(trained: "Trained", window: Sequence[int], file: Path) -> None:
    """Write the network as ONNX with names of its axes and with its metadata."""
    import onnx_ir  # pyright: ignore[reportMissingImports]
    import torch

    plan = trained.plan
    for package in ("torch.onnx", "onnxscript", "onnx_ir"):  # they log each node they remove
        logging.getLogger(package).setLevel(logging.ERROR)
    sizes = dict.fromkeys((0, *range(2, 2 + len(window))), torch.export.Dim.DYNAMIC)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside torch
            program = torch.onnx.export(
                trained.network,
                (torch.zeros(2, len(plan.channels), *window),),
                input_names=["image"],
                output_names=["logits"],
                dynamic_shapes=(sizes,),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter raises many types for unsupported networks
        raise ConfigError(f"ONNX: cannot take this network ({first_line(error)})") from None
    assert program is not None
    graph = program.model.graph
    space = list(AXES[: len(window)])
    graph.inputs[0].shape = onnx_ir.Shape(["batch", len(plan.channels), *space])
    graph.outputs[0].shape = onnx_ir.Shape(["batch", plan.outputs, *space])
    about = {
        "version": trained.version,
        "plan": plan.model_dump(),
        "config": trained.config,
        "dice": trained.dice,
    }
    about["data"] = trained.data and asdict(trained.data)
    program.model.metadata_props["segpipe"] = json.dumps(about)
    program.save(str(file), external_data=False)


def agreement(trained: "Trained", file: Path, size: Sequence[int]) -> float:
    """Return the share of voxels to which onnxruntime gives torch's label, on noise.

    For regions, return the share of voxels and regions with torch's decision.

    Args:
        trained: network in torch.
        file: the same network as ONNX.
        size: of the spatial axes.
    """
    import onnxruntime  # pyright: ignore[reportMissingImports]
    import torch

    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(1, len(trained.plan.channels), *size, generator=rng)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    computed = torch.from_numpy(session.run(None, {"image": noise.numpy()})[0])
    with torch.inference_mode():
        expected = trained.network(noise)
    if trained.plan.regions is not None:
        return float(((computed > 0) == (expected > 0)).float().mean())
    return float((computed.argmax(1) == expected.argmax(1)).float().mean())


def _export(values: dict[str, Any], _folder: Path, _overrides: list[str]) -> int:
    options = validate(Export, values)
    assert options.checkpoint is not None
    assert options.output is not None
    alike = export(options.checkpoint, options.output)
    log.info(
        "%s: %.3f %% of voxels as torch has them, on noise of two sizes",
        options.output,
        100 * alike,
    )
    return 0


if __name__ == "__main__":
    launch("export", Export, _export, "python -m segpipe.export")

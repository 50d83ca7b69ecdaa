"""`python -m segpipe.export checkpoint=RUN output=network.onnx`: a trained network for use without torch."""

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
from segpipe.errors import ConfigError, SegpipeError
from segpipe.files import atomic
from segpipe.text import first_line

if TYPE_CHECKING:
    from segpipe.checkpoint import Trained

log = logging.getLogger("segpipe")
ALIKE = 0.999  # share of voxels in which ONNX and torch must agree
AXES = "xyz"


def export(checkpoints: Sequence[Path], file: Path) -> float:
    """Writes the network of a checkpoint, or the mean of several, as ONNX, and checks it against torch on noise.

    Its input `image` is `(batch, channels, *space)` in float32, in model space and normalised as the plan says; its
    output `logits` is `(batch, labels, *space)`. Batch and space may have any size that the network can halve. The
    plan, the labels and the config stand in the file's metadata under `segpipe`, as JSON.

    Args:
        checkpoints: a run's folder or a checkpoint file, or several.
        file: to write.

    Returns:
        The share of voxels with the same label as torch's, the smallest of two sizes.

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
    from segpipe import checkpoint

    trained = checkpoint.load_ensemble(checkpoints)
    window = trained.plan.network_patch
    with atomic(file) as part:
        _write(trained, window, part)
        alike = min(
            agreement(trained, part, size) for size in (window, [2 * window[0], *window[1:]])
        )
        if alike < ALIKE:
            raise SegpipeError(
                f"{file}: only {alike:.2%} of voxels are as torch has them, so it was not written"
            )
    return alike


def _write(trained: "Trained", window: Sequence[int], file: Path) -> None:
    import onnx_ir  # pyright: ignore[reportMissingImports]
    import torch

    plan = trained.plan
    for noisy in (
        "torch.onnx",
        "onnxscript",
        "onnx_ir",
    ):  # they tell of each node that they take away
        logging.getLogger(noisy).setLevel(logging.ERROR)
    sizes = dict.fromkeys((0, *range(2, 2 + len(window))), torch.export.Dim.DYNAMIC)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own calls into itself
            program = torch.onnx.export(
                trained.network,
                (torch.zeros(2, len(plan.channels), *window),),
                input_names=["image"],
                output_names=["logits"],
                dynamic_shapes=(sizes,),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter tells in many ways what it does not know
        raise ConfigError(f"ONNX: cannot take this network ({first_line(error)})") from None
    assert program is not None
    graph, space = program.model.graph, list(AXES[: len(window)])
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
    """The share of voxels to which onnxruntime gives torch's label, or region by region its answer, on noise.

    Args:
        trained: the network in torch.
        file: the same as ONNX.
        size: of the space.
    """
    import onnxruntime  # pyright: ignore[reportMissingImports]
    import torch

    noise = torch.randn(
        1, len(trained.plan.channels), *size, generator=torch.Generator().manual_seed(0)
    )
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run(None, {"image": noise.numpy()})[0])
    with torch.inference_mode():
        expected = trained.network(noise)
    if trained.plan.regions is not None:
        return float(((found > 0) == (expected > 0)).float().mean())
    return float((found.argmax(1) == expected.argmax(1)).float().mean())


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

"""ONNX: for every runtime that is not PyTorch."""

import warnings
from pathlib import Path

import torch
from torch import Tensor

from segpipe.checkpoint import Trained
from segpipe.errors import ConfigError
from segpipe.exporting.formats import (
    Compute,
    Format,
    exported_program,
    exporting,
    metadata_json,
)
from segpipe.quiet import quiet

AXES = "xyz"


def write(trained: Trained, file: Path) -> None:
    """Write a network as ONNX with names of its axes and with its metadata.

    Raises:
        ConfigError: if ONNX is not installed, or cannot take the network.
    """
    _check_installed()
    import onnx_ir  # pyright: ignore[reportMissingImports]

    noisy = quiet("torch.onnx", "onnxscript", "onnx_ir")  # they log each node they remove
    with exporting("ONNX"), noisy, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch
        # exported first, since the ONNX exporter itself fails on sizes of a pooled shortcut
        exported = exported_program(trained)
        program = torch.onnx.export(
            exported,
            input_names=["image"],
            output_names=["logits"],
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    plan = trained.plan
    graph = program.model.graph
    space = list(AXES[: len(plan.network_patch)])
    graph.inputs[0].shape = onnx_ir.Shape(["batch", len(plan.channels), *space])
    graph.outputs[0].shape = onnx_ir.Shape(["batch", plan.outputs, *space])
    program.model.metadata_props["segpipe"] = metadata_json(trained)
    program.save(str(file), external_data=False)


def load(file: Path) -> Compute:
    """Return what computes an ONNX file by onnxruntime."""
    import onnxruntime  # pyright: ignore[reportMissingImports]

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def compute(image: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"image": image.numpy()})[0])

    return compute


def _check_installed() -> None:
    try:
        import onnxruntime  # noqa: F401  # pyright: ignore[reportMissingImports]
        import onnxscript  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError(
            f"ONNX: {error.name} is not installed: pip install 'segpipe[onnx]'"
        ) from None


ONNX = Format((".onnx",), write, load)

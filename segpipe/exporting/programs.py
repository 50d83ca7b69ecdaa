"""Programs of PyTorch that need neither segpipe nor the network's source: TorchScript and PT2."""

import warnings
from pathlib import Path

import torch

from segpipe.checkpoint import Trained
from segpipe.exporting.formats import (
    ABOUT,
    Compute,
    Format,
    example,
    exported_program,
    exporting,
    metadata_json,
)
from segpipe.quiet import quiet


def write_torchscript(trained: Trained, file: Path) -> None:
    """Write a network as TorchScript, traced.

    Raises:
        ConfigError: if it cannot be traced.
    """
    with exporting("torchscript"), warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of deprecation, and of sizes that are checked
        program = torch.jit.trace(trained.network, example(trained), check_trace=False)
        torch.jit.save(program, str(file), _extra_files={ABOUT: metadata_json(trained)})


def load_torchscript(file: Path) -> Compute:
    """Return what computes a file of TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecation
        return torch.jit.load(str(file), map_location="cpu")


def write_program(trained: Trained, file: Path) -> None:
    """Write a network as a program of `torch.export`.

    Raises:
        ConfigError: if it cannot be exported.
    """
    with exporting("torch_export"), quiet("torch.export"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = exported_program(trained)
        with file.open("wb") as opened:
            torch.export.save(program, opened, extra_files={ABOUT: metadata_json(trained)})


def load_program(file: Path) -> Compute:
    """Return what computes a program of `torch.export`."""
    with file.open("rb") as opened:
        program = torch.export.load(opened)
    return program.module()


TORCHSCRIPT = Format((".ts", ".pt"), write_torchscript, load_torchscript)
TORCH_EXPORT = Format((".pt2",), write_program, load_program)

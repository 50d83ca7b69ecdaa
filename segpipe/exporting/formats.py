"""What the formats of an export share: their form, what they store, and the comparison."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segpipe.checkpoint import Trained
from segpipe.errors import ConfigError, SegpipeError
from segpipe.text import first_line

Compute = Callable[[Tensor], Tensor]
ABOUT = "segpipe.json"  # the name under which a file of torch holds what it is of


@dataclass(frozen=True)
class Format:
    """A format of an export.

    Attributes:
        endings: the endings of its files, one of which the output must have; empty for a folder.
        write: writes a network to a path.
        load: returns what computes the logits of the written network.
    """

    endings: tuple[str, ...]
    write: Callable[[Trained, Path], None]
    load: Callable[[Path], Compute]


def metadata_json(trained: Trained) -> str:
    """Return what is known of a network beside its weights, as JSON."""
    about: dict[str, Any] = {
        "version": trained.version,
        "plan": trained.plan.model_dump(),
        "config": trained.config,
        "dice": trained.dice,
        "data": trained.data and asdict(trained.data),
    }
    return json.dumps(about)


@contextmanager
def exporting(name: str) -> Iterator[None]:
    """Turn what an exporter raises on a network that it cannot take into one line.

    Raises:
        ConfigError: with the reason.
    """
    try:
        yield
    except (SegpipeError, OSError):
        raise
    except Exception as error:  # exporters raise many types
        cause = error.__cause__ or error  # theirs is advice on how to report a fault of torch
        raise ConfigError(f"{name}: cannot take this network ({first_line(cause)})") from None


def example(trained: Trained) -> Tensor:
    """Return a batch of two empty windows."""
    return torch.zeros(2, len(trained.plan.channels), *trained.plan.network_patch)


def dynamic_sizes(trained: Trained) -> dict[int, Any]:
    """Return the axes of a batch that may have any size: the batch itself, and space."""
    axes = (0, *range(2, 2 + len(trained.plan.network_patch)))
    return dict.fromkeys(axes, torch.export.Dim.DYNAMIC)


def exported_program(trained: Trained) -> torch.export.ExportedProgram:
    """Return a network as a program of `torch.export`, for batches and windows of any size."""
    sizes = (dynamic_sizes(trained),)
    with torch.no_grad():
        return torch.export.export(trained.network, (example(trained),), dynamic_shapes=sizes)


def noise(trained: Trained, size: Sequence[int]) -> Tensor:
    """Return normal noise as an image `(1, C, *size)`."""
    rng = torch.Generator().manual_seed(0)
    return torch.randn(1, len(trained.plan.channels), *size, generator=rng)


def agreement(trained: Trained, compute: Compute, image: Tensor) -> float:
    """Return the share of voxels to which an exported network gives torch's label.

    For regions, return the share of voxels and regions with torch's decision.

    Args:
        trained: network in torch.
        compute: the same network, exported.
        image: `(B, C, *spatial)`.
    """
    with torch.inference_mode():
        computed = compute(image)
        expected = trained.network(image)
    if computed.shape != expected.shape:
        return 0.0
    if trained.plan.regions is not None:
        return float(((computed > 0) == (expected > 0)).float().mean())
    return float((computed.argmax(1) == expected.argmax(1)).float().mean())

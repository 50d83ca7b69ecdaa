"""What computes a network: PyTorch as it is, PyTorch compiled, or OpenVINO on a CPU."""

import logging
import sys
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segpipe.device import NumberFormat, computing_in
from segpipe.errors import ConfigError
from segpipe.nets.ensemble import Ensemble
from segpipe.text import first_line

log = logging.getLogger("segpipe")
Backend = str  # a name of the registry


class OpenVino(nn.Module):
    """A network as OpenVINO computes it on the CPU, window by window, all cores at one.

    Args:
        network: maps `(b, c, *space)` to logits `(b, k, *space)`; in evaluation mode, on the CPU.
        window: `(c, *space)`, the only one that is taken.
        number_format: float32 or bf16.

    Raises:
        ConfigError: if OpenVINO is not installed, or cannot take the network.
    """

    def __init__(
        self, network: nn.Module, window: Sequence[int], number_format: NumberFormat
    ) -> None:
        super().__init__()
        # OpenVINO would report each conversion to its makers; it does without where this module cannot be imported
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
        try:
            import openvino  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ConfigError(
                "backend=openvino: OpenVINO is not installed: pip install 'segpipe[openvino]', or use backend=torch"
            ) from None
        shape = [1, *window]
        hint = {"INFERENCE_PRECISION_HINT": "bf16" if number_format == "bf16" else "f32"}
        try:
            model = openvino.convert_model(network, example_input=torch.zeros(shape), input=[shape])
            self.compiled: Any = openvino.Core().compile_model(model, "CPU", hint)
        except Exception as error:  # it tells in many ways what it does not know
            raise ConfigError(
                f"backend=openvino: cannot take this network ({first_line(error)}): use backend=torch"
            ) from None

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b k *space"]:
        """Logits of the same space."""
        return torch.cat(
            [torch.from_numpy(self.compiled(one.contiguous().numpy())[0]) for one in x.split(1)]
        )


def with_backend(
    backend: Backend,
    network: nn.Module,
    window: Sequence[int],
    device: torch.device,
    number_format: NumberFormat,
    compiled: bool = False,
) -> nn.Module:
    """The network, or what computes the same faster; of an ensemble each member by itself.

    Args:
        backend: openvino only where the device is the CPU.
        network: in evaluation mode, on the device.
        window: `(c, *space)` of what it will see.
        device: where it computes.
        number_format: in what it computes.
        compiled: by `torch.compile`; where that fails, a warning says so and the network stays as it is.

    Raises:
        ConfigError: if OpenVINO is asked for but not there, on a GPU, or together with `compiled`.
    """
    if backend == "openvino" and (compiled or device.type != "cpu"):
        raise ConfigError(
            "backend=openvino computes on the CPU and compiles by itself: use device=cpu, compile=false"
        )
    if isinstance(network, Ensemble) and (compiled or backend != "torch"):
        of = [
            with_backend(backend, one, window, device, number_format, compiled)
            for one in network.networks
        ]
        return Ensemble(of, network.exclusive, network.mirror_axes)
    if backend == "openvino":
        return OpenVino(network, window, number_format)
    return _compiled(network, window, device, number_format) if compiled else network


def _compiled(
    network: nn.Module, window: Sequence[int], device: torch.device, number_format: NumberFormat
) -> nn.Module:
    """The network compiled, and tried on one empty window, so that what fails does so before a scan is in hand."""
    try:
        fast: Any = torch.compile(network)
        with torch.inference_mode(), computing_in(number_format, device):
            fast(torch.zeros(1, *window, device=device))
    except Exception as error:  # a compiler that is not there, or one of torch's many own reasons
        log.warning("compile=true: torch.compile failed (%s); going on without", first_line(error))
        return network
    return fast

"""What computes a network: PyTorch, as it is or compiled, or OpenVINO on a CPU.

A backend is a function that is registered here. It is called with a network in evaluation mode on
its device and a `BackendRequest`, and returns a module that computes the same, of shape
`(b, c, *space)` -> `(b, k, *space)`. Ensembles never reach it: each member does.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segpipe.device import SHARING, NumberFormat, computing_in
from segpipe.errors import ConfigError
from segpipe.nets.ensemble import Ensemble
from segpipe.registry import BACKENDS
from segpipe.text import first_line

log = logging.getLogger("segpipe")


@dataclass(frozen=True)
class BackendRequest:
    """How a network is to be computed.

    Attributes:
        window: `(c, *space)`, the only shape of input.
        device: the device that computes.
        number_format: the number format in which it computes.
        compiled: whether `torch.compile` is to make it faster.
    """

    window: Sequence[int]
    device: torch.device
    number_format: NumberFormat = "float32"
    compiled: bool = False


def with_backend(backend: str, network: nn.Module, request: BackendRequest) -> nn.Module:
    """Return the network as a backend computes it; of an ensemble each member by itself.

    Args:
        backend: name of a registered backend.
        network: the network, in evaluation mode, on the device.
        request: how it is to be computed.

    Raises:
        ConfigError: if the backend does not exist, is not installed, or cannot meet the request.
    """
    build: Callable[[nn.Module, BackendRequest], nn.Module] = BACKENDS[backend]
    if not isinstance(network, Ensemble):
        return build(network, request)
    members = [build(member, request) for member in network.networks]
    return Ensemble(members, network.exclusive, network.mirror_axes, network.mean)


@BACKENDS.register("torch", help="PyTorch, on any device")
def torch_backend(network: nn.Module, request: BackendRequest) -> nn.Module:
    """Return the network itself, or compiled by `torch.compile`.

    A compiled network is tried on one empty window, so that what fails does so before a scan is in
    hand. Where that fails, a warning says so and the network stays as it is.
    """
    if not request.compiled:
        return network
    try:
        compiled: Any = torch.compile(network)
        with torch.inference_mode(), computing_in(request.number_format, request.device):
            compiled(torch.zeros(1, *request.window, device=request.device))
    except Exception as error:  # a compiler that is not there, or one of torch's many reasons
        log.warning("compile=true: torch.compile failed (%s); going on without", first_line(error))
        return network
    return compiled


@BACKENDS.register("openvino", help="OpenVINO, on a CPU; needs pip install 'segpipe[openvino]'")
def openvino_backend(network: nn.Module, request: BackendRequest) -> nn.Module:
    """Return the network as OpenVINO computes it.

    Raises:
        ConfigError: if it is to be compiled or to compute on a GPU, or if OpenVINO is not installed
            or cannot take the network.
    """
    if request.compiled or request.device.type != "cpu":
        raise ConfigError(
            "backend=openvino computes on the CPU and compiles by itself: "
            "use device=cpu, compile=false"
        )
    return OpenVino(network, request.window, request.number_format)


class OpenVino(nn.Module):
    """A network as OpenVINO computes it on the CPU, window by window, with all cores on each.

    Args:
        network: maps `(b, c, *space)` to logits `(b, k, *space)`; in evaluation mode, on the CPU.
        window: `(c, *space)`, the only shape of input.
        number_format: float32 or bf16.

    Raises:
        ConfigError: if OpenVINO is not installed, or cannot take the network.
    """

    def __init__(
        self, network: nn.Module, window: Sequence[int], number_format: NumberFormat
    ) -> None:
        super().__init__()
        openvino = _import_openvino()
        shape = [1, *window]
        hint: dict[str, str | int] = {
            "INFERENCE_PRECISION_HINT": "bf16" if number_format == "bf16" else "f32"
        }
        if SHARING.machine > 1:  # else it takes all cores
            hint["INFERENCE_NUM_THREADS"] = torch.get_num_threads()
        try:
            model = openvino.convert_model(network, example_input=torch.zeros(shape), input=[shape])
            self.compiled: Any = openvino.Core().compile_model(model, "CPU", hint)
        except Exception as error:  # OpenVINO has many types of errors for what it does not know
            raise ConfigError(
                f"backend=openvino: cannot take this network ({first_line(error)}): "
                "use backend=torch"
            ) from None

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b k *space"]:
        """Return the logits of each window."""
        logits = []
        for window in x.split(1):
            output = self.compiled(window.contiguous().numpy())[0]
            logits.append(torch.from_numpy(output))
        return torch.cat(logits)


def _import_openvino() -> Any:
    """Return the module `openvino`.

    Raises:
        ConfigError: if it is not installed.
    """
    # OpenVINO would report each conversion to its makers; where this module cannot be imported, it
    # does not
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigError(
            "backend=openvino: OpenVINO is not installed: pip install 'segpipe[openvino]', "
            "or use backend=torch"
        ) from None
    return openvino

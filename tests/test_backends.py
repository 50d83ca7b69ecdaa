"""What computes a network."""

import importlib.util
import logging
import sys
from typing import Any

import pytest
import torch
from support.config import composed
from support.plans import plan
from torch import nn

from segpipe.errors import ConfigError
from segpipe.nets.build import build
from segpipe.nets.ensemble import Ensemble
from segpipe.prediction.backends import BackendRequest, with_backend

CPU = torch.device("cpu")
WINDOW = (1, 16, 16, 16)
needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None,
    reason="needs OpenVINO: pip install 'segpipe[openvino]'",
)


def request(
    window: tuple[int, ...], device: torch.device = CPU, compiled: bool = False
) -> BackendRequest:
    return BackendRequest(window, device, compiled=compiled)


def network(seed: int = 0, model: str = "unet3d") -> nn.Module:
    torch.manual_seed(seed)
    options, made = composed(f"model={model}", "model.channels=[8,16,32]"), plan()
    dims = options.model.dims
    return build(options.model, 1, made.outputs, [[2] * dims] * 2, [[3] * dims] * 3).eval()


@needs_openvino
@pytest.mark.parametrize("model", ["unet3d", "unet2d"])
def test_openvino_agrees_with_torch(model: str) -> None:
    window = (1, 32, 24, 16) if model == "unet3d" else (1, 64, 48)
    ours = network(model=model)
    theirs = with_backend("openvino", ours, request(window))
    x = torch.randn(3, *window)
    with torch.inference_mode():
        expected, found = ours(x), theirs(x)
    assert (found.argmax(1) == expected.argmax(1)).float().mean() >= 0.999
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=1e-2)
    assert sys.modules["openvino_telemetry"] is None  # nothing is reported to anybody


@needs_openvino
def test_openvino_computes_each_member_of_an_ensemble_and_mirror_images() -> None:
    window = (1, 16, 16, 16)
    ours = Ensemble([network(0), network(1)], True, [0, 2]).eval()
    theirs: Any = with_backend("openvino", ours, request(window))
    x = torch.randn(1, *window)
    with torch.inference_mode():
        expected, found = ours(x), theirs(x)
    assert theirs.flips == ours.flips
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=1e-2)


def test_without_openvino_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        ConfigError, match=r"OpenVINO is not installed: pip install 'segpipe\[openvino\]'"
    ):
        with_backend("openvino", network(), request(WINDOW))


def test_openvino_is_for_the_cpu_and_compiles_by_itself() -> None:
    with pytest.raises(ConfigError, match="use device=cpu"):
        with_backend("openvino", network(), request(WINDOW, device=torch.device("cuda")))
    with pytest.raises(ConfigError, match="compile=false"):
        with_backend("openvino", network(), request(WINDOW, compiled=True))


def test_a_failed_compile_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: nn.Module) -> Any:
        def call(_: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("No working C++ compiler found\nand much more")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    ours = network()
    with caplog.at_level(logging.WARNING, "segpipe"):
        assert with_backend("torch", ours, request(WINDOW, compiled=True)) is ours
    assert caplog.messages == [
        "compile=true: torch.compile failed (No working C++ compiler found); going on without"
    ]


@pytest.mark.slow
def test_a_compiled_network_agrees() -> None:
    ours = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.LeakyReLU(), nn.Conv3d(4, 3, 1)).eval()
    fast = with_backend("torch", ours, request(WINDOW, compiled=True))
    assert fast is not ours
    x = torch.randn(2, 1, 16, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), ours(x), atol=1e-4, rtol=1e-4)


def test_an_unknown_backend_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="opnvino is no backend; there are torch, openvino"):
        with_backend("opnvino", network(), request(WINDOW))

"""nnU-Net v2 as far as tests need it: its networks by its own names, its results folders, its rules in the plainest form."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import binary_fill_holes, map_coordinates, zoom
from torch import Tensor, nn

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
POOL = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
WIDE = 3.0  # times the usual weights, so that all labels occur


class ConvNorm(nn.Module):
    def __init__(
        self, c_in: int, c_out: int, kernel: Any, stride: Any, bias: bool = True, act: bool = True
    ) -> None:
        super().__init__()
        kernel = tuple(kernel)
        self.conv = CONV[len(kernel)](
            c_in, c_out, kernel, tuple(stride), [k // 2 for k in kernel], bias=bias
        )
        self.norm = NORM[len(kernel)](c_out, affine=True)
        layers = [self.conv, self.norm] + ([nn.LeakyReLU()] if act else [])
        self.all_modules = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.all_modules(x)


class Stacked(nn.Module):
    def __init__(self, count: int, c_in: int, c_out: int, kernel: Any, stride: Any) -> None:
        super().__init__()
        ones = [1] * len(kernel)
        units = [ConvNorm(c_in, c_out, kernel, stride)]
        units += [ConvNorm(c_out, c_out, kernel, ones) for _ in range(count - 1)]
        self.convs = nn.Sequential(*units)

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)


class BlockD(nn.Module):
    def __init__(self, c_in: int, c_out: int, kernel: Any, stride: Any) -> None:
        super().__init__()
        ones = [1] * len(kernel)
        self.conv1 = ConvNorm(c_in, c_out, kernel, stride)
        self.conv2 = ConvNorm(c_out, c_out, kernel, ones, act=False)
        skip: list[nn.Module] = []
        if any(s != 1 for s in stride):
            skip.append(POOL[len(kernel)](tuple(stride), tuple(stride)))
        if c_in != c_out:
            skip.append(ConvNorm(c_in, c_out, ones, ones, bias=False, act=False))
        self.skip = nn.Sequential(*skip) if skip else (lambda x: x)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu(self.conv2(self.conv1(x)) + self.skip(x))


class Blocks(nn.Module):
    def __init__(self, count: int, c_in: int, c_out: int, kernel: Any, stride: Any) -> None:
        super().__init__()
        blocks = [BlockD(c_in, c_out, kernel, stride)]
        blocks += [BlockD(c_out, c_out, kernel, [1] * len(kernel)) for _ in range(count - 1)]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class Encoder(nn.Module):
    def __init__(self, c_in: int, arguments: dict[str, Any], residual: bool) -> None:
        super().__init__()
        channels = arguments["features_per_stage"]
        self.residual = residual
        stages: list[nn.Module] = []
        if residual:
            self.stem = Stacked(
                1, c_in, channels[0], arguments["kernel_sizes"][0], arguments["strides"][0]
            )
        for i, width in enumerate(channels):
            kernel, stride = arguments["kernel_sizes"][i], arguments["strides"][i]
            if residual:
                before = channels[max(0, i - 1)]
                stages.append(
                    Blocks(arguments["n_blocks_per_stage"][i], before, width, kernel, stride)
                )
            else:
                before = channels[i - 1] if i else c_in
                one = Stacked(arguments["n_conv_per_stage"][i], before, width, kernel, stride)
                stages.append(nn.Sequential(one))
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x) if self.residual else x
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


class Decoder(nn.Module):
    def __init__(self, encoder: Encoder, arguments: dict[str, Any], classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        channels, dims = arguments["features_per_stage"], len(arguments["strides"][0])
        stages, ups, heads = [], [], []
        for number, i in enumerate(reversed(range(len(channels) - 1))):
            stride = arguments["strides"][i + 1]
            ups.append(TRANSPOSED[dims](channels[i + 1], channels[i], tuple(stride), tuple(stride)))
            count = arguments["n_conv_per_stage_decoder"][number]
            kernel = arguments["kernel_sizes"][i]
            stages.append(Stacked(count, 2 * channels[i], channels[i], kernel, [1] * dims))
            heads.append(CONV[dims](channels[i], classes, 1))
        self.stages, self.transpconvs, self.seg_layers = map(nn.ModuleList, (stages, ups, heads))

    def forward(self, encoded: list[Tensor]) -> Tensor:
        x = encoded[-1]
        for number, skip in enumerate(reversed(encoded[:-1])):
            x = self.stages[number](torch.cat([self.transpconvs[number](x), skip], 1))
        return self.seg_layers[-1](x)


class NNUNet(nn.Module):
    """`PlainConvUNet`, or `ResidualEncoderUNet` where there are blocks."""

    def __init__(self, channels: int, classes: int, arguments: dict[str, Any]) -> None:
        super().__init__()
        self.encoder = Encoder(channels, arguments, "n_blocks_per_stage" in arguments)
        self.decoder = Decoder(self.encoder, arguments, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


def arguments(dims: int, residual: bool = False, **changes: Any) -> dict[str, Any]:
    first, kernel = (
        ([1] + [2] * (dims - 1), [1] + [3] * (dims - 1)) if dims == 3 else ([2, 2], [3, 3])
    )
    found: dict[str, Any] = {
        "n_stages": 4,
        "features_per_stage": [4, 6, 8, 8],
        "kernel_sizes": [kernel, [3] * dims, [3] * dims, [3] * dims],
        "strides": [[1] * dims, first, [2] * dims, [2] * dims],
        "n_conv_per_stage_decoder": [1, 2, 1] if not residual else [1, 1, 1],
        "conv_bias": True,
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "nonlin": "torch.nn.LeakyReLU",
    }
    found["n_blocks_per_stage" if residual else "n_conv_per_stage"] = [1, 2, 2, 1]
    return found | changes


def write_results(
    folder: Path,
    dims: int = 3,
    residual: bool = False,
    folds: Sequence[str] = ("0",),
    channels: int = 1,
    dataset: dict[str, Any] | None = None,
    plans: dict[str, Any] | None = None,
    layers: dict[str, Any] | None = None,
    **configuration: Any,
) -> list[NNUNet]:
    """Write a folder of results of networks that were never trained, and return them."""
    given = arguments(dims, residual, **(layers or {}))
    name = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    own = {
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [8, 24, 16][3 - dims :],
        "spacing": [2.0, 1.0, 1.5][3 - dims :],
        "normalization_schemes": ["ZScoreNormalization"] * channels,
        "use_mask_for_norm": [False] * channels,
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
            "arch_kwargs": given,
        },
    } | configuration
    numbers = {"percentile_00_5": -90.0, "percentile_99_5": 110.0, "mean": 10.0, "std": 40.0}
    about = {
        "dataset_name": "Dataset001_Tiny",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "configurations": {"tiny": own},
        "foreground_intensity_properties_per_channel": {str(c): numbers for c in range(channels)},
    } | (plans or {})
    data = {
        "channel_names": {str(c): f"MRI{c}" for c in range(channels)},
        "labels": {"background": 0, "front": 1, "back": 2},
    } | (dataset or {})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(about))
    (folder / "dataset.json").write_text(json.dumps(data))
    classes = len(data["labels"]) - ("ignore" in data["labels"])
    classes -= any(isinstance(ids, list) for ids in data["labels"].values())
    return [_write_fold(folder, fold, channels, classes, given, dims) for fold in folds]


def _write_fold(
    folder: Path, fold: str, channels: int, classes: int, given: dict[str, Any], dims: int
) -> NNUNet:
    torch.manual_seed(int(fold) if fold.isdecimal() else 99)
    network = NNUNet(channels, classes, given).eval()
    for name, weight in network.named_parameters():
        weight.data = weight.data * WIDE if "norm" not in name else torch.rand_like(weight) + 0.5
    content = {
        "network_weights": network.state_dict(),
        "optimizer_state": {"lr": np.float64(0.01)},
        "logging": {"ema_fg_dice": [np.float32(0.5)]},
        "current_epoch": 1,
        "init_args": {"configuration": "tiny", "fold": 0, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer_1epoch",
        "inference_allowed_mirroring_axes": tuple(range(dims)),
    }
    (folder / f"fold_{fold}").mkdir(exist_ok=True)
    torch.save(content, folder / f"fold_{fold}/checkpoint_final.pth")
    return network


def resized(volume: np.ndarray, shape: Sequence[int], order: int, coarse: int | None) -> np.ndarray:
    """Return one channel resampled as `resample_data_or_seg` does it, slice by slice where one axis is coarse."""
    if volume.shape == tuple(shape):
        return volume
    if coarse is None:
        return _clipped_zoom(volume, shape, order)
    flat = [n for axis, n in enumerate(shape) if axis != coarse]
    slices = [_clipped_zoom(one, flat, order) for one in np.moveaxis(volume, coarse, 0)]
    stacked = np.stack(slices, coarse)
    if stacked.shape == tuple(shape):
        return stacked
    scale = np.array(stacked.shape) / shape
    positions = np.mgrid[tuple(slice(0, n) for n in shape)] + 0.5
    positions = positions * scale.reshape(3, 1, 1, 1) - 0.5
    return map_coordinates(stacked, positions, order=0, mode="nearest")


def _clipped_zoom(volume: np.ndarray, shape: Sequence[int], order: int) -> np.ndarray:
    factors = np.array(shape) / volume.shape
    found = zoom(volume.astype(float), factors, order=order, mode="nearest", grid_mode=True)
    return found.clip(volume.min(), volume.max())


def apart(spacing: Sequence[float], other: Sequence[float]) -> int | None:
    for one in (spacing, other):
        if max(one) / min(one) > 3:
            coarsest = np.flatnonzero(np.array(one) == max(one))
            return int(coarsest[0]) if len(coarsest) == 1 else None
    return None


def predicted(
    network: nn.Module,
    image: np.ndarray,
    spacing: Sequence[float],
    target: Sequence[float],
    patch: Sequence[int],
    masked: bool = False,
) -> np.ndarray:
    """Return the labels of a scan `(c, z, y, x)` that fits one window, as nnU-Net's predictor finds them; a network of
    2D is given slice by slice.
    """  # fmt: skip
    inside = binary_fill_holes((image != 0).any(0))
    box = tuple(slice(ends.min(), ends.max() + 1) for ends in np.nonzero(inside))
    cropped = image[(slice(None), *box)].astype(np.float64)
    for channel in cropped:
        where = inside[box] if masked else np.ones_like(inside[box])
        channel[where] = (channel[where] - channel[where].mean()) / channel[where].std()
    own = [*spacing[: 3 - len(target)], *target]
    old = cropped.shape[1:]
    shape = [round(mm / new * n) for mm, new, n in zip(spacing, own, old, strict=True)]
    seen = np.stack([resized(channel, shape, 3, apart(spacing, own)) for channel in cropped])
    logits = _logits(network, torch.from_numpy(seen).float(), patch).numpy()
    native = np.stack([resized(channel, old, 1, apart(own, spacing)) for channel in logits])
    labels = np.zeros(image.shape[1:], dtype=np.uint8)
    labels[box] = native.argmax(0)
    return labels


@torch.inference_mode()
def _logits(network: nn.Module, seen: Tensor, patch: Sequence[int]) -> Tensor:
    if len(patch) == 2:
        return torch.stack(
            [_logits(network, seen[:, z, None], [1, *patch])[:, 0] for z in range(seen.shape[1])], 1
        )
    missing = [max(0, edge - n) for edge, n in zip(patch, seen.shape[1:], strict=True)]
    padding = [side for gap in reversed(missing) for side in (gap // 2, gap - gap // 2)]
    padded = nn.functional.pad(seen, padding)
    flat = isinstance(network.encoder.stages[0], nn.Module) and any(
        w.ndim == 4 for w in network.parameters()
    )
    logits = network(padded[None, :, 0])[0, :, None] if flat else network(padded[None])[0]
    for axis, (gap, n) in enumerate(zip(missing, seen.shape[1:], strict=True), start=1):
        logits = logits.narrow(axis, gap // 2, n)
    return logits

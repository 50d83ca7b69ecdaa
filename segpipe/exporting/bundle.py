"""A MONAI bundle: network and pipeline, run by `python -m monai.bundle run` without segpipe."""

import importlib.metadata
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segpipe.checkpoint import Trained
from segpipe.errors import ConfigError
from segpipe.exporting.formats import Compute, Format
from segpipe.exporting.programs import load_torchscript, write_torchscript
from segpipe.plan import Plan
from segpipe.regions import painted_ids

log = logging.getLogger("segpipe")
WEIGHTS = Path("models/model.ts")
CONFIGS = Path("configs")
USUAL_OVERLAP = 0.5
README = """# {name}

A network of segpipe {version} with its pipeline, as a MONAI bundle.

    cd THIS_FOLDER
    python -m monai.bundle run --config_file configs/inference.json \\
        --dataset_dir SCANS --output_dir MASKS

It needs MONAI, PyTorch, nibabel and fire, and neither segpipe nor the network's source. Scans are
the files `*.nii.gz` of `dataset_dir`{channels}. Masks are written on the scans' own grids.
Orientation, spacing, intensities, windows and labels are those of the training. Interpolation is
MONAI's, which differs from segpipe's where the spacing is changed; post-processing that the
training has chosen is left out.
"""


def write(trained: Trained, folder: Path) -> None:
    """Write a bundle into a folder.

    Raises:
        ConfigError: if MONAI's transforms cannot do what the plan says.
    """
    plan = trained.plan
    _check_plan(plan)
    for name in (WEIGHTS.parent, CONFIGS, Path("docs")):
        (folder / name).mkdir(parents=True)
    write_torchscript(trained, folder / WEIGHTS)
    name = str(trained.config["model"]["network"])
    channels = ""
    if len(plan.channels) > 1:
        channels = (
            f", with the channels in files that end in _0000 to _{len(plan.channels) - 1:04d}"
        )
    readme = README.format(name=name, version=trained.version, channels=channels)
    (folder / "docs/README.md").write_text(readme, encoding="utf-8")
    for file, content in (("metadata", _metadata(trained)), ("inference", _inference(plan))):
        text = json.dumps(content, indent=2) + "\n"
        (folder / CONFIGS / f"{file}.json").write_text(text, encoding="utf-8")


def load(folder: Path) -> Compute:
    """Return what computes the network of a bundle."""
    return load_torchscript(folder / WEIGHTS)


def _check_plan(plan: Plan) -> None:
    """Check that MONAI's transforms can do what a plan says.

    Raises:
        ConfigError: naming what they cannot do.
    """
    reason = ""
    if plan.unit != "mm":
        reason = f"the scans are images in {plan.unit}"
    elif plan.slices not in ("plan", "flat") or plan.frame is not None:
        reason = "the axes of its scans are not those of RAS+"
    elif plan.axes != "ras" or plan.rules != "segpipe":
        reason = "it prepares scans as nnU-Net does"
    if reason:
        raise ConfigError(f"monai_bundle: cannot take this network: {reason}")
    if plan.averages:
        log.warning(
            "monai_bundle: scans are brought to a spacing more than twice as coarse; MONAI "
            "interpolates where segpipe averages, so masks will differ"
        )


def _metadata(trained: Trained) -> dict[str, Any]:
    """Return the content of `metadata.json`, in MONAI's schema."""
    plan = trained.plan
    version = importlib.metadata.version
    image = {
        "type": "image",
        "format": "magnitude",
        "num_channels": len(plan.channels),
        "spatial_shape": plan.network_patch,
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": True,
        "channel_def": {str(number): name for number, name in enumerate(plan.channels)},
    }
    outputs = list(plan.regions or plan.labels)
    logits = {**image, "format": "segmentation", "num_channels": plan.outputs}
    logits["channel_def"] = {str(number): name for number, name in enumerate(outputs)}
    return {
        "version": "1.0.0",
        "changelog": {"1.0.0": f"exported by segpipe {trained.version}"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"nibabel": version("nibabel"), "fire": "0.7.0"},
        "task": "segmentation",
        "description": f"segmentation of {', '.join(plan.label_names)}",
        "authors": "not noted",
        "copyright": "not noted",
        "data_source": "not noted" if trained.data is None else trained.data.name,
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": logits}},
        "segpipe": {"dice": {name: str(value) for name, value in trained.dice.items()}},
    }


def _inference(plan: Plan) -> dict[str, Any]:
    """Return the content of `inference.json`."""
    return {
        "imports": ["$import torch", "$import glob", "$import os"],
        "bundle_root": ".",
        "dataset_dir": "scans",
        "output_dir": "masks",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "files": _files(len(plan.channels)),
        "network": f"$torch.jit.load(@bundle_root + '/{WEIGHTS}', map_location=@device).eval()",
        "preprocessing": _compose(_to_model_space(plan)),
        "inferer": _inferer(plan),
        "pipeline": _compose(
            [
                "@preprocessing",
                _transform("CopyItems", "image", names="model_space"),
                *_normalised(plan),
                _transform("EnsureType", "pred", device="@device", dtype="$torch.float32"),
                _lambda("$lambda x: x[None]"),
                _lambda("$lambda x, f=@inferer, network=@network: f(x, network)[0]"),
                *_decided(plan),
                _saved(),
            ]
        ),
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': f} for f in @files]",
            "transform": "@pipeline",
        },
        "initialize": ["$torch.set_grad_enabled(False)"],
        "run": ["$[None for _ in @dataset]"],
    }


def _files(channels: int) -> str:
    """Return the expression that lists the files of the scans."""
    if channels == 1:
        return "$sorted(glob.glob(os.path.join(@dataset_dir, '*.nii.gz')))"
    first = "glob.glob(os.path.join(@dataset_dir, '*_0000.nii.gz'))"
    names = f"[f[:-11] + '%04d.nii.gz' % c for c in range({channels})]"
    return f"$[{names} for f in sorted({first})]"


def _compose(transforms: list[Any]) -> dict[str, Any]:
    return {"_target_": "Compose", "transforms": transforms}


def _transform(kind: str, keys: str | list[str], **arguments: Any) -> dict[str, Any]:
    return {"_target_": f"{kind}d", "keys": keys, **arguments}


def _lambda(function: str) -> dict[str, Any]:
    return _transform("Lambda", "pred", func=function, track_meta=False)


def _to_model_space(plan: Plan) -> list[Any]:
    """Return the transforms that bring a scan to model space; an axis of -1 mm keeps its own."""
    spacing = [-1.0 if mm is None else mm for mm in plan.spacing_mm]
    return [
        _transform("LoadImage", "image", ensure_channel_first=True),
        _transform("EnsureType", "image", dtype="$torch.float32"),
        _transform("Orientation", "image", axcodes="RAS", labels=None),
        _transform(
            "Spacing",
            "image",
            pixdim=spacing,
            mode="bilinear",
            padding_mode="border",
            align_corners=True,
            scale_extent=True,
        ),
    ]


def _normalised(plan: Plan) -> list[Any]:
    """Return the transforms that normalise each channel, and join them as `pred`."""
    keys = [f"model_space_{number}" for number in range(len(plan.channels))]
    transforms = [_transform("SplitDim", "model_space", dim=0)]
    for key, method, foreground in zip(keys, plan.normalise, plan.foreground, strict=True):
        transforms += _normalise_channel(key, method, foreground)
    return [*transforms, _transform("ConcatItems", keys, name="pred")]


def _normalise_channel(
    key: str, method: str, foreground: tuple[float, float, float, float]
) -> list[Any]:
    if method == "ct":
        low, high, mean, deviation = foreground
        deviation = max(deviation, 1e-6)
        bounds = {"a_min": low, "a_max": high}
        bounds |= {"b_min": (low - mean) / deviation, "b_max": (high - mean) / deviation}
        return [_transform("ScaleIntensityRange", key, clip=True, **bounds)]
    if method == "rescale":
        return [_transform("ScaleIntensity", key, minv=0.0, maxv=1.0)]
    if method == "rgb":
        return [_transform("ScaleIntensity", key, minv=None, maxv=None, factor=1 / 255 - 1)]
    if method in ("zscore", "zscore_nonzero"):
        return [_transform("NormalizeIntensity", key, nonzero=method == "zscore_nonzero")]
    if method == "none":
        return []
    raise ConfigError(f"monai_bundle: cannot normalise by {method}")


def _inferer(plan: Plan) -> Mapping[str, Any]:
    """Return the inferer of windows; of a 2D network, slice by slice."""
    inferer: dict[str, Any] = {
        "_target_": "SlidingWindowInferer",
        "roi_size": plan.network_patch,
        "sw_batch_size": 1,
        "overlap": USUAL_OVERLAP,
        "mode": "gaussian",
    }
    if plan.slice_axis is not None:
        inferer |= {"_target_": "SliceInferer", "spatial_dim": plan.slice_axis}
    return inferer


def _decided(plan: Plan) -> list[Any]:
    """Return the transforms from logits in model space to label ids on the scan's grid."""
    ids = list(plan.labels.values())
    activation = {"softmax": True} if plan.regions is None else {"sigmoid": True}
    chosen = "x.argmax(0, keepdim=True)"
    if plan.regions is not None:
        chosen = "torch.zeros_like(x[:1]).long()"
        for number, index in enumerate(painted_ids(plan.regions, plan.paint)):
            chosen = f"{chosen}.masked_fill(x[{number}:{number + 1}] > 0.5, {index})"
    return [
        _transform("Activations", "pred", **activation),
        _transform(
            "Invert",
            "pred",
            transform="@preprocessing",
            orig_keys="image",
            nearest_interp=False,
            to_tensor=True,
        ),
        _lambda_with_meta(f"$lambda x: torch.tensor({ids}, device=x.device)[{chosen}]"),
    ]


def _lambda_with_meta(function: str) -> dict[str, Any]:
    """Return a transform of `pred` that keeps its affine."""
    return _transform("Lambda", "pred", func=function)


def _saved() -> dict[str, Any]:
    return _transform(
        "SaveImage",
        "pred",
        output_dir="@output_dir",
        output_postfix="",
        separate_folder=False,
        output_dtype="$torch.int32",
        resample=False,
        print_log=False,
    )


MONAI_BUNDLE = Format((), write, load)

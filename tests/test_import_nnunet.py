"""Networks of nnU-Net v2 as checkpoints: the same logits, the same masks, and one line for what cannot be read."""

import json
import os
from itertools import permutations
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from support import nnunet
from support.commands import command
from support.nnunet import predicted, write_results

from segpipe import nnunet_rules
from segpipe.card import card
from segpipe.checkpoint import load
from segpipe.config.compose import defaults
from segpipe.config.probe import Landscape, Lesion, Robustness
from segpipe.config.validation import validate
from segpipe.data.prepare import prepare_volume
from segpipe.ensembles import load_ensemble
from segpipe.errors import ConfigError
from segpipe.export import export
from segpipe.geometry import Volume
from segpipe.import_nnunet.axes import Turn
from segpipe.import_nnunet.convert import import_nnunet
from segpipe.io.objects import as_volume
from segpipe.nnunet_rules import resample, window_starts, window_weights
from segpipe.prediction.predictor import Predictor
from segpipe.probe.landscape import landscape
from segpipe.probe.lesion import lesion
from segpipe.probe.robustness import robustness

KINDS = [(3, False), (3, True), (2, False), (2, True)]


def imported(tmp_path: Path, **options: Any) -> tuple[Path, nnunet.NNUNet]:
    (network,) = write_results(tmp_path / "results", **options)
    import_nnunet(tmp_path / "results", tmp_path / "x.ckpt")
    return tmp_path / "x.ckpt", network


def scan_file(
    folder: Path,
    axes: str = "RAS",
    spacing: tuple[float, ...] = (1.4, 1.1, 2.3),
    hole: bool = False,
) -> Path:
    """A scan of 9x19x7 voxels with a border of zeros, its axes stored in these directions."""
    rng = np.random.default_rng(3)
    voxels = rng.gamma(3, 30, (9, 19, 7)).astype(np.float32)
    voxels[:2] = 0
    voxels[:, -3:] = 0
    if hole:
        voxels[4:6, 5:7, 2:4] = 0
        voxels[2:5, 0:4] = 0
    affine = np.diag([*spacing, 1])
    image = nib.Nifti1Image(voxels, affine)
    wanted = nib.orientations.axcodes2ornt(axes)
    turned = image.as_reoriented(
        nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), wanted)
    )
    nib.save(turned, folder / f"{axes}.nii.gz")
    return folder / f"{axes}.nii.gz"


def by_nnunet(
    network: nnunet.NNUNet, file: Path, dims: int = 3, masked: bool = False
) -> np.ndarray:
    image = nib.load(file)
    voxels = np.asarray(image.dataobj).T[None]
    target, patch = [2.0, 1.0, 1.5][3 - dims :], [8, 24, 16][3 - dims :]
    spacing = list(map(float, image.header.get_zooms()[::-1]))
    return predicted(network, voxels, spacing, target, patch, masked).T


def mask_of(file: Path, scan: Path) -> np.ndarray:
    return Predictor.of(load(file), torch.device("cpu"), "float32")(scan)


@pytest.mark.parametrize(("dims", "residual"), KINDS)
def test_logits_are_those_of_nnunets_own_network(tmp_path: Path, dims: int, residual: bool) -> None:
    file, network = imported(tmp_path, dims=dims, residual=residual)
    image = torch.randn(2, 1, *[16, 24, 32][:dims], generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(image)
        own = load(file).network(image.permute(0, 1, *reversed(range(2, dims + 2))))
    assert torch.allclose(
        own.permute(0, 1, *reversed(range(2, dims + 2))), expected, atol=1e-3, rtol=1e-4
    )


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "PSR"])
def test_masks_are_nnunets_whatever_the_files_axes(tmp_path: Path, axes: str) -> None:
    file, network = imported(tmp_path)
    scan = scan_file(tmp_path, axes)
    expected = by_nnunet(network, scan)
    assert len(np.unique(expected)) == 3
    assert (mask_of(file, scan) == expected).mean() > 0.999


@pytest.mark.parametrize(
    "options", [{"dims": 2}, {"residual": True}, {"channels": 1, "use_mask_for_norm": [True]}]
)
def test_masks_of_other_configurations_are_nnunets(tmp_path: Path, options: dict[str, Any]) -> None:
    file, network = imported(tmp_path, **options)
    scan = scan_file(tmp_path, hole=True)
    expected = by_nnunet(network, scan, options.get("dims", 3), "use_mask_for_norm" in options)
    assert (mask_of(file, scan) == expected).mean() > 0.999


@pytest.mark.parametrize("spacing", [(0.6, 0.6, 2.2), (3.4, 1.0, 1.1), (0.4, 1.4, 0.45)])
def test_masks_of_anisotropic_scans_are_nnunets(tmp_path: Path, spacing: tuple[float, ...]) -> None:
    file, network = imported(tmp_path)
    scan = scan_file(tmp_path, spacing=spacing)
    assert (mask_of(file, scan) == by_nnunet(network, scan)).mean() > 0.999


def test_scans_that_nnunet_brings_to_ras_are_brought_there(tmp_path: Path) -> None:
    file, _ = imported(tmp_path, plans={"image_reader_writer": "NibabelIOWithReorient"})
    mask = mask_of(file, scan_file(tmp_path))
    turned = mask_of(file, scan_file(tmp_path, "LPS"))
    assert load(file).plan.axes == "ras"
    assert (turned[::-1, ::-1] == mask).all()


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_transposed_axes_find_their_way_back(order: tuple[int, int, int]) -> None:
    zyx = [2, 1, 0]  # of a scan's axes, as nnU-Net reads them
    assert Turn.of(order, 3).sizes([zyx[axis] for axis in order]) == [0, 1, 2]
    seen = [zyx[axis] for axis in order[1:]]
    assert Turn.of(order, 2).spatial(seen, zyx[order[0]]) == [0, 1, 2]


def test_a_transposed_configuration_predicts_as_the_turned_scan(tmp_path: Path) -> None:
    """A network whose planner has put x first sees of a scan what another sees of it turned."""
    file, network = imported(tmp_path, plans={"transpose_forward": [2, 0, 1]})
    scan = scan_file(tmp_path)
    image = nib.load(scan)
    voxels = np.asarray(image.dataobj).T.transpose(2, 0, 1)[None]
    zyx = image.header.get_zooms()[::-1]
    spacing = [float(zyx[axis]) for axis in (2, 0, 1)]
    expected = predicted(network, voxels, spacing, [2.0, 1.0, 1.5], [8, 24, 16])
    assert (mask_of(file, scan) == expected.transpose(1, 2, 0).T).mean() > 0.999


def test_several_folds_are_the_mean_of_their_logits(tmp_path: Path) -> None:
    networks = write_results(tmp_path / "results", folds=("0", "1", "3"))
    assert import_nnunet(tmp_path / "results", tmp_path / "all") == ["fold_0", "fold_1", "fold_3"]
    image = torch.randn(1, 1, 16, 24, 16)
    with torch.inference_mode():
        expected = torch.stack([network(image) for network in networks]).mean(0)
        ensemble = load_ensemble([tmp_path / "all"]).network
        own = ensemble(image.permute(0, 1, 4, 3, 2)).permute(0, 1, 4, 3, 2)
    assert torch.allclose(own, expected, atol=1e-3, rtol=1e-4)
    assert import_nnunet(tmp_path / "results", tmp_path / "one.ckpt", folds=[1]) == ["fold_1"]
    with pytest.raises(ConfigError, match="is a file"):
        import_nnunet(tmp_path / "results", tmp_path / "one.ckpt")


def test_a_residual_ensemble_is_exported(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    write_results(tmp_path / "results", residual=True, folds=("0", "1"))
    import_nnunet(tmp_path / "results", tmp_path / "all")
    assert export([tmp_path / "all"], tmp_path / "all.onnx") >= 0.999


def test_the_networks_own_mirror_axes(tmp_path: Path) -> None:
    file, network = imported(tmp_path, dims=2)
    assert load(file).plan.mirror_axes == [0, 1]
    image = torch.randn(1, 1, 24, 16)
    with torch.inference_mode():
        flips = [(), (2,), (3,), (2, 3)]
        expected = torch.stack([network(image.flip(flip)).flip(flip) for flip in flips]).mean(0)
        own = load_ensemble([file], "checkpoint").network(image.mT)
    assert torch.allclose(own.mT, expected, atol=1e-3, rtol=1e-4)


REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rim": 3}


def test_regions_are_painted_in_nnunets_order(tmp_path: Path) -> None:
    dataset = {"labels": REGIONS, "regions_class_order": [1, 2, 3]}
    file, network = imported(tmp_path, dataset=dataset)
    plan = load(file).plan
    assert plan.regions == {"whole": [1, 2, 3], "core": [2, 3], "rim": [3]}
    scan = scan_file(tmp_path, spacing=(1.5, 1.0, 2.0))
    prepared = prepare_volume(as_volume(scan), plan)
    with torch.inference_mode():
        logits = nnunet._logits(network, prepared.image.permute(0, 3, 2, 1), [8, 24, 16])
    expected = np.zeros((9, 19, 7), np.uint8)
    assert prepared.box is not None
    for region, paints in zip(logits, (1, 2, 3), strict=True):
        expected[prepared.box][region.numpy().T > 0] = paints
    assert (mask_of(file, scan) == expected).mean() > 0.999


def test_the_ignored_label_is_none_of_the_outputs(tmp_path: Path) -> None:
    labels = {"background": 0, "organ": 1, "ignore": 2}
    file, _ = imported(tmp_path, dataset={"labels": labels})
    assert (load(file).plan.ignore, load(file).plan.labels) == (2, {"background": 0, "organ": 1})


SCHEMES = {
    "CTNormalization": lambda x: (x.clip(-90, 110) - 10) / 40,
    "RescaleTo01Normalization": lambda x: (x - x.min()) / (x.max() - x.min()),
    "RGBTo01Normalization": lambda x: x / 255,
    "NoNormalization": lambda x: x,
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_intensities_are_as_nnunet_normalises_them(tmp_path: Path, scheme: str) -> None:
    file, _ = imported(tmp_path, normalization_schemes=[scheme])
    voxels = np.random.default_rng(0).normal(40, 60, (1, 6, 5, 4)).astype(np.float32)
    volume = Volume(torch.from_numpy(voxels), np.diag([1.5, 1.0, 2.0, 1]))
    image = prepare_volume(volume, load(file).plan).image
    assert np.allclose(image.numpy(), SCHEMES[scheme](voxels), atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "coarse"), [((13, 7, 12), None), ((4, 9, 12), 0), ((8, 14, 5), 2)]
)
def test_images_are_resampled_as_scipy_does_it(
    shape: tuple[int, int, int], coarse: int | None
) -> None:
    image = torch.randn(2, 8, 9, 12, generator=torch.Generator().manual_seed(1))
    expected = np.stack([nnunet.resized(one, shape, 3, coarse) for one in image.numpy()])
    assert np.allclose(resample(image, shape, coarse).numpy(), expected, atol=1e-5)


def test_long_axes_are_resampled_without_a_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.randn(2, 8, 9, 12, generator=torch.Generator().manual_seed(1))
    expected = resample(image, (13, 7, 12), None)
    monkeypatch.setattr(nnunet_rules, "LONGEST", 4)
    assert torch.allclose(resample(image, (13, 7, 12), None), expected, atol=1e-5)


def test_windows_are_spread_evenly() -> None:
    assert window_starts(100, 40, 0.5) == [0, 20, 40, 60]
    assert window_starts(97, 40, 0.5) == [0, 19, 38, 57]
    assert window_starts(40, 40, 0.5) == [0]
    assert window_starts(3, 1, 0.5) == [0, 1, 2]
    weights = window_weights([8, 9, 1])[0]
    assert np.unravel_index(int(weights.argmax()), weights.shape) == (4, 4, 0)
    assert weights.min() > 0


def test_an_imported_checkpoint_has_a_card_and_other_files_are_unchanged(tmp_path: Path) -> None:
    file, network = imported(tmp_path)
    assert "Dataset001_Tiny, tiny" in card(file)
    count = sum(weight.numel() for weight in network.parameters())
    assert f"{count:,} parameters" in card(file)


def test_probabilities_outside_the_crop_are_certain_background(tmp_path: Path) -> None:
    file, _ = imported(tmp_path)
    scan = scan_file(tmp_path)
    trained = load(file)
    saved = ("mask", "probabilities", "entropy")
    predictor = Predictor(trained.network, trained.plan, torch.device("cpu"), save=saved)
    found = predictor.predict(scan)
    assert found.maps.probabilities is not None
    assert found.maps.entropy is not None
    assert (found.maps.probabilities[:2, ..., 0] == 255).all()
    assert not found.maps.entropy[:2].any()
    decided = found.maps.probabilities.argmax(-1) == found.labels
    assert decided.mean() > 0.98  # quantised probabilities may be equal


def test_the_plain_network_of_older_files(tmp_path: Path) -> None:
    old = {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 8,
        "conv_kernel_sizes": [[3, 3, 3]] * 4,
        "pool_op_kernel_sizes": [[1, 1, 1]] + [[2, 2, 2]] * 3,
        "n_conv_per_stage_encoder": [2] * 4,
        "n_conv_per_stage_decoder": [2] * 3,
    }
    new = {"features_per_stage": [4, 8, 8, 8], "kernel_sizes": old["conv_kernel_sizes"]}
    new |= {
        "strides": old["pool_op_kernel_sizes"],
        "n_conv_per_stage": [2] * 4,
        "n_conv_per_stage_decoder": [2] * 3,
    }
    write_results(tmp_path / "results", layers=new)
    text = (tmp_path / "results/plans.json").read_text()
    plans = json.loads(text)
    del plans["configurations"]["tiny"]["architecture"]
    plans["configurations"]["tiny"] |= old
    plans["configurations"] = {
        "tiny": {"inherits_from": "base"},
        "base": plans["configurations"]["tiny"],
    }
    (tmp_path / "results/plans.json").write_text(json.dumps(plans))
    import_nnunet(tmp_path / "results", tmp_path / "x.ckpt")
    assert load(tmp_path / "x.ckpt").plan.strides == [[2, 2, 2]] * 3


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"previous_stage": "3d_lowres"}, "cascade"),
        ({"normalization_schemes": ["OwnNormalization"]}, "OwnNormalization"),
        ({"preprocessor_name": "OwnPreprocessor"}, "OwnPreprocessor"),
        ({"resampling_fn_data": "resample_torch_fornnunet"}, "resamples in another way"),
        ({"resampling_fn_data_kwargs": {"order": 1}}, "resamples in another way"),
        ({"plans": {"image_reader_writer": "OwnIO"}}, "OwnIO"),
        ({"plans": {"transpose_forward": [0, 0, 2]}}, "transpose_forward"),
        ({"layers": {"nonlin": "torch.nn.ReLU"}}, "nonlin=torch.nn.ReLU"),
        ({"layers": {"squeeze_excitation": True}}, "squeeze_excitation=True"),
        ({"dataset": {"labels": REGIONS}}, "regions_class_order"),
        ({"dataset": {"labels": {"background": 0, "organ": 5}}}, "not numbered"),
        ({"patch_size": [8, 24]}, "."),
        ({"spacing": [1.0, -2.0, 1.0]}, "spacing"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    tmp_path: Path, options: dict[str, Any], line: str
) -> None:
    write_results(tmp_path / "results", **options)
    with pytest.raises(ConfigError, match=line) as caught:
        import_nnunet(tmp_path / "results", tmp_path / "x.ckpt")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2
    assert not (tmp_path / "x.ckpt").exists()


class Runs:
    """A pickle that would run a command when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


def test_a_checkpoint_that_would_run_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_results(tmp_path / "results")
    file = tmp_path / "results/fold_0/checkpoint_final.pth"
    torch.save({"network_weights": Runs()}, file)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="do not trust it"):
        import_nnunet(tmp_path / "results", tmp_path / "x.ckpt")
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    write_results(tmp_path / "results")
    write_results(tmp_path / "other", layers={"features_per_stage": [4, 6, 8, 10]})
    (tmp_path / "other/fold_0/checkpoint_final.pth").replace(
        tmp_path / "results/fold_0/checkpoint_final.pth"
    )
    with pytest.raises(ConfigError, match="its network needs"):
        import_nnunet(tmp_path / "results", tmp_path / "x.ckpt")


def test_the_command(tmp_path: Path) -> None:
    write_results(tmp_path / "results", folds=("0", "1"))
    done = command(
        "segpipe.import_nnunet", "results=results", "output=x.ckpt", "folds=0", folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    scan_file(tmp_path)
    done = command(
        "predict.py",
        "checkpoint=x.ckpt",
        "input=RAS.nii.gz",
        "output=masks",
        "mirror_axes=checkpoint",
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "masks/RAS.nii.gz").is_file()
    done = command(
        "segpipe.import_nnunet",
        "results=results",
        "output=y.ckpt",
        "checkpoint=best",
        folder=tmp_path,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_real_results_predict_the_masks_of_nnunets_own_predictor(
    real_data: Path, tmp_path: Path
) -> None:
    folder = real_data / "nnunet/nnUNetTrainer_1epoch__nnUNetPlans__3d_fullres"
    if not folder.is_dir():
        pytest.skip("no results of nnU-Net's among the real data")
    import_nnunet(folder, tmp_path / "x.ckpt")
    predictor = Predictor.load(tmp_path / "x.ckpt")
    for file in sorted((real_data / "nnunet/expected_3d_fullres").glob("*.nii.gz")):
        expected = np.asarray(nib.load(file).dataobj)
        mask = predictor(real_data / "Task04_Hippocampus/imagesTr" / file.name)
        assert (mask == expected).mean() >= 0.9995


def labelled_cases(folder: Path) -> None:
    """A data set in nnU-Net's layout: two scans with labels."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number, axes in enumerate(("RAS", "LPS")):
        image = nib.load(scan_file(folder, axes))
        voxels = np.asarray(image.dataobj)
        labels = nib.Nifti1Image((voxels > 60).astype(np.uint8) + (voxels > 120), image.affine)
        nib.save(image, folder / f"imagesTr/case{number}_0000.nii.gz")
        nib.save(labels, folder / f"labelsTr/case{number}.nii.gz")
        (folder / f"{axes}.nii.gz").unlink()
    about = {"channel_names": {"0": "MRI0"}, "labels": {"background": 0, "front": 1, "back": 2}}
    about |= {"numTraining": 2, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(about))


PROBES: list[tuple[str, Any, Any, dict[str, Any]]] = [
    ("lesion", Lesion, lesion, {"lesions": ["zero"]}),
    ("landscape", Landscape, landscape, {"patches": 2, "axes": 1, "max_time": "00:00:00:01"}),
    (
        "robustness",
        Robustness,
        robustness,
        {"blur_mm": [2], "noise": [], "bias": [], "coarser": []},
    ),
]


@pytest.mark.parametrize(
    ("name", "schema", "probe", "changes"), PROBES, ids=[probe[0] for probe in PROBES]
)
def test_an_imported_network_is_probed(
    tmp_path: Path, name: str, schema: Any, probe: Any, changes: dict[str, Any]
) -> None:
    file, _ = imported(tmp_path, residual=name == "lesion")
    labelled_cases(tmp_path / "data")
    given = {
        "checkpoint": [str(file)],
        "data_root": str(tmp_path / "data"),
        "cases": ["case0", "case1"],
    }
    given |= {"output": str(tmp_path / name), "device": "cpu", "precision": "float32"}
    assert probe(validate(schema, defaults(name) | given | changes)) == 0
    rows = (tmp_path / name / f"{name}.csv").read_text().splitlines()
    assert len(rows) > 3

"""A scan in, a mask on its own grid out, from a program."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from support.plans import plan
from torch import nn

from segpipe.errors import DataError
from segpipe.prediction.predictor import Predictor

AFFINE = np.array([[0, -1.5, 0, 9], [1.2, 0, 0, -4], [0, 0, -2, 7], [0, 0, 0, 1.0]])


@pytest.fixture
def predictor() -> Predictor:
    torch.manual_seed(0)
    made = plan("plan.patch=[8,8,8]", "plan.spacing=[1.5,1.5,1.5]")
    return Predictor(nn.Conv3d(1, len(made.labels), 3, padding=1).eval(), made, torch.device("cpu"))


def test_a_file_an_image_and_a_tensor_give_one_mask(tmp_path: Path, predictor: Predictor) -> None:
    voxels = np.random.default_rng(0).normal(size=(14, 11, 9)).astype(np.float32)
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(voxels, AFFINE), path)
    first = predictor(path)
    assert first.shape == voxels.shape
    assert set(np.unique(first)) <= set(predictor.plan.labels.values())
    assert len(np.unique(first)) > 1
    tensor = MetaTensor(torch.from_numpy(voxels), torch.from_numpy(AFFINE))
    for given in (
        str(path),
        [path],
        nib.load(path),
        nib.Nifti1Image(voxels, AFFINE),
        tensor,
        tensor[None],
    ):
        assert np.array_equal(predictor(given), first)


def test_what_is_no_scan_is_refused(predictor: Predictor) -> None:
    with pytest.raises(DataError, match="the tensor has no affine: give monai.data.MetaTensor"):
        predictor(torch.zeros(8, 8, 8))
    with pytest.raises(DataError, match="the affine has a zero or undefined axis"):
        predictor(
            MetaTensor(torch.zeros(8, 8, 8), torch.diag(torch.tensor([1.0, float("nan"), 1, 1])))
        )
    infinite = torch.zeros(8, 8, 8)
    infinite[1, 2, 3] = torch.inf
    with pytest.raises(DataError, match="1 of 512 voxels are NaN or infinite"):
        predictor(MetaTensor(infinite, torch.eye(4)))
    with pytest.raises(
        DataError, match="the scan: has 2 channels, but the network was planned for 1"
    ):
        predictor(MetaTensor(torch.zeros(2, 8, 8, 8), torch.eye(4)))

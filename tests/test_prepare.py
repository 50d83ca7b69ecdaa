"""Case -> network-ready volume, and the fingerprint of what was read."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.plans import LABELS, case, plan

from segpipe.data.doctor import inspect_cases
from segpipe.data.prepare import (
    mask_dtype,
    normalise,
    prepare_scan,
    prepare_volume,
    to_index,
    to_label,
)
from segpipe.data.prepared_case import prepare_case
from segpipe.errors import DataError
from segpipe.geometry import Volume
from segpipe.planning.fingerprint import fingerprint, label_ids


@given(ids=st.sets(st.integers(1, 70_000), min_size=1, max_size=9), seed=st.integers(0, 99))
def test_label_ids_return_as_they_were(ids: set[int], seed: int) -> None:
    labels = {"background": 0} | {f"label {number}": number for number in sorted(ids)}
    disk = np.random.default_rng(seed).choice([0, *ids], (1, 4, 3, 2))
    inside = to_index(disk, labels, Path("x"))
    assert inside.max() < len(labels)
    assert np.array_equal(to_label(inside, labels), disk)
    assert to_label(inside, labels).dtype == mask_dtype(labels)


def test_masks_of_one_label_set_share_their_type() -> None:
    kinds = [
        mask_dtype({"background": 0, "a": largest}) for largest in (1, 255, 256, 65_535, 65_536)
    ]
    assert kinds == [np.uint8, np.uint8, np.uint16, np.uint16, np.uint32]


@pytest.mark.parametrize("value", [3, -2, 0.5])
def test_an_undeclared_label_is_named_with_its_voxels(value: float) -> None:
    ids = np.array([0, 1, 4, value, value]).reshape(1, 5, 1, 1)
    with pytest.raises(
        DataError,
        match=rf"^x.nii: holds {value:g} \(2 voxels\), but the dataset declares only 0 background",
    ):
        to_index(ids, LABELS, Path("x.nii"))


def test_zscore_nonzero_leaves_what_was_cut_away_alone() -> None:
    image = torch.zeros(1, 9, 8, 7)
    image[:, 2:5, 3:6, 1:4] = torch.randn(1, 3, 3, 3) * 50 + 900
    found = normalise(image, plan("plan.normalise=zscore_nonzero"))
    inside = found[image != 0]
    assert (found[image == 0] == 0).all()
    assert inside.mean().abs() < 1e-5
    assert inside.std(correction=0) == pytest.approx(1, abs=1e-5)
    blank = torch.zeros(1, 3, 3, 3)
    assert torch.equal(normalise(blank, plan("plan.normalise=zscore_nonzero")), blank)


def test_zscore_is_per_scan_and_channel() -> None:
    image = torch.stack([torch.randn(9, 8, 7) * 1e5 + 3e5, torch.randn(9, 8, 7)])
    two = plan().model_copy(
        update={"normalise": ["zscore"] * 2, "foreground": plan().foreground * 2}
    )
    for channel in normalise(image, two):
        assert channel.mean().item() == pytest.approx(0, abs=1e-4)
        assert channel.std(correction=0).item() == pytest.approx(1, abs=1e-4)
    assert torch.equal(normalise(torch.full((1, 4, 4, 4), 7.0), plan()), torch.zeros(1, 4, 4, 4))


def test_ct_is_clipped_to_the_foregrounds_percentiles() -> None:
    made = plan("plan.normalise=ct").model_copy(
        update={"foreground": [(-100.0, 200.0, 50.0, 25.0)]}
    )
    image = torch.tensor([-1000.0, -100, 50, 75, 200, 3000]).reshape(1, 6, 1, 1)
    assert normalise(image, made).flatten().tolist() == [-6, -6, 0, 1, 6, 6]


def test_a_prepared_case_keeps_every_label(tmp_path: Path) -> None:
    prepared = prepare_case(case(tmp_path), plan())
    assert prepared.image.shape == prepared.label.shape == (1, 20, 16, 12)
    assert prepared.label.unique().tolist() == [0, 1, 2, 3]
    for label, places in enumerate(prepared.indices):
        assert (prepared.label.flatten()[torch.as_tensor(places)] == label).all()


def test_another_number_of_channels_is_refused(tmp_path: Path) -> None:
    image = case(tmp_path).images[0]
    with pytest.raises(
        DataError, match=r"image0.nii: has 2 channels, but the network was planned for 1"
    ):
        prepare_scan([image, image], plan())


def test_the_fingerprint_is_of_the_training_cases_alone(tmp_path: Path) -> None:
    cases = [case(tmp_path, seed) for seed in range(3)]
    done: list[int] = []
    seen = inspect_cases(cases[:2], cases[2:], None, None, lambda: done.append(1))
    found = fingerprint(seen[:2])
    assert found.shapes.tolist() == [[20, 16, 12]] * 2
    assert (len(found.zero_fraction), len(found.foreground), len(done)) == (1, 1, 3)
    assert label_ids(seen, None) == {"background": 0, "label 1": 1, "label 2": 2, "label 4": 4}
    assert label_ids(seen, LABELS) == LABELS
    names = {0: "Unknown", 1: "horn", 2: "horn", 9: "absent"}
    found = {"background": 0, "horn": 1, "horn 2": 2, "label 4": 4}
    assert label_ids(seen, None, names) == found
    with pytest.raises(DataError, match="no voxel of any of the 1 label maps is labelled"):
        label_ids(inspect_cases([case(tmp_path, 9, ids=(0,))], [], None, None, lambda: None), None)


def test_specks_beside_a_label_leave_it_in_one_piece(tmp_path: Path) -> None:
    label = np.zeros((20, 16, 12), np.uint8)
    label[3:13, 3:13, 3:9] = 1
    label[15::2, 1::3, 1::3] = 1  # single voxels
    made = case(tmp_path)
    assert made.label is not None
    nib.save(nib.Nifti1Image(label, np.eye(4)), made.label)
    (seen,) = inspect_cases([made], [], None, None, lambda: None)
    size = fingerprint([seen]).labels[1]
    assert size.parts > 50
    assert size.spread == pytest.approx(label.sum() / 600)


def test_intensities_that_overflow_are_refused() -> None:
    """Each would be NaN, and the mask empty."""
    voxels = torch.ones(1, 6, 5, 4, dtype=torch.float64)
    voxels[0, 1, 2, 3] = 1e39
    says = r"the scan: channel 0 holds 1e\+39, beyond single precision"
    with pytest.raises(DataError, match=says):
        prepare_volume(Volume(voxels, np.eye(4)), plan())


def test_one_voxel_that_is_wrong_does_not_decide_the_statistics(tmp_path: Path) -> None:
    good = case(tmp_path)
    (clean,) = inspect_cases([good], [], None, None, lambda: None)
    wrong = replace(clean, foreground=clean.foreground.copy())
    wrong.foreground[0, 7] = 3e38
    for found, expected in zip(
        fingerprint([wrong]).foreground[0], fingerprint([clean]).foreground[0], strict=True
    ):
        assert found == pytest.approx(expected, abs=0.1)

"""The planes that a 2D network sees: of single slices, of stacks in several planes, of oblique scans."""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from support.affines import ORIENTATIONS, make_affine
from support.config import composed
from torch import nn

from segpipe.data.cases import Case
from segpipe.data.inspection import inspect_case
from segpipe.data.prepare import model_space, prepare_volume
from segpipe.data.prepared_case import prepare_case
from segpipe.errors import ConfigError
from segpipe.geometry import Grid, ModelSpace, Volume
from segpipe.mask_pairs import mask_pairs
from segpipe.orientation import Planes, own_slice_axis
from segpipe.plan import Plan
from segpipe.planning.fingerprint import fingerprint
from segpipe.planning.rules import make_plan
from segpipe.prediction.predictor import Predictor
from segpipe.stored import read_plan

LABELS = {"background": 0, "organ": 1}
# normals of the short axis of hearts, to the left, the front and the feet in nearly equal parts
SHORT_AXIS = Rotation.from_rotvec([0.9, 0.75, 0.1]).as_matrix()


def write_case(folder: Path, name: str, voxels: np.ndarray, affine: np.ndarray) -> Case:
    files = folder / f"{name}.nii", folder / f"{name}_label.nii"
    nib.save(nib.Nifti1Image(voxels.astype(np.float32), affine), files[0])
    nib.save(nib.Nifti1Image((voxels > 1).astype(np.uint8), affine), files[1])
    return Case(name, (files[0],), files[1])


def plan_of(cases: Sequence[Case], *overrides: str) -> Plan:
    seen = fingerprint([inspect_case(case, LABELS) for case in cases])
    return make_plan(composed("model=unet2d", *overrides), seen, ["MRI"], LABELS, "cpu")


def in_plane(picture: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture `(right or front, front or head)` as a slice across an axis of RAS+, 1 x 2 mm, 5 mm thick."""
    spacing = np.insert([1.0, 2.0], axis, 5.0)
    return np.expand_dims(picture, axis), np.diag([*spacing, 1.0])


def reordered(voxels: np.ndarray, affine: np.ndarray, turn: np.ndarray) -> nib.Nifti1Image:
    """The same scan with its axes stored in another order and direction."""
    image = nib.Nifti1Image(voxels, affine)
    change = np.stack([np.abs(turn).argmax(1), turn.sum(1)], 1)
    return image.as_reoriented(change)


def volume_of(image: nib.Nifti1Image) -> Volume:
    voxels = np.ascontiguousarray(image.get_fdata(dtype=np.float32)[None])
    return Volume(torch.from_numpy(voxels), np.asarray(image.affine))


@pytest.fixture
def mixed(tmp_path: Path) -> list[Case]:
    """Nine single slices, of each plane three, stored in all manner of orders."""
    cases = []
    for number in range(9):
        picture = np.random.default_rng(number).normal(size=(24, 20))
        turned = reordered(*in_plane(picture, number % 3), ORIENTATIONS[(number * 7) % 48])
        cases.append(
            write_case(tmp_path, f"c{number}", turned.get_fdata(), np.asarray(turned.affine))
        )
    return cases


def test_single_slices_of_all_planes_are_seen_in_their_plane(mixed: list[Case]) -> None:
    made = plan_of(mixed, "plan.normalise=none")
    assert (made.slice_axis, made.slices, made.frame) == (2, "scan", None)
    assert made.spacing_mm == [1.0, 2.0, None]
    assert made.patch == [24, 20, 1]
    assert "3 scans across axis 0, 3 scans across axis 1, 3 scans across axis 2" in made.reasons[1]
    for number, case in enumerate(mixed):
        picture = np.random.default_rng(number).normal(size=(24, 20)).astype(np.float32)
        prepared = prepare_case(case, made)
        assert np.array_equal(prepared.image[0, :, :, 0], picture)
        assert np.array_equal(prepared.label[0, :, :, 0], picture > 1)


def test_the_real_set_of_mixed_planes_is_the_axial_one(real_data: Path) -> None:
    found = []
    for folder in ("mixed_orientation_2d", "axial_2d_control"):
        root = real_data / "faults" / folder
        cases = []
        for image in sorted((root / "images").iterdir()):
            cases.append(Case(image.name, (image,), root / "labels" / image.name))
        made = plan_of(cases)
        found.append((made, [prepare_case(case, made) for case in cases]))
    (mixed, mixed_cases), (axial, axial_cases) = found
    same = {"slices": "flat", "reasons": axial.reasons}
    assert (mixed.slices, axial.slices) == ("scan", "flat")
    assert mixed.model_copy(update=same) == axial
    for one, other in zip(mixed_cases, axial_cases, strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.label, other.label)


def test_stacks_of_several_planes_are_seen_as_they_were_acquired(tmp_path: Path) -> None:
    cases = []
    for number, axis in enumerate((0, 0, 1)):
        stack = np.moveaxis(np.random.default_rng(number).normal(size=(24, 20, 6)), 2, axis)
        spacing = np.insert([0.5, 0.75], axis, 4.0)
        cases.append(write_case(tmp_path, f"c{number}", stack, np.diag([*spacing, 1.0])))
    cube = np.random.default_rng(9).normal(size=(20, 20, 20))
    cases.append(write_case(tmp_path, "cube", cube, np.eye(4)))
    made = plan_of(cases)
    assert (made.slice_axis, made.slices) == (0, "scan")  # as most are; that of the cube
    assert made.spacing_mm == [None, 0.5, 0.75]
    assert [tuple(prepare_case(case, made).image.shape[1:]) for case in cases] == [
        (6, 24, 20),
        (6, 24, 20),
        (6, 24, 20),
        (20, 40, 27),
    ]


def test_a_scan_of_one_slice_has_it_where_its_one_voxel_is(tmp_path: Path) -> None:
    """However the plan was made: of axial scans, or with a given axis."""
    rng = np.random.default_rng(0)
    stacks = [rng.normal(size=(20, 24, 5)) for _ in range(3)]
    cases = [
        write_case(tmp_path, f"c{number}", stack, np.diag([1.0, 2.0, 5.0, 1.0]))
        for number, stack in enumerate(stacks)
    ]
    picture = rng.normal(size=(24, 20)).astype(np.float32)
    for asked, flat, shape in (
        ("null", 0, (24, 20, 1)),
        ("2", 1, (24, 20, 1)),
        ("0", 2, (1, 24, 20)),
    ):
        made = plan_of(cases, f"data.slice_axis={asked}", "plan.spacing=[1,1,1]")
        voxels = torch.from_numpy(np.expand_dims(picture, flat)[None])
        image = prepare_volume(Volume(voxels, np.eye(4)), made).image
        assert (made.slices, tuple(image.shape[1:])) == ("flat", shape)


def test_a_homogeneous_set_has_its_plan_and_a_stack_across_another_axis_follows_it(
    tmp_path: Path,
) -> None:
    cases = [
        write_case(
            tmp_path,
            f"c{seed}",
            np.random.default_rng(seed).normal(size=(20, 6, 24)),
            np.diag([1, 4, 1, 1]),
        )
        for seed in range(3)
    ]
    made = plan_of(cases)
    assert (made.slice_axis, made.slices, made.frame) == (1, "flat", None)
    assert "slices across axis 1: the largest spacing, 4 mm" in made.reasons
    other = Volume(torch.zeros(1, 6, 20, 24), np.diag([4.0, 1.0, 1.0, 1.0]))
    assert prepare_volume(other, made).image.shape[1:] == (24, 20, 24)


def short_axis(seed: int, spread_deg: float) -> np.ndarray:
    tilt = Rotation.from_euler(
        "xyz", np.random.default_rng(seed).uniform(-spread_deg, spread_deg, 3), degrees=True
    )
    affine = np.eye(4)
    affine[:3, :3] = tilt.as_matrix() @ SHORT_AXIS @ np.diag([1.4, 1.4, 8.0])
    return affine


def test_oblique_scans_are_matched_to_one_another(tmp_path: Path) -> None:
    """The axis of RAS+ that is nearest to the slices differs between patients; what is seen does not."""
    affines = [short_axis(seed, 15) for seed in range(12)]
    nearest = set()
    for affine in affines:
        order = Grid((20, 24, 6), affine).ras.order
        nearest.add(order.index(2))
    assert len(nearest) > 1
    stack = np.random.default_rng(0).normal(size=(20, 24, 6)).astype(np.float32)
    cases = [write_case(tmp_path, f"c{n}", stack, affine) for n, affine in enumerate(affines[:9])]
    made = plan_of(cases, "plan.normalise=none")
    assert made.frame is not None
    assert made.slices == "flat"
    assert "oblique" in made.reasons[1]
    seen = [prepare_case(case, made).image for case in cases]
    for affine in affines[9:]:  # that the plan was not made of, however they are stored
        for turn in ORIENTATIONS[::7]:
            turned = reordered(stack, affine, turn)
            seen.append(prepare_volume(volume_of(turned), made).image)
    for image in seen:
        assert torch.equal(image, seen[0])
    assert Plan.model_validate(made.model_dump(mode="json")) == made


@settings(deadline=None)
@given(
    turn=st.sampled_from(ORIENTATIONS),
    spacing=st.tuples(*[st.sampled_from((0.5, 0.8, 3.0, 9.0))] * 3),
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    shape=st.tuples(*[st.sampled_from((1, 1, 4, 7))] * 3),
    slice_axis=st.sampled_from((0, 1, 2)),
    slices=st.sampled_from(("plan", "flat", "scan")),
    tilt=st.none() | st.tuples(*[st.floats(-180, 180)] * 3),
)
def test_any_scan_returns_identical(turn, spacing, angles, shape, slice_axis, slices, tilt) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (1, *shape), dtype=np.uint8)
    volume = Volume(torch.from_numpy(labels), make_affine(turn, spacing, angles))
    frame = None
    if tilt is not None:
        frame = tuple(map(tuple, Rotation.from_euler("xyz", tilt, degrees=True).as_matrix()))
    space = ModelSpace((None, None, None), Planes(slice_axis, slices, frame))
    grid = Grid.of(volume)
    inside = space.labels_to_model(volume)
    assert tuple(inside.shape[1:]) == space.shape(grid) == space.orientation(grid).along(shape)
    one_hot = nn.functional.one_hot(inside[0].long(), 3).movedim(-1, 0).float()
    assert torch.equal(space.to_native([one_hot], slice_axis, grid), volume.voxels)
    assert torch.equal(space.to_model(volume), inside.float())
    if slices != "plan" and shape.count(1) == 1:
        assert inside.shape[1 + slice_axis] == 1
    if slices == "plan" and frame is None:
        assert torch.equal(inside, grid.to_ras(volume.voxels))


@pytest.mark.parametrize("number", range(48))
def test_what_is_seen_does_not_depend_on_how_it_is_stored(number: int) -> None:
    for axis in range(3):
        picture = np.random.default_rng(0).normal(size=(7, 5))
        voxels, affine = in_plane(picture, axis)
        affine[:3, :3] = (
            Rotation.from_euler("xyz", (12, -9, 14), degrees=True).as_matrix() @ affine[:3, :3]
        )
        turned = reordered(voxels, affine, ORIENTATIONS[number])
        seen = ModelSpace((None, None, None), Planes(2, "flat")).to_model(volume_of(turned))
        assert np.array_equal(seen[0, :, :, 0], picture.astype(np.float32))


class Threshold(nn.Module):
    """Label 1 where a pixel and its neighbour to the right are together above 0."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        both = image + image.roll(-1, 2)
        return torch.cat([-both, both], 1)


def test_masks_and_maps_come_back_on_the_scans_own_grid(mixed: list[Case]) -> None:
    made = plan_of(mixed, "plan.normalise=none", "plan.patch=[24,20]", "model.channels=[4,8]")
    save = ["mask", "probabilities", "entropy"]
    predictor = Predictor(Threshold(), made, torch.device("cpu"), save=save)
    for number, case in enumerate(mixed):
        picture = torch.from_numpy(np.random.default_rng(number).normal(size=(24, 20))).float()
        expected = picture + picture.roll(-1, 0) > 0
        prediction = predictor.predict(case.images[0])
        mask = prediction.mask(made)
        assert mask.shape == nib.load(case.images[0]).shape
        volume = Volume(torch.from_numpy(mask[None]), prediction.grid.affine)
        assert torch.equal(model_space(made).labels_to_model(volume)[0, :, :, 0] > 0, expected)
        assert prediction.maps.probabilities is not None
        assert np.array_equal(prediction.maps.probabilities[..., 1] > 127, mask > 0)


def test_the_thick_axis_is_the_one_of_slices() -> None:
    for turn in ORIENTATIONS:
        affine = make_affine(turn, (0.8, 8.0, 1.4), (30.0, -40.0, 20.0))
        assert own_slice_axis((9, 9, 9), affine) == 1
        assert own_slice_axis((9, 9, 1), affine) == 2
    assert own_slice_axis((9, 9, 9), np.diag([1.0, 1.0, 1.5, 1.0])) is None
    assert own_slice_axis((9, 1, 1), np.eye(4)) is None


def test_an_old_plan_means_what_it_meant(mixed: list[Case]) -> None:
    stored = plan_of(mixed).model_dump(mode="json", exclude={"slices", "frame"})
    old = read_plan("plan.yaml", stored)
    assert (old.slices, old.frame) == ("plan", None)
    scan = Volume(torch.zeros(1, 1, 24, 20), np.diag([5.0, 1.0, 2.0, 1.0]))
    assert prepare_volume(scan, old).image.shape == (1, 5, 12, 20)
    assert model_space(old).orientation(Grid.of(scan)).order == (0, 1, 2)


@pytest.mark.parametrize(
    "frame", [[[0] * 3] * 3, [[1, 0, 0], [0, 2, 0], [0, 0, 1]], [[float("nan")] * 3] * 3]
)
def test_a_frame_that_is_none_is_refused(mixed: list[Case], frame: list) -> None:
    stored = plan_of(mixed).model_dump(mode="json") | {"frame": frame}
    with pytest.raises(ConfigError, match="does not hold a plan"):
        read_plan("plan.yaml", stored)


def test_distances_in_an_oblique_slice_are_those_in_its_plane() -> None:
    for turn in ORIENTATIONS[::5]:
        grid = Grid((1, 9, 9), make_affine(turn, (8.0, 0.5, 2.0), (33.0, 41.0, -20.0)))
        mask = np.ones((1, 9, 9), np.uint8)
        pair = next(mask_pairs(mask, mask, grid.spacing_mm, {"organ": [1]}, [1.0], 0.1))
        assert np.allclose(pair.spacing_mm, (0.5, 2.0))

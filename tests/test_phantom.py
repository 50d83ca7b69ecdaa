"""The phantom is a real dataset: true headers, hard enough, the same bytes every time."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine, obliquity
from PIL import Image
from scipy.ndimage import binary_dilation
from scipy.ndimage import label as connected

from segpipe.data import phantom
from segpipe.data.anatomy import LABELS
from segpipe.data.phantom import write_phantom
from segpipe.errors import DataError

ORGANS = [label for label in LABELS if label]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    return write_phantom(tmp_path_factory.mktemp("data") / "phantom", train=9, test=2)


@pytest.fixture(scope="module")
def sections(tmp_path_factory):
    return write_phantom(tmp_path_factory.mktemp("data") / "phantom", dims=2, train=9, test=2)


def listed(root: Path) -> list[tuple[Path, Path]]:
    """Image and label of every case that dataset.json names."""
    about = json.loads((root / "dataset.json").read_text())
    pairs = [(root / case["image"], root / case["label"]) for case in about["training"]]
    images = [root / image for image in about["test"]]
    return pairs + [(image, root / "labelsTs" / image.name) for image in images]


def read(path: Path) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_filename(path)


def scans(root: Path) -> list[tuple[nib.Nifti1Image, nib.Nifti1Image]]:
    return [(read(image), read(label)) for image, label in listed(root)]


def arrays(root: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    if list(root.glob("imagesTr/*.png")):
        return [
            (np.array(Image.open(image)), np.array(Image.open(label)))
            for image, label in listed(root)
        ]
    return [(image.get_fdata(), np.asarray(label.dataobj)) for image, label in scans(root)]


def metadata(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def best_window_dice(image: np.ndarray, organ: np.ndarray) -> float:
    """The Dice of the best rule `low <= intensity < high`; a single threshold is one of these."""
    edges = np.unique(np.quantile(image, np.linspace(0, 1, 41)))
    edges[-1] += 1
    sizes = np.histogram(image, edges)[0]
    hits = np.histogram(image[organ], edges)[0]
    return max(
        (2 * np.cumsum(hits[low:]) / (np.cumsum(sizes[low:]) + organ.sum())).max()
        for low in range(len(sizes))
    )


@pytest.mark.parametrize("dims", [2, 3])
def test_the_same_call_gives_the_same_bytes(dims, tmp_path):
    one = write_phantom(tmp_path / "one", dims=dims, train=2, test=1, seed=4)
    other = write_phantom(tmp_path / "other", dims=dims, train=2, test=1, seed=4)
    assert len(metadata(one)) == 7
    assert metadata(one) == metadata(other)


def test_another_seed_gives_other_patients(sections, tmp_path):
    other = write_phantom(tmp_path / "other", dims=2, train=1, test=0, seed=1)
    assert (
        metadata(other)["labelsTr/phantom_000.png"]
        != metadata(sections)["labelsTr/phantom_000.png"]
    )


def test_more_cases_leave_the_earlier_ones_as_they_are(volumes, tmp_path):
    fewer = metadata(write_phantom(tmp_path / "fewer", train=2, test=1))
    fewer.pop("dataset.json")
    assert fewer.items() <= metadata(volumes).items()


@pytest.mark.parametrize("root", ["volumes", "sections"])
def test_dataset_json_lists_every_file(root, request):
    root = request.getfixturevalue(root)
    about = json.loads((root / "dataset.json").read_text())
    assert (about["numTraining"], about["numTest"]) == (9, 2)
    assert about["labels"] == {"0": "background", "1": "liver", "2": "kidneys", "3": "vessel"}
    files = {str(path.relative_to(root)) for pair in listed(root) for path in pair}
    assert files | {"dataset.json"} == set(metadata(root))


@pytest.mark.parametrize("root", ["volumes", "sections"])
def test_every_case_has_every_label(root, request):
    for image, label in arrays(request.getfixturevalue(root)):
        assert image.shape == label.shape
        assert label.dtype == np.uint8
        assert np.unique(label).tolist() == list(LABELS)


def test_sections_are_grey_images_of_varied_size(sections):
    images = [image for image, _ in arrays(sections)]
    assert all(image.dtype == np.uint8 for image in images)
    for rows, columns in [image.shape for image in images]:
        assert 128 <= rows <= 160
        assert 128 <= columns <= 192
    assert len({image.shape for image in images}) > 1


def test_grids_are_as_scanners_make_them(volumes):
    for image, label in scans(volumes):
        spacing_mm = np.array(image.header.get_zooms())
        in_plane, same, slices = spacing_mm
        assert 1.6 <= in_plane == same <= 2.4 <= slices <= 3.0
        assert all(48 <= size <= 72 for size in image.shape)
        directions = np.asarray(image.affine)[:3, :3] / spacing_mm
        np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-5)
        np.testing.assert_array_equal(image.affine, label.affine)
        assert image.header["sform_code"] or image.header["qform_code"]
        assert image.header.get_xyzt_units()[0] == "mm"


def test_headers_vary(volumes):
    images = [image for image, _ in scans(volumes)]
    assert {"RAS", "LPS", "PIR"} <= {"".join(nib.aff2axcodes(image.affine)) for image in images}
    assert {np.dtype(image.get_data_dtype()).name for image in images} == {"int16", "float32"}
    assert len({(int(i.header["sform_code"]), int(i.header["qform_code"])) for i in images}) == 5
    assert len({image.shape for image in images}) == len(images)


def test_some_scans_are_oblique_by_15_degrees_at_most(volumes):
    tilts_deg = np.array([np.rad2deg(obliquity(image.affine).max()) for image, _ in scans(volumes)])
    assert tilts_deg.max() <= 15 + 1e-3
    assert 3 <= (tilts_deg > 2).sum() < len(tilts_deg)


def test_the_liver_lies_right_of_the_kidneys_and_higher_whatever_the_axes(volumes):
    for _, label in scans(volumes):
        liver, kidneys = (
            apply_affine(label.affine, np.argwhere(np.asarray(label.dataobj) == organ)).mean(0)
            for organ in (1, 2)
        )
        assert liver[0] > kidneys[0] + 5
        assert liver[2] > kidneys[2] + 5


@pytest.mark.parametrize("root", ["volumes", "sections"])
@pytest.mark.parametrize("organ", ORGANS)
def test_no_range_of_intensities_finds_an_organ(root, organ, request):
    cases = arrays(request.getfixturevalue(root))
    assert np.mean([best_window_dice(image, label == organ) for image, label in cases]) < 0.6
    assert max(best_window_dice(image, label == organ) for image, label in cases) < 0.75


def test_edge_voxels_hold_a_part_of_both_sides(volumes):
    for image, _ in arrays(volumes):
        fat = np.quantile(image, 0.97)
        regions = np.empty(image.shape, int)
        connected(image < 0.3 * fat, output=regions)
        air = regions == regions[0, 0, 0]
        skin = (
            image[air & binary_dilation(~air)] / fat
        )  # with hard edges, nothing but the air's noise
        assert (skin > 0.2).mean() > 0.05


def test_a_second_call_writes_nothing(volumes):
    before = {path: path.stat().st_mtime_ns for path in (volumes, *volumes.rglob("*"))}
    assert write_phantom(volumes, train=9, test=2) == volumes
    assert {path: path.stat().st_mtime_ns for path in (volumes, *volumes.rglob("*"))} == before


def test_other_settings_are_refused_by_name(sections):
    with pytest.raises(DataError) as error:
        write_phantom(sections, dims=2, train=8, test=2, seed=7)
    advice = "choose another data.root for this one"
    assert (
        str(error.value)
        == f"{sections} holds a phantom with train=9, seed=0, not train=8, seed=7; {advice}"
    )


@pytest.mark.parametrize("text", [None, "{}", "not JSON", '{"phantom": 3}', "[]"])
def test_what_is_not_a_phantom_is_never_overwritten(text, tmp_path):
    (tmp_path / "dataset.json" if text else tmp_path / "scan.txt").write_text(text or "mine")
    before = metadata(tmp_path)
    with pytest.raises(DataError) as error:
        write_phantom(tmp_path)
    assert (
        str(error.value)
        == f"{tmp_path} exists and is not a phantom; choose another data.root for the phantom"
    )
    assert metadata(tmp_path) == before


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "phantom").mkdir()
    assert (write_phantom(tmp_path / "phantom", dims=2, train=1, test=0) / "dataset.json").is_file()


def test_two_calls_at_once_both_end_well(tmp_path, sections):
    root = tmp_path / "phantom"
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(write_phantom, root, dims=2, train=9, test=2) for _ in range(2)]
    assert [call.result() for call in calls] == [root, root]
    assert list(tmp_path.iterdir()) == [root]
    assert metadata(root) == metadata(sections)


def overtaken(monkeypatch: pytest.MonkeyPatch, ready: Path, root: Path) -> None:
    """Lets another call put `ready` at `root` just before this one is done."""
    write = phantom._write_dataset

    def write_and_be_overtaken(folder: Path, settings: dict[str, int]) -> None:
        write(folder, settings)
        shutil.copytree(ready, root)

    monkeypatch.setattr(phantom, "_write_dataset", write_and_be_overtaken)


def test_a_call_that_was_overtaken_uses_what_is_there(monkeypatch, tmp_path, sections):
    overtaken(monkeypatch, sections, tmp_path / "phantom")
    assert write_phantom(tmp_path / "phantom", dims=2, train=9, test=2) == tmp_path / "phantom"
    assert list(tmp_path.iterdir()) == [tmp_path / "phantom"]


def test_a_call_that_was_overtaken_by_other_settings_says_so(monkeypatch, tmp_path, sections):
    overtaken(monkeypatch, sections, tmp_path / "phantom")
    with pytest.raises(DataError, match="train=9, test=2, not train=1, test=1;"):
        write_phantom(tmp_path / "phantom", dims=2, train=1, test=1)
    assert list(tmp_path.iterdir()) == [tmp_path / "phantom"]


def test_a_failure_leaves_nothing_behind(monkeypatch, tmp_path):
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(phantom, "_write_nifti", full)
    with pytest.raises(OSError, match="No space left"):
        write_phantom(tmp_path / "phantom", train=1)
    assert list(tmp_path.iterdir()) == []

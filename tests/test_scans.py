"""Which scans `input=` means, and what their masks are called."""

import re
from pathlib import Path

import pytest

from segpipe.errors import ConfigError
from segpipe.prediction.scans import find_scans


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in (
        "in/b.nii.gz",
        "in/a.nii",
        "in/.hidden.nii",
        "in/notes.txt",
        "in/deep/er/a.nii.gz",
        "in/deep/c.png",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"")
    return tmp_path


def masks(given: str, channels: int = 1, recursive: bool = False) -> list[str]:
    return [scan.mask_name for scan in find_scans(given, Path("out"), channels, recursive)]


@pytest.mark.parametrize(
    ("given", "recursive", "found"),
    [
        ("in", False, ["a.nii.gz", "b.nii.gz"]),
        ("in", True, ["a.nii.gz", "b.nii.gz", "deep/c.png", "deep/er/a.nii.gz"]),
        ("in/b.nii.gz", False, ["b.nii.gz"]),
        ("in/*.nii", False, ["a.nii.gz"]),
        ("in/**/*.nii.gz", False, ["b.nii.gz", "deep/er/a.nii.gz"]),
        ("in/deep/*/*.nii.gz", False, ["er/a.nii.gz"]),
    ],
)
def test_folders_are_mirrored(folder: Path, given: str, recursive: bool, found: list[str]) -> None:
    assert masks(given, recursive=recursive) == found
    assert masks(str(folder / given), recursive=recursive) == found


def test_a_list_names_files_beside_it(folder: Path) -> None:
    Path("in/list.txt").write_text("# two\nb.nii.gz\n\ndeep/er/a.nii.gz\n")
    assert [scan.images for scan in find_scans("in/list.txt", Path("out"), 1)] == [
        (Path("in/deep/er/a.nii.gz"),),
        (Path("in/b.nii.gz"),),
    ]
    Path("in/list.txt").write_text("a.nii\ndeep/er/a.nii.gz\n")
    with pytest.raises(
        ConfigError, match=r"a.nii, in/deep/er/a.nii.gz would all be written as a; rename them"
    ):
        masks("in/list.txt")


def test_a_table_gives_channels_and_names(folder: Path) -> None:
    Path("scans.csv").write_text(
        "case,image_0,image_1,age\ns/one,in/b.nii.gz,in/a.nii,40\ntwo,in/a.nii,in/b.nii.gz,50\n"
    )
    found = find_scans("scans.csv", Path("out"), 2)
    assert [(scan.name, scan.images) for scan in found] == [
        ("s/one", (Path("in/b.nii.gz"), Path("in/a.nii"))),
        ("two", (Path("in/a.nii"), Path("in/b.nii.gz"))),
    ]
    for name in ("../one", "/tmp/one"):
        Path("scans.csv").write_text(f"case,image\n{name},in/b.nii.gz\n")
        with pytest.raises(
            ConfigError, match=re.escape(f"the mask {name}.nii.gz would leave output=out")
        ):
            masks("scans.csv")
    Path("scans.csv").write_text("case,image\none,in/b.nii.gz\none,in/a.nii\n")
    with pytest.raises(ConfigError, match="would all be written as one"):
        masks("scans.csv")


def test_numbered_files_are_channels_of_one_scan(folder: Path) -> None:
    for name in ("x_0001", "x_0000", "y_0000", "y_0001"):
        (folder / f"in/deep/{name}.nii.gz").write_bytes(b"")
    found = find_scans("in/deep/*.nii.gz", Path("out"), 2)
    assert [(scan.name, [path.name for path in scan.images]) for scan in found] == [
        ("x", ["x_0000.nii.gz", "x_0001.nii.gz"]),
        ("y", ["y_0000.nii.gz", "y_0001.nii.gz"]),
    ]
    with pytest.raises(ConfigError, match="the network takes 3 channels a scan"):
        find_scans("in/deep/*.nii.gz", Path("out"), 3)


def test_a_mask_never_replaces_its_scan(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"output=in: b.nii.gz would replace the scan itself"):
        find_scans("in", Path("in"), 1)


def test_masks_below_the_input_are_no_scans(folder: Path) -> None:
    (folder / "in/masks").mkdir()
    (folder / "in/masks/a.nii.gz").write_bytes(b"")
    found = [scan.mask_name for scan in find_scans("in", Path("in/masks"), 1, recursive=True)]
    assert found == ["a.nii.gz", "b.nii.gz", "deep/c.png", "deep/er/a.nii.gz"]

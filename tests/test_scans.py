"""Which scans `input=` means, and what their masks are called."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import generate_uid
from support.dicom import DX, data_set, save
from support.dicom_files import write_series

from segpipe.errors import ConfigError
from segpipe.prediction.channel_sets import Scan
from segpipe.prediction.scans import find_scans
from segpipe.prediction.truths import find_truths


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
    assert [(scan.name, file_names(scan)) for scan in found] == [
        ("x", ["x_0000.nii.gz", "x_0001.nii.gz"]),
        ("y", ["y_0000.nii.gz", "y_0001.nii.gz"]),
    ]
    for scan in find_scans("in/deep/*.nii.gz", Path("out"), 3)[:2]:
        assert f"{scan.name}_0000.nii.gz, {scan.name}_0001.nii.gz are not the 3 ch" in scan.problem


def made(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def file_names(scan: Scan) -> list[str]:
    return [path.name for path in scan.images]


def found(folder: Path, channels: int) -> dict[str, tuple[list[str], bool]]:
    """Per scan the names of its files, and whether it can be tried."""
    scans = find_scans(str(folder), folder / "out", channels)
    return {scan.name: (file_names(scan), not scan.problem) for scan in scans}


@pytest.mark.parametrize(
    ("names", "channels", "scans"),
    [
        ("pat_0001 pat_0002", 2, {"pat_0001": ["pat_0001"], "pat_0002": ["pat_0002"]}),
        ("pat_0000 pat_0001", 2, {"pat": ["pat_0000", "pat_0001"]}),
        ("pat_0000", 1, {"pat": ["pat_0000"]}),
        ("pat_0001", 1, {"pat_0001": ["pat_0001"]}),
        ("pat_0001 pat_0002 pat_0003", 1, {f"pat_000{i}": [f"pat_000{i}"] for i in (1, 2, 3)}),
        ("pat_0001", 2, {"pat_0001": ["pat_0001"]}),
        ("pat_0000", 2, {"pat": ["pat_0000"]}),
        ("a_2019 b_00001 c0000", 1, {"a_2019": ["a_2019"], "b_00001": ["b_00001"], "c0000": ["c0000"]}),
        ("a_0000_0000 a_0000_0001", 2, {"a_0000": ["a_0000_0000", "a_0000_0001"]}),
    ],
)  # fmt: skip
def test_only_exact_suffixes_are_channels(
    tmp_path: Path, names: str, channels: int, scans: dict[str, list[str]]
) -> None:
    folder = made(tmp_path, *(f"{name}.nii.gz" for name in names.split()))
    listed = found(folder, channels)
    assert listed.keys() == scans.keys()
    for name, files in scans.items():
        assert listed[name] == ([f"{file}.nii.gz" for file in files], True)


def test_a_wrong_set_of_channels_fails_alone(tmp_path: Path) -> None:
    sets = {"few": (0, 1), "many": (0, 1, 2, 3), "gap": (0, 2), "good": (0, 1, 2)}
    for name, numbers in sets.items():
        made(tmp_path, *(f"{name}_{number:04d}.mha" for number in numbers))
    assert {name: good for name, (_, good) in found(tmp_path, 3).items()} == {
        "few": False,
        "many": False,
        "gap": False,
        "good": True,
    }


def test_the_file_beside_a_channel_number_is_another_name(tmp_path: Path) -> None:
    made(tmp_path, "pat.nii.gz", "pat_0000.nii.gz")
    with pytest.raises(ConfigError, match=r"pat.nii.gz, .*pat_0000.nii.gz would all be written"):
        found(tmp_path, 1)
    made(tmp_path, "other.nii.gz")
    assert found(tmp_path, 1) == {
        "other": (["other.nii.gz"], True),
        "pat": (["pat.nii.gz", "pat_0000.nii.gz"], False),
    }


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.sets(st.from_regex(r"[ab](_000[0-4])?", fullmatch=True), min_size=1),
    channels=st.integers(1, 4),
)
def test_no_file_is_lost_and_none_used_twice(
    tmp_path_factory: pytest.TempPathFactory, names: set[str], channels: int
) -> None:
    folder = made(tmp_path_factory.mktemp("scans"), *(f"{name}.nii" for name in names))
    try:
        scans = find_scans(str(folder), folder / "out", channels)
    except ConfigError as error:
        if "would all be written as" not in str(error):
            raise
        return
    used = [path.name for scan in scans for path in scan.images]
    assert sorted(used) == sorted(f"{name}.nii" for name in names)
    for scan in scans:
        numbers = [path.stem[-4:] for path in scan.images]
        if len(scan.images) > 1 and not scan.problem:
            assert numbers == [f"{number:04d}" for number in range(channels)]


def test_a_folder_of_dicom_keeps_its_name(tmp_path: Path) -> None:
    voxels = np.zeros((4, 3, 5), np.int16)
    for name in ("anna_2019", "amos_0001", "amos_0000"):
        write_series(tmp_path / name, voxels)
    for channels in (1, 2):
        names = [scan.name for scan in find_scans(str(tmp_path), tmp_path / "out", channels)]
        assert names == ["amos_0000", "amos_0001", "anna_2019"]


def test_several_volumes_of_a_folder_are_scans_of_their_own(tmp_path: Path) -> None:
    voxels = np.zeros((4, 3, 5), np.int16)
    for number, series in enumerate(("1.2.8", "1.2.9")):
        changes = {slice_: {(0x0020, 0x000E): series} for slice_ in range(5)}
        write_series(tmp_path / f"part{number}", voxels, changes=changes)
        (tmp_path / "in/anna").mkdir(parents=True, exist_ok=True)
        for file in (tmp_path / f"part{number}").iterdir():
            file.rename(tmp_path / f"in/anna/{number}_{file.name}")
    for typed in ("in", "in/anna", "in/*", "in/anna/*", "in/anna/*.dcm"):
        names = [scan.name for scan in find_scans(str(tmp_path / typed), tmp_path / "out", 1)]
        assert len(names) == 2, typed
        assert all(name.startswith("anna_") for name in names), typed
    (scan,) = find_scans(str(tmp_path / "in/anna/0_0003.dcm"), tmp_path / "out", 1)
    assert scan.name == "0_0003"
    (scan,) = find_scans(str(tmp_path / "in/anna/0_*.dcm"), tmp_path / "out", 1)
    assert scan.name.startswith("anna_")


def test_what_is_passed_over_is_counted_and_named(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="segpipe")
    masks("in")
    assert caplog.messages == [
        "input: passed over 3 files: .hidden.nii, deep/ (recursive=true searches it), notes.txt"
    ]


def test_deeper_scans_are_counted(tmp_path: Path) -> None:
    made(tmp_path, "sub-1/anat/T1.nii.gz", "sub-2/anat/T1.nii.gz", "notes.txt")
    with pytest.raises(ConfigError, match=r"hold 2 scans; add recursive=true"):
        find_scans(str(tmp_path), tmp_path / "out", 1)
    write_series(tmp_path / "x/study/series", np.zeros((4, 3, 5), np.int16))
    with pytest.raises(ConfigError, match=r"hold 3 scans; add recursive=true"):
        find_scans(str(tmp_path), tmp_path / "out", 1)
    names = [scan.name for scan in find_scans(str(tmp_path), tmp_path / "out", 1, recursive=True)]
    assert names == ["sub-1/anat/T1", "sub-2/anat/T1", "x/study/series"]


def test_odd_entries_stay_with_themselves(tmp_path: Path) -> None:
    made(tmp_path, "good.nii.gz", "deep/good.nii.gz")
    (tmp_path / "loop.nii.gz").symlink_to(tmp_path / "loop.nii.gz")
    (tmp_path / "gone.nii.gz").symlink_to(tmp_path / "nowhere")
    (tmp_path / "deep/back").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.nii.gz")
    os.mkfifo(tmp_path / "queue.png")
    os.mkfifo(tmp_path / "tube.tif")
    (tmp_path / "zero.nii.gz").symlink_to("/dev/zero")
    made(tmp_path, "line\nbreak.nii.gz", "x" * 230 + ".nii.gz")
    with open(os.fsencode(tmp_path) + b"/m\xfcller.nii.gz", "wb"):
        pass
    scans = find_scans(str(tmp_path), tmp_path / "out", 1, recursive=True)
    problems = {scan.name: scan.problem for scan in scans}
    assert [name for name, problem in problems.items() if not problem] == ["deep/good", "good"]
    for name, problem in (
        ("loop", "Too many levels"),
        ("gone", "a link to a file that does not exist"),
        ("pipe", "not a regular file"),
        ("queue", "not a regular file"),
        ("tube", "not a regular file"),
        ("zero", "not a regular file"),
        (r"line\nbreak", "rename it"),
        (r"m\udcfcller", "rename it"),
    ):
        assert problem in problems[name]
        assert problems[name].isprintable()
    assert len(problems) == 11


def test_a_folder_that_may_not_be_opened_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made(tmp_path, "a.nii.gz", "locked/b.nii.gz")
    usual = Path.iterdir

    def refused(path: Path) -> Iterator[Path]:  # as for anyone but root
        if path.name == "locked":
            raise PermissionError(13, "Permission denied")
        return usual(path)

    monkeypatch.setattr(Path, "iterdir", refused)
    caplog.set_level("INFO", logger="segpipe")
    scans = find_scans(str(tmp_path), tmp_path / "out", 1, recursive=True)
    assert [scan.name for scan in scans] == ["a"]
    assert "locked/ (Permission denied)" in caplog.text


def test_brackets_in_a_folder_are_no_pattern(tmp_path: Path) -> None:
    folder = made(tmp_path / "a [1] {b}", "x.nii.gz", "y[2].nii.gz")
    for typed, names in (("", ["x", "y[2]"]), ("*.nii.gz", ["x", "y[2]"]), ("y[2].nii.gz", ["y[2]"])):  # fmt: skip
        scans = find_scans(str(folder / typed), tmp_path / "out", 1)
        assert [scan.name for scan in scans] == names


def test_the_current_folder_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "series", np.zeros((4, 3, 5), np.int16))
    monkeypatch.chdir(tmp_path / "series")
    assert masks(".") == ["series.nii.gz"]


def test_lists_and_tables_that_cannot_be_used_are_one_line(tmp_path: Path) -> None:
    for name, content in (
        ("list.txt", b""),
        ("list.txt", b"\0\1"),
        ("empty.csv", b""),
        ("head.csv", b"case,image\n"),
        ("deep.json", b"[" * 100_000),
        ("long.csv", b"case,image\na," + b"x" * 200_000),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=name) as refused:
            find_scans(str(tmp_path / name), tmp_path / "out", 1)
        assert "\n" not in str(refused.value)


def test_a_table_names_the_truth(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Subject;Scan;Mask\nanna;a.nii;m.nrrd\nbob;b.nii;\n")
    columns = {"case": "Subject", "image": "Scan", "label": "Mask"}
    scans = find_scans(str(tmp_path / "t.csv"), tmp_path / "out", 1, columns=columns)
    assert find_truths(scans, None, tmp_path / "out") == {"anna": tmp_path / "m.nrrd"}
    made(tmp_path, "truth/bob.mha", "truth/anna.nii.gz")
    assert find_truths(scans, tmp_path / "truth", tmp_path / "out") == {
        "anna": tmp_path / "m.nrrd",
        "bob": tmp_path / "truth/bob.mha",
    }


def test_truths_of_any_format_are_found(tmp_path: Path) -> None:
    names = (
        "a.nrrd",
        "b.mha",
        "c.nii.gz",
        "d.nii",
        "e.png",
        "deep/f.mhd",
        "x.y.nii.gz",
        "n_0000.nrrd",
    )
    made(tmp_path, *(f"truth/{name}" for name in names))
    for name in ("a", "b", "c", "d", "e", "deep/f", "x.y", "n_0000"):
        made(tmp_path, f"in/{name}.nii.gz")
    scans = find_scans(str(tmp_path / "in"), tmp_path / "out", 1, recursive=True)
    truths = find_truths(scans, tmp_path / "truth", tmp_path / "out")
    assert sorted(str(path.relative_to(tmp_path / "truth")) for path in truths.values()) == sorted(
        names
    )


def test_missing_truths_are_all_named(tmp_path: Path) -> None:
    made(tmp_path, "in/a.nii", "in/b.nii", "in/c.nii", "truth/b.nii", "truth/bb.nii")
    scans = find_scans(str(tmp_path / "in"), tmp_path / "out", 1)
    with pytest.raises(ConfigError, match="no label map for 2 scans of 3: a, c;"):
        find_truths(scans, tmp_path / "truth", tmp_path / "out")
    with pytest.raises(ConfigError, match="is not a folder of label maps"):
        find_truths(scans, tmp_path / "nowhere", tmp_path / "out")


def test_one_scan_may_have_one_truth(tmp_path: Path) -> None:
    made(tmp_path, "in/a.nii", "labels.nrrd")
    scans = find_scans(str(tmp_path / "in/a.nii"), tmp_path / "out", 1)
    assert find_truths(scans, tmp_path / "labels.nrrd", tmp_path / "out") == {
        "a": tmp_path / "labels.nrrd"
    }
    with pytest.raises(ConfigError, match="is the scan a itself"):
        find_truths(scans, tmp_path / "in/a.nii", tmp_path / "out")


def test_a_scan_or_a_mask_is_no_truth_of_its_own(tmp_path: Path) -> None:
    made(tmp_path, "in/a.nii.gz", "out/a.nii.gz")
    (tmp_path / "linked").symlink_to(tmp_path / "in")
    scans = find_scans(str(tmp_path / "in"), tmp_path / "out", 1)
    for folder, reason in (("in", "is the scan a itself"), ("linked", "is the scan a itself"), ("out", "where the mask of a is written")):  # fmt: skip
        with pytest.raises(ConfigError, match=reason):
            find_truths(scans, tmp_path / folder, tmp_path / "out")


def test_a_mask_never_replaces_its_scan(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"output=in: b.nii.gz would replace the scan itself"):
        find_scans("in", Path("in"), 1)


def test_masks_below_the_input_are_no_scans(folder: Path) -> None:
    (folder / "in/masks").mkdir()
    (folder / "in/masks/a.nii.gz").write_bytes(b"")
    found = [scan.mask_name for scan in find_scans("in", Path("in/masks"), 1, recursive=True)]
    assert found == ["a.nii.gz", "b.nii.gz", "deep/c.png", "deep/er/a.nii.gz"]


def test_each_radiograph_of_a_folder_keeps_the_name_of_its_file(tmp_path: Path) -> None:
    for name in ("anna.dcm", "1.2.840.7", "1.2.840.8"):
        image = data_set(
            np.arange(12, dtype=np.uint16).reshape(3, 4), DX, SeriesInstanceUID=generate_uid()
        )
        save(tmp_path / "films" / name, image)
    found = find_scans(str(tmp_path / "films"), tmp_path / "masks", 1)
    assert [scan.mask_name for scan in found] == [
        "1.2.840.7.nii.gz",
        "1.2.840.8.nii.gz",
        "anna.nii.gz",
    ]


@pytest.mark.parametrize("ending", [".img", ".img.gz", ".IMG"])
@pytest.mark.parametrize("given", ["pairs", "pairs/*", "pairs/*{}", "pairs/a{}", "pairs/list.txt"])
def test_a_pair_is_one_scan_by_whichever_of_its_files(
    folder: Path, ending: str, given: str
) -> None:
    header = Path(f"pairs/a{ending.replace('img', 'hdr').replace('IMG', 'HDR')}")
    Path("pairs").mkdir()
    header.touch()
    Path(f"pairs/a{ending}").touch()
    Path("pairs/list.txt").write_text(f"a{ending}\n")
    (scan,) = find_scans(given.format(ending), Path("out"), 1)
    assert scan.mask_name == "a.nii.gz"
    assert scan.images == ((Path(f"pairs/a{ending}") if "list" in given else header),)


def test_voxels_without_their_header_are_named(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Path("in/lonely.img").touch()
    caplog.set_level("INFO")
    assert masks("in") == ["a.nii.gz", "b.nii.gz"]
    assert "lonely.img" in caplog.text

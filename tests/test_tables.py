"""Tables of cases as people, Excel and programs write them."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segpipe.data.tables import file_named, read_inputs, read_rows, read_text
from segpipe.errors import DataError

COLUMNS = {"case": "Subject", "image": "Image", "label": "Mask"}


def written(folder: Path, content: bytes | str, name: str = "cases.csv") -> Path:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def test_columns_of_ones_own_are_named(tmp_path: Path) -> None:
    file = written(tmp_path, "subject;IMAGE;Mask;Age\nanna;a.nii;m.nii;40\n")
    (case,) = read_inputs(file, COLUMNS)
    assert (case.name, case.images, case.label) == (
        "anna",
        (tmp_path / "a.nii",),
        tmp_path / "m.nii",
    )
    assert read_rows(file, COLUMNS)[0].values["Age"] == "40"
    with pytest.raises(DataError, match=r"columns=\{image:Scan\}.*subject, IMAGE, Mask, Age"):
        read_rows(file, {"image": "Scan"})
    with pytest.raises(DataError, match=r"columns=\{picture:Image\}"):
        read_rows(file, {"picture": "Image"})


def test_a_table_without_images_says_how_to_name_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column image, but Subject, Scan; .*columns=\{case"):
        read_rows(written(tmp_path, "Subject,Scan\nanna,a.nii\n"))


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffCase;Image\r\nä;ä.nii\r\n".encode(),
        "Case;Image\nä;ä.nii\n".encode("utf-16"),
        "Case;Image\nä;ä.nii\n".encode("cp1252"),
        b"sep=;\r\n" + "Case;Image\r\nä;ä.nii\r\n".encode(),
        "\nCase;Image;;\nä;ä.nii;;\n;;;\n\n".encode(),
        '"Case","Image"\n"ä","ä.nii"\n'.encode(),
        "Case\tImage\nä\tä.nii".encode(),
    ],
)
def test_what_excel_writes_is_read(tmp_path: Path, content: bytes) -> None:
    (case,) = read_inputs(written(tmp_path, content))
    assert (case.name, case.images, case.label) == ("ä", (tmp_path / "ä.nii",), None)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("", "t.csv", "has no rows"),
        ("case,image\n", "t.csv", "has no rows"),
        ("[]", "t.json", "has no rows"),
        (b"case,image\na,\0.nii\n", "t.csv", "is not a text file"),
        (b"case,image\na,\x81.nii\n", "t.csv", "is not a text file"),
        ("case,image\na," + "x" * 140_000, "t.csv", "field larger than field limit"),
        ("case,image,Image\na,b,c\n", "t.csv", "2 columns of the name 'image'"),
        ("case,image\na\n", "t.csv", "row 2 does not have the 2 fields"),
        ("case,image\na,b,c\n", "t.csv", "row 2 does not have the 2 fields"),
        ("[" * 100_000, "t.json", "cannot be read as JSON"),
        ('{"image": 1}', "t.json", "must be a list of objects"),
        ('[{"image": 1}]', "t.json", "must be file names"),
        ('[{"image": "a.nii", "label": [1]}]', "t.json", "must be file names"),
        ('[{"image": ""}]', "t.json", "has no image"),
        (r'[{"image": "a\u0000.nii"}]', "t.json", "holds no file of the name"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(
    tmp_path: Path, content: bytes | str, name: str, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_inputs(written(tmp_path, content, name))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_paths_as_people_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert file_named(tmp_path, "~/a.nii") == tmp_path / "home/a.nii"
    assert file_named(tmp_path, r"scans\a b.nii") == tmp_path / "scans/a b.nii"
    assert file_named(tmp_path, "/x/a.nii") == Path("/x/a.nii")
    assert file_named(tmp_path, "a\\" * 5000) == tmp_path / ("a/" * 5000)
    assert file_named(tmp_path, "~nobody-here/a.nii") == tmp_path / "~nobody-here/a.nii"
    (tmp_path / r"a\b.nii").touch()
    assert file_named(tmp_path, r"a\b.nii") == tmp_path / r"a\b.nii"


def test_a_cell_may_hold_several_files_or_one_with_a_semicolon(tmp_path: Path) -> None:
    file = written(tmp_path, "image,case\nt1.nii;t2.nii,one\n")
    assert [path.name for path in read_inputs(file)[0].images] == ["t1.nii", "t2.nii"]
    (tmp_path / "t1.nii;t2.nii").touch()
    assert [path.name for path in read_inputs(file)[0].images] == ["t1.nii;t2.nii"]


def test_channels_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    header = ",".join(f"image_{number}" for number in range(12))
    files = ",".join(f"{number}.nii" for number in range(12))
    (case,) = read_inputs(written(tmp_path, f"{header}\n{files}\n"))
    assert [path.stem for path in case.images] == list(map(str, range(12)))


def test_only_the_first_channels_number_leaves_a_name(tmp_path: Path) -> None:
    file = written(tmp_path, "image\npat_0000.nii\npat_0001.nii\n")
    assert [case.name for case in read_inputs(file)] == ["pat", "pat_0001"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_any_bytes_are_a_text_or_one_line(tmp_path: Path, content: bytes) -> None:
    file = written(tmp_path, content)
    try:
        read_text(file)
        read_inputs(file)
    except DataError as error:
        if not str(error).isprintable():
            raise

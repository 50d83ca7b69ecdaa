"""A folder of 40 inputs, half of them hostile or broken: 20 masks, 20 reasons, little memory."""

import csv
import gzip
import json
import os
import signal
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from PIL import Image
from support.checkpoints import write_checkpoint
from support.commands import command, started
from support.dicom_files import write_series

from segpipe.batch import predict_batch
from segpipe.config.compose import defaults
from segpipe.config.predict import Predict
from segpipe.config.validation import validate
from segpipe.engines import worker
from segpipe.errors import ConfigError
from segpipe.prediction.predictor import Predictor
from segpipe.prediction.reasons import one_line
from segpipe.prediction.record_store import RecordStore

VOXELS = np.random.default_rng(0).integers(0, 900, (20, 16, 8)).astype(np.int16)
MOST_MEMORY_KIB = 2 * 2**20
MHA = (
    "ObjectType = Image\nNDims = {}\nDimSize = {}\nElementType = MET_SHORT\nElementDataFile = {}\n"
)


def nifti(file: Path, voxels: np.ndarray = VOXELS) -> None:
    nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1, 2, 1])), file)


def itk(file: Path, compressed: bool = False) -> None:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VOXELS.T), str(file), compressed)


def pixels(file: Path) -> None:
    Image.fromarray((VOXELS[:, :, 0] // 4).astype(np.uint8)).save(file)


def good(folder: Path) -> list[str]:
    """20 scans in mixed formats; the names of their masks."""
    for name in ("a.nii", "b.nii.gz", "c d.nii.gz", "ünï (1).nii.gz", "pat_0001.nii.gz", "pat_0002.nii.gz", "x_0000.nii.gz", "K.L.NII.GZ"):  # fmt: skip
        nifti(folder / name)
    nifti(folder / "float.nii.gz", VOXELS.astype(np.float64))
    nifti(folder / "four_axes.nii.gz", VOXELS[..., None])
    for name in ("e.nrrd", "g.nhdr", "h.mha", "j.mhd"):
        itk(folder / name)
    for name in ("f.nrrd", "i.mha"):
        itk(folder / name, compressed=True)
    for name in ("series", "anna_2019"):
        write_series(folder / name, VOXELS)
    for name in ("m.png", "n.tif"):
        pixels(folder / name)
    return ["K.L.nii.gz", "a.nii.gz", "anna_2019.nii.gz", "b.nii.gz", "c d.nii.gz", "e.nii.gz", "f.nii.gz",
            "float.nii.gz", "four_axes.nii.gz", "g.nii.gz", "h.nii.gz", "i.nii.gz", "j.nii.gz", "m.png", "n.png",
            "pat_0001.nii.gz", "pat_0002.nii.gz", "series.nii.gz", "x.nii.gz", "ünï (1).nii.gz"]  # fmt: skip


def bomb(file: Path) -> None:
    """A scan of 10 kB by its header, with 3 GB after it, in 3 MB."""
    start = nib.Nifti1Image(VOXELS, np.eye(4)).to_bytes()
    zeros = gzip.compress(bytes(2**26), 9)
    file.write_bytes(gzip.compress(start) + 48 * zeros)


def png_bomb(file: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(2**24), 9)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def cut(file: Path) -> None:
    nifti(file)
    file.write_bytes(file.read_bytes()[:3000])


def flipped(file: Path) -> None:
    nifti(file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def header_field(offset: int, content: bytes) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        raw = bytearray(nib.Nifti1Image(VOXELS, np.eye(4)).to_bytes())
        raw[offset : offset + len(content)] = content
        file.write_bytes(bytes(raw))

    return write


def nan(file: Path) -> None:
    voxels = VOXELS.astype(np.float32)
    voxels[3, 3, 3] = np.nan
    nifti(file, voxels)


def two_channels(file: Path) -> None:
    array = np.stack([VOXELS.T, VOXELS.T], -1)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array, isVector=True), str(file))


def text(content: str) -> Callable[[Path], object]:
    return lambda file: file.write_text(content)


def missing_slice(folder: Path) -> None:
    write_series(folder, VOXELS)
    sorted(folder.iterdir())[3].unlink()


def nrrd(dimension: int) -> str:
    sizes = " ".join(["2"] * dimension)
    return f"NRRD0004\ntype: short\ndimension: {dimension}\nsizes: {sizes}\nencoding: raw\n\n"


HOSTILE: dict[str, Callable[[Path], object]] = {
    "printf.mhd": text(MHA.format(3, "4 4 4", "%n%s%s%d.raw 1 4 1")),
    "axes.mha": text(MHA.format(100, " ".join(["2"] * 100), "LOCAL")),
    "negative.mha": text(MHA.format(3, "-4 4 4", "LOCAL")),
    "passwd.mhd": text(MHA.format(3, "4 4 4", "/etc/passwd")),
    "sixteen.nrrd": text(nrrd(16)),
    "lone.nhdr": text(nrrd(3).rstrip() + "\ndata file: gone.raw\n"),
    "bomb.nii.gz": bomb,
    "picture.png": png_bomb,
    "pipe.nii.gz": os.mkfifo,
    "zero.nii.gz": lambda file: file.symlink_to("/dev/zero"),
    "loop.nii.gz": lambda file: file.symlink_to(file),
    "nan.nii.gz": nan,
    "cut.nii.gz": cut,
    "flipped.nii.gz": flipped,
    "two_channels.nrrd": two_channels,
    "text.nii.gz": text("no scan at all\n"),
    "empty.nii.gz": text(""),
    "type.nii": header_field(70, struct.pack("<h", 31_000)),
    "broken.tif": text("II*\0\x08\0\0\0\xff\xff and no more"),
    "gap": missing_slice,
}  # fmt: skip


def table(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "predictions.csv").open(newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def masks(folder: Path) -> dict[str, int]:
    """Name and time of change of every mask."""
    files = [path for path in folder.iterdir() if path.name.endswith((".nii.gz", ".png"))]
    return {path.name: path.stat().st_mtime_ns for path in files}


def test_twenty_of_forty(tmp_path: Path) -> None:
    scans = tmp_path / "Müller, A. [40] = #1"
    scans.mkdir()
    names = good(scans)
    for name, write in HOSTILE.items():
        write(scans / name)
    assert len(names) == len(HOSTILE) == 20
    write_checkpoint(tmp_path / "some.ckpt")
    call = ["checkpoint=some.ckpt", f"input={scans}", "output=out", "device=cpu", "overlays=false"]
    with started("predict.py", *call, folder=tmp_path) as process:
        done = process.done()
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert sorted(masks(tmp_path / "out")) == names
    rows = table(tmp_path / "out")
    failed = {name: row["reason"] for name, row in rows.items() if row["status"] == "failed"}
    assert len(rows) == 40
    assert len(failed) == 20
    page = (tmp_path / "out/index.html").read_text()
    for name in HOSTILE:
        reason = failed[name.split(".")[0]]
        assert name in reason
        assert "\n" not in reason
        assert name in page
    assert process.memory_kib < MOST_MEMORY_KIB
    before = masks(tmp_path / "out")
    again = command("predict.py", *call, folder=tmp_path)
    assert again.returncode == 0, "nothing new has failed"
    assert "0 new, 20 unchanged, 20 known failures" in again.stdout
    assert "Traceback" not in again.stderr
    assert command("predict.py", *call, "strict=true", folder=tmp_path).returncode == 3
    assert masks(tmp_path / "out") == before
    assert {name: row["reason"] for name, row in table(tmp_path / "out").items()} == {
        name: row["reason"] for name, row in rows.items()
    }
    assert not list((tmp_path / "out").rglob(".segpipe-part-*"))
    assert [path.name for path in (tmp_path / "out").glob(".*")] == [".segpipe"]


def options(folder: Path) -> Predict:
    given = {"checkpoint": str(folder / "some.ckpt"), "input": str(folder / "in"), "output": str(folder / "out")}  # fmt: skip
    return validate(Predict, defaults("predict") | given | {"device": "cpu", "overlays": False})


@pytest.fixture
def four(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "some.ckpt")
    (tmp_path / "in").mkdir()
    for name in "abcd":
        nifti(tmp_path / f"in/{name}.nii.gz")
    return tmp_path


def test_a_process_that_dies_leaves_records_table_manifest_and_page(four: Path) -> None:
    usual = Predictor.segment

    def dies(self: Predictor, scan: object, progress: object) -> object:
        if (four / "out/b.nii.gz").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return usual(self, scan, progress)  # type: ignore[arg-type]

    pid = os.fork()
    if pid == 0:
        Predictor.segment = dies  # type: ignore[method-assign]
        predict_batch(options(four))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    settled = RecordStore(four / "out").records
    assert sorted(settled) in (["a"], ["a", "b"])
    stored = json.loads((four / "out/manifest.json").read_text())["scans"]
    assert [row["name"] for row in stored] == list(table(four / "out")) == ["a"]
    assert "1 scan done" in (four / "out/index.html").read_text()
    before = masks(four / "out")
    assert predict_batch(options(four)) == 0
    assert list(table(four / "out")) == list("abcd")
    for name in settled:
        assert masks(four / "out")[f"{name}.nii.gz"] == before[f"{name}.nii.gz"]


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("too deep"), OSError(5, "I/O")])
@pytest.mark.parametrize("place", ["prepare_scan", "write_outputs", "read_grid"])
def test_any_error_stays_with_its_scan(
    four: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, place: str
) -> None:
    usual = getattr(worker, place)

    def fails(*given: object, **named: object) -> object:
        if "b.nii.gz" in repr(given):
            raise error
        return usual(*given, **named)

    monkeypatch.setattr(worker, place, fails)
    assert predict_batch(options(four)) == 3
    rows = table(four / "out")
    assert [name for name, row in rows.items() if row["status"] == "failed"] == ["b"]
    assert "b.nii.gz" in rows["b"]["reason"]


def test_the_reason_of_a_failure_names_scan_and_place() -> None:
    error = IsADirectoryError(21, "Is a directory", "out/.part", None, "out/a.nii.gz")
    said = one_line(Path("in/a.nii.gz"), error)
    assert said == "in/a.nii.gz: Is a directory (out/a.nii.gz)"
    assert one_line(Path("in/a.nii.gz"), OSError(5, "I/O")) == "in/a.nii.gz: I/O"


def test_a_truth_that_cannot_be_used_costs_no_mask(
    four: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (four / "truth").mkdir()
    for name in "abc":
        nifti(four / f"truth/{name}.nii.gz", (VOXELS > 400).astype(np.uint8))
    (four / "truth/d.nrrd").write_text("no label map")
    given = options(four).model_copy(update={"truth": four / "truth"})
    caplog.set_level("INFO", logger="segpipe")
    assert predict_batch(given) == 3
    assert "4 of 4 masks written" in caplog.text
    assert "d: not scored: " in caplog.text
    assert {row["status"] for row in table(four / "out").values()} == {"done"}
    with (four / "out/scores.csv").open() as file:
        assert {row["case"] for row in csv.DictReader(file)} == set("abc")
    assert predict_batch(given) == 0, "nothing new"
    assert predict_batch(given.model_copy(update={"strict": True})) == 3


def test_an_output_that_cannot_be_written_to_is_one_line(four: Path) -> None:
    (four / "file").touch()
    (four / "loop").symlink_to(four / "loop")
    for name in ("file", "file/inside", "loop"):
        given = options(four).model_copy(update={"output": four / name})
        with pytest.raises(ConfigError, match="cannot be written to"):
            predict_batch(given)


def test_two_patients_are_two_scans(tmp_path: Path) -> None:
    """Each is refused for itself by a network of two channels, and predicted by one of one."""
    (tmp_path / "in").mkdir()
    for name in ("pat_0001", "pat_0002"):
        nifti(tmp_path / f"in/{name}.nii.gz")
    write_checkpoint(tmp_path / "some.ckpt", channels=2)
    assert predict_batch(options(tmp_path)) == 3
    for name, row in table(tmp_path / "out").items():
        assert f"{name}.nii.gz: has 1 channels, but the network was planned for 2" in row["reason"]
        assert "_0000, _0001" in row["reason"]
    assert not masks(tmp_path / "out")
    write_checkpoint(tmp_path / "some.ckpt")
    assert predict_batch(options(tmp_path)) == 0
    assert sorted(masks(tmp_path / "out")) == ["pat_0001.nii.gz", "pat_0002.nii.gz"]

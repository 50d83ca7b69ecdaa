"""A bucket of a local S3 server (moto) as input and output, with the connection cut in the middle."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from support.remote import NAMES, cutting, options, predict, scan_bytes

from segpipe import remote
from segpipe.batch import predict_batch
from segpipe.errors import DataError
from segpipe.remote import RemoteFolder

pytest.importorskip("s3fs", reason="s3fs is not installed (pip install 'segpipe[remote]')")
pytest.importorskip("moto.server", reason="moto is not installed (pip install 'moto[server]')")

KEY, SECRET = "AKIAFORTESTSONLY", "never-to-be-shown"
SHAPE = (96, 96, 24)  # of scans that take several packets


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture
def bucket(port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The client of a server that holds the scans in `s3://clinic/in`."""
    import s3fs

    monkeypatch.setattr(remote, "PAUSE_S", 0.01)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    through(port, monkeypatch)
    client = s3fs.S3FileSystem(endpoint_url=f"http://127.0.0.1:{port}", skip_instance_cache=True)
    client.mkdir("clinic")
    for seed, name in enumerate(NAMES):
        client.pipe_file(f"clinic/in/{name}.nii", scan_bytes(seed, SHAPE))
    yield client
    client.invalidate_cache()
    client.rm("clinic", recursive=True)


def through(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next calls ask the server at a port."""
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    s3fs.S3FileSystem.clear_instance_cache()


def names_in(client: Any, folder: str) -> list[str]:
    client.invalidate_cache()
    return sorted(path.removeprefix(f"{folder}/") for path in client.find(folder))


def mask_of(content: bytes) -> np.ndarray:
    return np.asarray(nib.Nifti1Image.from_bytes(content).dataobj)


def expected_masks(tmp_path: Path) -> dict[str, np.ndarray]:
    """The masks of the same scans in a folder."""
    (tmp_path / "local").mkdir()
    for seed, name in enumerate(NAMES):
        (tmp_path / f"local/{name}.nii").write_bytes(scan_bytes(seed, SHAPE))
    asked = options(tmp_path, input=str(tmp_path / "local"), output=str(tmp_path / "masks"))
    assert predict_batch(asked) == 0
    found = {}
    for name in NAMES:
        image = nib.load(tmp_path / f"masks/{name}.nii.gz")  # type: ignore[attr-defined]
        found[name] = np.asarray(image.dataobj)
    return found


def check_masks(client: Any, tmp_path: Path) -> None:
    import gzip

    expected = expected_masks(tmp_path)
    client.invalidate_cache()
    for name in NAMES:
        content = gzip.decompress(client.cat_file(f"clinic/out/{name}.nii.gz"))
        assert np.array_equal(mask_of(content), expected[name])


def test_the_round_trip_gives_the_masks_of_a_folder(tmp_path: Path, bucket: Any) -> None:
    asked = {"input": "s3://clinic/in", "output": "s3://clinic/out"}
    assert predict(tmp_path, **asked) == 0
    check_masks(bucket, tmp_path)
    rows = json.loads(bucket.cat_file("clinic/out/manifest.json"))["scans"]
    assert [row["images"] for row in rows] == [[f"s3://clinic/in/{name}.nii"] for name in NAMES]
    assert predict(tmp_path, **asked) == 0
    log = bucket.cat_file("clinic/out/predict.log").decode()
    assert "3 new, 0 unchanged" in log
    assert "0 new, 3 unchanged" in log
    bucket.rm_file("clinic/out/case_1.nii.gz")
    assert predict(tmp_path, output="s3://clinic/out", collect=True) == 3


def test_a_cut_in_the_middle_of_a_scan_costs_an_attempt_and_nothing_else(
    tmp_path: Path, bucket: Any, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(scan_bytes(0, SHAPE))
    with cutting(port, after=size // 2) as proxy:
        through(proxy.port, monkeypatch)
        proxy.cuts = 3
        assert predict(tmp_path, input="s3://clinic/in", output="s3://clinic/out") == 0
        assert proxy.was_cut == 3
    check_masks(bucket, tmp_path)


def test_a_cut_in_the_middle_of_a_mask_never_leaves_half_of_it(
    tmp_path: Path, bucket: Any, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = np.random.default_rng(0).bytes(200_000)
    (tmp_path / "mask").write_bytes(content)
    with cutting(port, after=100_000, upwards=True) as proxy:
        through(proxy.port, monkeypatch)
        folder = RemoteFolder("s3://clinic/out", "output")
        proxy.cuts = 10**6
        monkeypatch.setattr(remote, "ATTEMPTS", 1)
        with pytest.raises(DataError, match=r"s3://clinic/out/mask\.nii\.gz: 1 attempts"):
            folder.send(tmp_path / "mask", "mask.nii.gz")
        assert names_in(bucket, "clinic/out") == []
        proxy.cuts = 1
        monkeypatch.setattr(remote, "ATTEMPTS", 3)
        folder.send(tmp_path / "mask", "mask.nii.gz")
    assert bucket.cat_file("clinic/out/mask.nii.gz") == content


def test_a_server_that_goes_away_fails_its_scans_and_the_next_call_goes_on(
    tmp_path: Path, bucket: Any, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "ATTEMPTS", 1)
    with cutting(port, after=8000) as proxy:  # less than a scan, more than any other answer
        through(proxy.port, monkeypatch)
        proxy.cuts = 10**6
        assert predict(tmp_path, input="s3://clinic/in", output="s3://clinic/out") == 3
    through(port, monkeypatch)
    assert not [name for name in names_in(bucket, "clinic/out") if name.endswith(".nii.gz")]
    assert predict(tmp_path, input="s3://clinic/in", output="s3://clinic/out") == 0
    check_masks(bucket, tmp_path)


def test_credentials_are_neither_printed_nor_stored(tmp_path: Path, bucket: Any) -> None:
    options(tmp_path, input="a", output="b")  # writes the checkpoint
    words = ["input=s3://clinic/in", "output=s3://clinic/out", f"checkpoint={tmp_path}/some.ckpt"]
    program = [sys.executable, str(Path(__file__).parents[1] / "predict.py")]
    call = [*program, *words, "device=cpu", "verbose=true"]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    failed = subprocess.run(
        [*program, "input=s3://nowhere-at-all/in", *words[1:]], capture_output=True, text=True
    )
    assert failed.returncode == 2
    assert failed.stderr.startswith("segpipe-predict: input=s3://nowhere-at-all/in: ")
    assert "botocore" not in said + failed.stdout
    assert "endpoint" not in said + failed.stdout
    assert len(failed.stderr.splitlines()) == 1
    said += failed.stdout + failed.stderr
    for name in names_in(bucket, "clinic/out"):
        said += bucket.cat_file(f"clinic/out/{name}").decode(errors="replace")
    assert "clinic" in said
    assert KEY not in said
    assert SECRET not in said

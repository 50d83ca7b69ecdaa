"""A predictor in a service: bytes and file objects, several threads, and the application of the docs."""

import base64
import gzip
import importlib.util
import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from support.checkpoints import write_checkpoint
from support.commands import REPOSITORY

from segpipe import Predictor
from segpipe.errors import DataError

AFFINE = np.array([[0, -1.0, 0, 9], [1, 0, 0, -4], [0, 0, -2, 7], [0, 0, 0, 1.0]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("service")
    write_checkpoint(made / "best.ckpt")
    for number in range(4):
        voxels = np.random.default_rng(number).integers(0, 900, (20, 18 + number, 9))
        image = nib.Nifti1Image(voxels.astype(np.int16), AFFINE)
        image.header["descrip"] = b"kept"
        nib.save(image, made / f"{number}.nii.gz")
    return made


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return Predictor.load(folder / "best.ckpt")


def test_bytes_and_file_objects_are_scans(folder: Path, predictor: Predictor) -> None:
    path = folder / "0.nii.gz"
    expected = predictor(path)
    assert len(np.unique(expected)) > 1
    content = path.read_bytes()
    plain = nib.load(path).to_bytes()
    for given in (content, bytearray(content), memoryview(content), io.BytesIO(content), plain):
        assert np.array_equal(predictor(given), expected)
    with path.open("rb") as opened:
        assert np.array_equal(predictor(opened), expected)


def test_a_mask_is_saved_in_one_call(folder: Path, predictor: Predictor, tmp_path: Path) -> None:
    """Of a file with its header, of a tensor with its affine."""
    path = folder / "0.nii.gz"
    expected = predictor(path)
    tensor = MetaTensor(torch.from_numpy(nib.load(path).get_fdata()), torch.from_numpy(AFFINE))
    given: list[Any] = [path, str(path), [path], path.read_bytes(), path.open("rb"), tensor]
    for number, scan in enumerate(given):
        prediction = predictor.save_mask(scan, tmp_path / f"{number}.nii.gz")
        saved = nib.load(tmp_path / f"{number}.nii.gz")
        assert np.array_equal(np.asanyarray(saved.dataobj), expected)
        assert np.array_equal(saved.affine, AFFINE)
        assert saved.header["descrip"] == (b"" if scan is tensor else b"kept")
        assert saved.header.get_data_dtype() == np.uint8
        assert np.array_equal(prediction.mask(predictor.plan), expected)


def test_bytes_that_are_no_scan_are_one_line_without_a_path(
    folder: Path, predictor: Predictor
) -> None:
    content = (folder / "0.nii.gz").read_bytes()
    for damaged in (b"", b"no scan", content[: len(content) // 2]):
        with pytest.raises(DataError) as caught:
            predictor(damaged)
        assert str(caught.value).startswith("the scan: ")
        assert "/" not in str(caught.value)


def test_four_threads_get_the_masks_of_one(folder: Path, predictor: Predictor) -> None:
    scans = [folder / f"{number}.nii.gz" for number in range(4)] * 3
    expected = [predictor(scan) for scan in scans[:4]] * 3
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(predictor, scans))
    for mask, other in zip(found, expected, strict=True):
        assert np.array_equal(mask, other)


@pytest.fixture
def service(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, Any]]:
    pytest.importorskip("fastapi", reason="needs FastAPI")
    pytest.importorskip("httpx", reason="needs httpx, by which FastAPI's client asks")
    from fastapi.testclient import TestClient

    monkeypatch.setenv("SEGPIPE_CHECKPOINT", str(folder / "best.ckpt"))
    spec = importlib.util.spec_from_file_location("service", REPOSITORY / "docs/howto/service.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module, TestClient(module.app)
    module.workers.shutdown()


def test_an_upload_gets_its_mask_and_volumes(
    folder: Path, predictor: Predictor, service: tuple[ModuleType, Any]
) -> None:
    _, client = service
    content = (folder / "1.nii.gz").read_bytes()
    answer = client.post("/segment", content=content)
    assert answer.status_code == 200
    packed = base64.b64decode(answer.json()["mask"])
    mask = nib.Nifti1Image.from_bytes(gzip.decompress(packed))
    expected = predictor(content)
    assert np.array_equal(np.asanyarray(mask.dataobj), expected)
    volume = (expected == 1).sum() * 2.0 / 1000  # voxels of 1 x 1 x 2 mm
    assert answer.json()["volumes_ml"] == {"organ": pytest.approx(volume)}


def test_what_goes_wrong_is_json(
    folder: Path, service: tuple[ModuleType, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, client = service
    content = (folder / "1.nii.gz").read_bytes()
    damaged = client.post("/segment", content=content[:100])
    assert damaged.status_code == 422
    assert damaged.json()["error"].startswith("the scan: ")
    monkeypatch.setattr(module, "LARGEST", 1000)
    large = client.post("/segment", content=content)
    assert (large.status_code, large.json()) == (
        413,
        {"error": "the scan has more than 1000 bytes"},
    )
    monkeypatch.setattr(module, "LARGEST", 2**20)
    monkeypatch.setattr(module, "SECONDS", 0.05)
    monkeypatch.setattr(module, "segment", lambda _: time.sleep(0.3))
    late = client.post("/segment", content=content)
    assert (late.status_code, late.json()) == (504, {"error": "the scan took more than 0.05 s"})

"""The phantom: a dataset of generated abdomens, to try everything without data.

Files are written as scanners write them: one anatomy per case, sampled on a grid of its own
(spacing, axes, tilt and field of view vary), with partial-volume edges, texture, a bias field and
noise. A 2D image is an axial section of the same anatomy.
"""

import gzip
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.spatial.transform import Rotation

from segpipe.data.anatomy import LABELS
from segpipe.data.scanner import ScannerGrid, add_bias_and_noise, draw_grid, draw_scan
from segpipe.errors import DataError

# raised whenever the same settings would give other voxels: an older folder is then refused
VERSION = 1
ORIENTATIONS = ("RAS", "LPS", "LAS", "PIR", "RAS", "LIP", "ASR")
CT_ORIENTATIONS = ("LPS", "RAS", "LAS")
# codes of sform and qform: scanners set at least one of them
FORM_CODES = ((1, 1), (2, 0), (0, 1), (1, 0), (2, 1))
# ids on disk of LABELS; those of CT have a gap, as those of real datasets may
IDS = {"MRI": (0, 1, 2, 3), "CT": (0, 1, 2, 4)}
PARTS = (("Tr", "train", "phantom"), ("Ts", "test", "unseen"))  # folder suffix, setting, case names

Settings = dict[str, int | str]


def write_phantom(
    root: Path,
    *,
    dims: Literal[2, 3] = 3,
    modality: Literal["MRI", "CT"] = "MRI",
    train: int = 24,
    test: int = 6,
    seed: int = 0,
) -> Path:
    """Write the phantom in the Decathlon layout to `root`, unless it is there already.

    The same settings give the same bytes, and more cases leave the earlier ones as they are. `root`
    is complete or absent, and several processes may call this at once. Labels of the test part are
    in `labelsTs`.

    Args:
        root: folder to write.
        dims: 3 for volumes (NIfTI), 2 for images (PNG).
        modality: CT has thick slices and is written for volumes only.
        train: number of cases to train and validate on.
        test: number of cases kept for prediction.
        seed: another seed gives other patients.

    Returns:
        `root`.

    Raises:
        DataError: if `root` holds something else, or a phantom with other settings.
    """
    settings: Settings = {
        "dims": dims,
        "modality": modality,
        "train": train,
        "test": test,
        "seed": seed,
        "version": VERSION,
    }
    if _is_present(root, settings):
        return root
    unfinished = root.with_name(f".{root.name}-{uuid.uuid4().hex}")
    unfinished.mkdir(parents=True)
    try:
        _write_dataset(unfinished, settings)
        os.rename(unfinished, root)
    except OSError:
        if not _is_present(root, settings):  # no other run was faster: a real failure
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return root


def _is_present(root: Path, settings: Settings) -> bool:
    """Return whether `root` holds this phantom; anything else there is the user's, and stays.

    Raises:
        DataError: if it holds something else.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        present: Settings = {**json.loads((root / "dataset.json").read_text())["phantom"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(
            f"{root} exists and is not a phantom; choose another data.root for the phantom"
        ) from None
    different = [key for key in settings if present.get(key) != settings[key]]
    if different:
        raise DataError(
            f"{root} holds a phantom with {_values_text(present, different)}, not "
            f"{_values_text(settings, different)}; choose another data.root for this one"
        )
    return True


def _values_text(settings: Settings, keys: list[str]) -> str:
    """Return some settings as a message shows them: `train=9, seed=0`."""
    return ", ".join(f"{key}={settings.get(key)}" for key in keys)


def _write_dataset(folder: Path, settings: Settings) -> None:
    is_2d = settings["dims"] == 2
    modality = str(settings["modality"])
    write_case = _write_ct
    if modality == "MRI":
        write_case = _write_section if is_2d else _write_mr
    names: dict[str, list[str]] = {}
    for part, (suffix, setting, prefix) in enumerate(PARTS):
        images = folder / f"images{suffix}"
        labels = folder / f"labels{suffix}"
        images.mkdir()
        labels.mkdir()
        names[suffix] = []
        for index in range(int(settings[setting])):
            name = f"{prefix}_{index:03d}{'.png' if is_2d else '.nii.gz'}"
            names[suffix].append(name)
            rng = np.random.default_rng([int(settings["seed"]), part, index])
            write_case(images / name, labels / name, rng, index)
    content = _dataset_json(settings, modality, names["Tr"], names["Ts"])
    (folder / "dataset.json").write_text(json.dumps(content, indent=2) + "\n")


def _dataset_json(
    settings: Settings, modality: str, train: list[str], test: list[str]
) -> dict[str, object]:
    labels = {}
    for number, name in zip(IDS[modality], LABELS.values(), strict=True):
        labels[str(number)] = name
    training = []
    for name in train:
        training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    return {
        "name": "Phantom",
        "description": "Generated abdomens; labelsTs holds the labels of the test part.",
        "tensorImageSize": f"{settings['dims']}D",
        "modality": {"0": modality},
        "labels": labels,
        "numTraining": settings["train"],
        "numTest": settings["test"],
        "training": training,
        "test": [f"./imagesTs/{name}" for name in test],
        "phantom": settings,
    }


def _write_mr(image_path: Path, label_path: Path, rng: np.random.Generator, index: int) -> None:
    """Write one MR volume.

    What must vary within any few cases depends on the index: axes, obliqueness, codes and type.
    """
    spacing_mm = rng.uniform((1.6, 2.4), (2.4, 3.0))
    view_mm = rng.uniform((116, 96, 120), (134, 112, 138))
    axis = rng.standard_normal(3)
    angle_deg = rng.uniform(5, 15) * (index % 3 == 1)
    rotation = Rotation.from_rotvec(axis / np.linalg.norm(axis) * angle_deg, degrees=True)
    orientation = ORIENTATIONS[index % len(ORIENTATIONS)]
    codes = FORM_CODES[index % len(FORM_CODES)]
    grid = draw_grid(orientation, rotation, spacing_mm, view_mm, ((48, 72),) * 3, rng)
    image, label = draw_scan(grid, rng)
    image = add_bias_and_noise(image, grid.points_mm(), rng)
    image *= rng.uniform(150, 1200)  # MR has no unit
    voxels = np.rint(image).astype(np.int16) if index % 2 == 0 else image
    _write_nifti(image_path, voxels, grid, codes)
    _write_nifti(label_path, label, grid, codes)


def _write_ct(image_path: Path, label_path: Path, rng: np.random.Generator, index: int) -> None:
    """Write one CT volume in Hounsfield units, with slices over three times as thick as voxels."""
    spacing_mm = rng.uniform((1.1, 4.4), (1.3, 5.0))
    view_mm = rng.uniform((116, 96, 120), (134, 112, 138))
    orientation = CT_ORIENTATIONS[index % len(CT_ORIENTATIONS)]
    grid = draw_grid(orientation, Rotation.identity(), spacing_mm, view_mm, ((24, 128),) * 3, rng)
    image, label = draw_scan(grid, rng, ct=True)
    image += rng.normal(0, rng.uniform(15, 25), grid.shape)
    _write_nifti(image_path, np.rint(image.clip(-1024, 3071)).astype(np.int16), grid, (1, 1))
    _write_nifti(label_path, np.array(IDS["CT"], np.uint8)[label], grid, (1, 1))


def _write_section(
    image_path: Path, label_path: Path, rng: np.random.Generator, index: int
) -> None:
    """Write one axial slice as a viewer shows it: rows to the back, columns to the left."""
    spacing_mm = np.array((rng.uniform(0.72, 0.95), 3))
    view_mm = rng.uniform((116, 98, 3), (134, 112, 3))
    rotation = Rotation.from_rotvec((0, 0, rng.uniform(-10, 10)), degrees=True)
    sizes = ((128, 160), (128, 192), (1, 1))
    grid = draw_grid("PLS", rotation, spacing_mm, view_mm, sizes, rng)
    image, label = draw_scan(grid, rng)
    image = add_bias_and_noise(image, grid.points_mm(), rng)
    grey = np.rint(image[..., 0] * rng.uniform(130, 200))
    Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).save(image_path)
    Image.fromarray(label[..., 0]).save(label_path)


def _write_nifti(
    path: Path, voxels: npt.NDArray[np.generic], grid: ScannerGrid, codes: tuple[int, int]
) -> None:
    sform, qform = codes
    nifti = nib.Nifti1Image(voxels, grid.affine)
    nifti.set_sform(grid.affine if sform else None, sform)
    nifti.set_qform(grid.affine if qform else None, qform)
    nifti.header.set_xyzt_units("mm", "sec")
    # no time in the bytes, so that they are always the same
    path.write_bytes(gzip.compress(nifti.to_bytes(), compresslevel=1, mtime=0))

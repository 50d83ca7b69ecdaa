"""Phantom: a dataset of generated abdomens, written as scanners write them, to try everything without data.

One anatomy per case, sampled on a grid of its own (spacing, axes, tilt and field of view vary), with
partial-volume edges, texture, a bias field and noise. A 2D image is an axial section of the same anatomy.
"""

import gzip
import json
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from segpipe.data.anatomy import LABELS, TEXTURE_MM, Floats, tissues, wave
from segpipe.errors import DataError

VERSION = (
    1  # raised whenever the same settings would give other voxels: an older folder is then refused
)
ORIENTATIONS = ("RAS", "LPS", "LAS", "PIR", "RAS", "LIP", "ASR")
FORM_CODES = (
    (1, 1),
    (2, 0),
    (0, 1),
    (1, 0),
    (2, 1),
)  # (sform, qform): scanners set one of them at least
TOWARDS = {
    "R": (1, 0, 0),
    "L": (-1, 0, 0),
    "A": (0, 1, 0),
    "P": (0, -1, 0),
    "S": (0, 0, 1),
    "I": (0, 0, -1),
}

# what CT shows of the tissues that MR shows in these signals, in Hounsfield units: air, gas, bile, liver, kidney, two
# kinds of fat, and blood with contrast medium
SIGNALS = (0.0, 0.03, 0.3, 0.52, 0.66, 0.86, 1.0, 1.2)
HOUNSFIELD = (-1000, -950, 10, 110, 180, -90, -110, 260)
IDS = {
    "MRI": (0, 1, 2, 3),
    "CT": (0, 1, 2, 4),
}  # of LABELS, on disk; that they may have gaps is part of the trial

Doubles = npt.NDArray[np.float64]
Settings = dict[str, int | str]


@dataclass(frozen=True)
class ScannerGrid:
    """A scanner's grid; `affine` (4, 4) leads from voxel indices to the patient's millimetres."""

    shape: tuple[int, int, int]
    affine: Doubles
    centre_mm: Doubles

    @property
    def spacing_mm(self) -> Doubles:
        """Voxel size along each voxel axis."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def points_mm(self) -> Floats:
        """Voxel centres, relative to the body's centre: (3, *shape)."""
        origin = self.affine[:3, 3] - self.centre_mm
        points = np.tensordot(self.affine[:3, :3], np.indices(self.shape), axes=1)
        return (points + origin[:, None, None, None]).astype(np.float32)


def write_phantom(
    root: Path,
    *,
    dims: Literal[2, 3] = 3,
    modality: Literal["MRI", "CT"] = "MRI",
    train: int = 24,
    test: int = 6,
    seed: int = 0,
) -> Path:
    """Write the phantom in the Decathlon layout to `root`, unless it is there already, and return `root`.

    The same settings give the same bytes, and more cases leave the earlier ones as they are. `root` appears
    complete or not at all, and several processes may ask for it at once. Labels of the test part are in
    `labelsTs`.

    Raises:
        DataError: `root` holds something else, or a phantom with other settings.
    """
    settings: Settings = {
        "dims": dims,
        "modality": modality,
        "train": train,
        "test": test,
        "seed": seed,
    }
    settings["version"] = VERSION
    if _present(root, settings):
        return root
    building = root.with_name(f".{root.name}-{uuid.uuid4().hex}")
    building.mkdir(parents=True)
    try:
        _write_dataset(building, settings)
        os.rename(building, root)
    except OSError:
        if not _present(root, settings):  # not another run that was faster: a real failure
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return root


def _present(root: Path, settings: Settings) -> bool:
    """Whether `root` holds this very phantom; anything else there is the user's and is never overwritten."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found: Settings = {**json.loads((root / "dataset.json").read_text())["phantom"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(
            f"{root} exists and is not a phantom; remove the folder or choose another."
        ) from None
    differ = [key for key in settings if found.get(key) != settings[key]]
    if differ:
        has = ", ".join(f"{key}={found.get(key)}" for key in differ)
        wants = ", ".join(f"{key}={settings[key]}" for key in differ)
        raise DataError(
            f"{root} holds a phantom with {has}, not {wants}; remove the folder or choose another."
        )
    return True


def _write_dataset(folder: Path, settings: Settings) -> None:
    dims, modality = settings["dims"], str(settings["modality"])
    ending = ".png" if dims == 2 else ".nii.gz"
    write = {"MRI": _write_section if dims == 2 else _write_mr, "CT": _write_ct}[modality]
    names: dict[str, list[str]] = {}
    for part, (suffix, count) in enumerate(
        (("Tr", int(settings["train"])), ("Ts", int(settings["test"])))
    ):
        for kind in ("images", "labels"):
            (folder / f"{kind}{suffix}").mkdir()
        names[suffix] = [
            f"{'phantom' if part == 0 else 'unseen'}_{i:03d}{ending}" for i in range(count)
        ]
        for index, name in enumerate(names[suffix]):
            rng = np.random.default_rng([int(settings["seed"]), part, index])
            paths = folder / f"images{suffix}" / name, folder / f"labels{suffix}" / name
            write(*paths, rng, index)
    about = {
        "name": "Phantom",
        "description": "Generated abdomens; labelsTs holds the labels of the test part.",
        "tensorImageSize": f"{dims}D",
        "modality": {"0": modality},
        "labels": {
            str(number): name for number, name in zip(IDS[modality], LABELS.values(), strict=True)
        },
        "numTraining": settings["train"],
        "numTest": settings["test"],
        "training": [{"image": f"./imagesTr/{n}", "label": f"./labelsTr/{n}"} for n in names["Tr"]],
        "test": [f"./imagesTs/{n}" for n in names["Ts"]],
        "phantom": settings,
    }
    (folder / "dataset.json").write_text(json.dumps(about, indent=2) + "\n")


def _write_mr(image_path: Path, label_path: Path, rng: np.random.Generator, index: int) -> None:
    """One MR volume; what must vary within any few cases goes by index: axes, obliqueness, codes and type."""
    spacing_mm, view_mm = (
        rng.uniform((1.6, 2.4), (2.4, 3.0)),
        rng.uniform((116, 96, 120), (134, 112, 138)),
    )
    axis, angle_deg = rng.standard_normal(3), rng.uniform(5, 15) * (index % 3 == 1)
    turn = Rotation.from_rotvec(axis / np.linalg.norm(axis) * angle_deg, degrees=True)
    axes, codes = ORIENTATIONS[index % len(ORIENTATIONS)], FORM_CODES[index % len(FORM_CODES)]
    grid = _grid(axes, turn, spacing_mm, view_mm, ((48, 72),) * 3, rng)
    image, label = _scan(grid, rng)
    image = _acquire(image, grid.points_mm(), rng)
    image *= rng.uniform(150, 1200)  # MR has no unit
    _write_nifti(
        image_path, np.rint(image).astype(np.int16) if index % 2 == 0 else image, grid, codes
    )
    _write_nifti(label_path, label, grid, codes)


def _write_ct(image_path: Path, label_path: Path, rng: np.random.Generator, index: int) -> None:
    """One CT volume in Hounsfield units: fine in its axial planes, with slices more than three times as thick."""
    spacing_mm, view_mm = (
        rng.uniform((1.1, 4.4), (1.3, 5.0)),
        rng.uniform((116, 96, 120), (134, 112, 138)),
    )
    grid = _grid(
        ("LPS", "RAS", "LAS")[index % 3],
        Rotation.identity(),
        spacing_mm,
        view_mm,
        ((24, 128),) * 3,
        rng,
    )
    image, label = _scan(grid, rng, ct=True)
    image += rng.normal(0, rng.uniform(15, 25), grid.shape)
    _write_nifti(image_path, np.rint(image.clip(-1024, 3071)).astype(np.int16), grid, (1, 1))
    _write_nifti(label_path, np.array(IDS["CT"], np.uint8)[label], grid, (1, 1))


def _write_nifti(
    path: Path, voxels: npt.NDArray[np.generic], grid: ScannerGrid, codes: tuple[int, int]
) -> None:
    nifti = nib.Nifti1Image(voxels, grid.affine)
    nifti.set_sform(grid.affine if codes[0] else None, codes[0])
    nifti.set_qform(grid.affine if codes[1] else None, codes[1])
    nifti.header.set_xyzt_units("mm", "sec")
    path.write_bytes(
        gzip.compress(nifti.to_bytes(), compresslevel=1, mtime=0)
    )  # no clock in the bytes


def _write_section(
    image_path: Path, label_path: Path, rng: np.random.Generator, index: int
) -> None:
    """One axial slice as a viewer shows it: rows go to the back, columns to the patient's left."""
    spacing_mm, view_mm = (
        np.array((rng.uniform(0.72, 0.95), 3)),
        rng.uniform((116, 98, 3), (134, 112, 3)),
    )
    turn = Rotation.from_rotvec((0, 0, rng.uniform(-10, 10)), degrees=True)
    grid = _grid("PLS", turn, spacing_mm, view_mm, ((128, 160), (128, 192), (1, 1)), rng)
    image, label = _scan(grid, rng)
    image = _acquire(image, grid.points_mm(), rng)
    grey = np.clip(np.rint(image[..., 0] * rng.uniform(130, 200)), 0, 255).astype(np.uint8)
    Image.fromarray(grey).save(image_path)
    Image.fromarray(label[..., 0]).save(label_path)


def _grid(
    axes: str,
    turn: Rotation,
    spacing_mm: Doubles,
    view_mm: Doubles,
    sizes: tuple[tuple[int, int], ...],
    rng: np.random.Generator,
) -> ScannerGrid:
    """A grid over about `view_mm` (x, y, z of the patient), centred within 3 mm of the body's centre.

    `spacing_mm` is that in the plane and that of the slices, which are the third voxel axis as in scanners'
    files; `sizes` holds the fewest and the most voxels of each axis.
    """
    directions = np.array([TOWARDS[axis] for axis in axes], dtype=float).T
    spacing = spacing_mm[[0, 0, 1]]
    shape = np.clip(np.rint(np.abs(directions.T) @ view_mm / spacing), *np.transpose(sizes)).astype(
        int
    )
    affine, centre_mm = (
        np.eye(4),
        rng.uniform(-40, 40, 3),
    )  # patients never lie at the scanner's very centre
    affine[:3, :3] = turn.as_matrix() @ directions * spacing
    affine[:3, 3] = centre_mm + rng.uniform(-3, 3, 3) - affine[:3, :3] @ (shape - 1) / 2
    return ScannerGrid((int(shape[0]), int(shape[1]), int(shape[2])), affine, centre_mm)


def _scan(
    grid: ScannerGrid, rng: np.random.Generator, ct: bool = False
) -> tuple[Floats, npt.NDArray[np.uint8]]:
    """Image without noise (MR: fat is about 1; CT: Hounsfield units) and label map of a new patient on `grid`."""
    points = grid.points_mm()
    painted = tissues(points, rng)
    textures = [_texture(grid, length_mm, rng) for length_mm in TEXTURE_MM]
    image = np.full(grid.shape, HOUNSFIELD[0] if ct else 0, np.float32)
    label = np.zeros(grid.shape, np.uint8)
    for tissue in painted:
        share = np.clip(tissue.depth_mm / np.float32(grid.spacing_mm[0]) + 0.5, 0, 1)
        mottle = tissue.mottle * textures[tissue.texture]
        shown = (
            np.interp(tissue.signal, SIGNALS, HOUNSFIELD) + 200 * mottle
            if ct
            else tissue.signal * (1 + mottle)
        )
        image += share * (np.asarray(shown, np.float32) - image)
        label[share > 0.5] = tissue.label
    return image, label


def _acquire(image: Floats, points: Floats, rng: np.random.Generator) -> Floats:
    """The coil's smooth bias field, then Rician noise as in magnitude images."""
    bias = np.exp(rng.uniform(0.1, 0.25) * np.sin(wave(points, rng, 150.0, 300.0)))
    sigma = rng.uniform(0.03, 0.06)
    real, imaginary = rng.normal(0, sigma, (2, *image.shape))
    return np.hypot(image * bias + real, imaginary).astype(np.float32)


def _texture(grid: ScannerGrid, length_mm: float, rng: np.random.Generator) -> Floats:
    """Noise of unit variance, correlated over about `length_mm`."""
    noise = gaussian_filter(
        rng.standard_normal(grid.shape, np.float32), length_mm / grid.spacing_mm
    )
    return noise / noise.std()

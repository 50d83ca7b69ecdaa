"""`predict.py` against the usual way with MONAI: the same weights, windows and overlap, a scan that must be resampled.

    python benchmarks/monai_way.py                         # trains for a minute and a half first
    python benchmarks/monai_way.py --checkpoint RUN        # a network that this benchmark has trained before

MONAI's way is that of its tutorials: LoadImaged, Orientationd, Spacingd, SlidingWindowInferer with Gaussian weights,
softmax, Invertd, argmax, SaveImaged. Its grid is laid edge to edge (`scale_extent`), else its masks lie half a voxel
aside. Each side is a process of its own, from its start to its end, and writes a mask and no pictures; they run in
turns. The network is trained on small phantoms, so that masks have a foreground with sure insides and unsure edges, as
masks have.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nibabel as nib
import numpy as np
from turns import in_turns

SHAPE, SPACING_MM, MODEL_MM = (512, 512, 90), (0.75, 0.75, 2.5), 1.5
PATCH, OVERLAP = 96, 0.25
FORMATS = ("bf16", "float32")


def main() -> None:
    """Prints times, memory and agreement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, help="of an earlier run of this benchmark")
    parser.add_argument("--keep", type=Path, help="folder to which the trained network is copied")
    parser.add_argument(
        "--monai",
        nargs=4,
        metavar=("CHECKPOINT", "SCAN", "FOLDER", "FORMAT"),
        help="one side alone",
    )
    asked = parser.parse_args()
    if asked.monai:
        return monai_way(*asked.monai)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        from synthetic import trained

        checkpoint = asked.checkpoint or trained(folder, MODEL_MM)
        if asked.keep:
            shutil.copytree(checkpoint, asked.keep)
        compare(folder, checkpoint.resolve())


def compare(folder: Path, run: Path) -> None:
    """Prints a line for each side in each number format, and how far they agree."""
    from synthetic import planned, write_ct

    network = planned(run, folder / "network.ckpt", patch=[PATCH] * 3)  # trained with small ones
    scan = folder / "scan.nii.gz"
    write_ct(scan, SHAPE, SPACING_MM, 0)
    masks, ran = {}, {}
    for number_format in FORMATS:
        ours, theirs = folder / f"ours_{number_format}", folder / f"monai_{number_format}"
        calls = [
            [sys.executable, "predict.py", f"checkpoint={network}", f"input={scan}", f"output={ours}", "device=cpu",
             f"overlap={OVERLAP}", "skip_air=false", "overlays=false", f"precision={number_format}"],
            [sys.executable, __file__, "--monai", str(network), str(scan), str(theirs), number_format],
        ]  # fmt: skip
        for side, one in zip(("segpipe", "MONAI"), in_turns(calls), strict=True):
            ran[side, number_format] = one
        masks["segpipe", number_format] = voxels(ours / "scan.nii.gz")
        masks["MONAI", number_format] = voxels(next(theirs.rglob("*.nii.gz")))
    share = 100 * np.mean(masks["segpipe", "float32"] > 0)
    print(
        f"scan {'x'.join(map(str, SHAPE))} at {SPACING_MM} mm, network at {MODEL_MM} mm, {share:.1f} % foreground"
    )
    for (side, number_format), one in ran.items():
        print(f"{side:8s} {number_format:8s}: {one.seconds:6.1f} s, peak {one.peak_mib:5.0f} MiB")
    pairs = [(ours, theirs) for theirs in ("float32", "bf16") for ours in FORMATS]
    for ours, theirs in pairs:
        mine, other = ran["segpipe", ours], ran["MONAI", theirs]
        one, two = masks["segpipe", ours], masks["MONAI", theirs]
        foreground = (one > 0) | (two > 0)
        alike = 100 * np.mean(one[foreground] == two[foreground])
        print(
            f"segpipe in {ours} against MONAI in {theirs}: {other.seconds / mine.seconds:.2f} times as fast, "
            f"{mine.peak_mib / other.peak_mib:.2f} times the memory, {alike:.3f} % of the foreground voxels alike"
        )


def voxels(mask: Path) -> np.ndarray:
    """A mask's ids."""
    image: Any = nib.load(mask)  # type: ignore[attr-defined]
    return np.asarray(image.dataobj)


def monai_way(checkpoint: str, scan: str, folder: str, number_format: str) -> None:
    """Segments one scan as MONAI's tutorials do."""
    import torch
    from monai.inferers.inferer import SlidingWindowInferer
    from monai.transforms import (
        Activationsd,
        AsDiscreted,
        Compose,
        EnsureChannelFirstd,
        Invertd,
        Lambdad,
        LoadImaged,
        Orientationd,
        SaveImaged,
        Spacingd,
    )

    from segpipe.checkpoint import load
    from segpipe.data.intensities import normalise
    from segpipe.device import computing_in

    trained = load(Path(checkpoint))
    plan, cpu = trained.plan, torch.device("cpu")
    preprocess = Compose(
        [
            LoadImaged("image"),
            EnsureChannelFirstd("image"),
            Orientationd("image", axcodes="RAS", labels=None),
            Spacingd(
                "image", [MODEL_MM] * 3, mode="bilinear", scale_extent=True, align_corners=True
            ),
            Lambdad("image", lambda image: normalise(image, plan), track_meta=True),
        ]
    )
    after = Compose(
        [
            Activationsd("pred", softmax=True),
            Invertd("pred", preprocess, orig_keys="image", nearest_interp=False, to_tensor=True),
            AsDiscreted("pred", argmax=True),
            SaveImaged(
                "pred",
                output_dir=folder,
                output_postfix="",
                separate_folder=False,
                output_dtype=np.uint8,
            ),
        ]
    )
    inferer = SlidingWindowInferer(plan.patch, sw_batch_size=1, overlap=OVERLAP, mode="gaussian")
    with torch.inference_mode():
        case: Any = preprocess({"image": scan})
        with computing_in("bf16" if number_format == "bf16" else "float32", cpu):
            logits: Any = inferer(case["image"][None], trained.network)
        case["pred"] = logits[0].float()
        after(case)


if __name__ == "__main__":
    main()

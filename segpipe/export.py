"""`python -m segpipe.export checkpoint=RUN output=network.onnx`: a trained network for others."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segpipe.cli import launch
from segpipe.config.checkpoint_tools import Export, ExportFormat
from segpipe.config.validation import validate
from segpipe.ensembles import load_ensemble
from segpipe.errors import ConfigError, SegpipeError
from segpipe.files import atomic, atomic_folder

if TYPE_CHECKING:
    from torch import Tensor

    from segpipe.checkpoint import Trained
    from segpipe.exporting.formats import Format

log = logging.getLogger("segpipe")
MIN_AGREEMENT = 0.999  # share of voxels in which the exported network and torch must agree


def formats() -> "dict[ExportFormat, Format]":
    """Return the formats by their names in the config."""
    from segpipe.exporting.bundle import MONAI_BUNDLE
    from segpipe.exporting.onnx import ONNX
    from segpipe.exporting.programs import TORCH_EXPORT, TORCHSCRIPT

    return {
        "onnx": ONNX,
        "torchscript": TORCHSCRIPT,
        "torch_export": TORCH_EXPORT,
        "monai_bundle": MONAI_BUNDLE,
    }


def export(
    checkpoints: Sequence[Path],
    file: Path,
    kind: ExportFormat = "onnx",
    scan: Sequence[Path] | None = None,
) -> float:
    """Write the network of a checkpoint, or the mean of several; compare it with torch.

    The input is `(B, C, *spatial)` in float32, in model space and normalised as the plan says; the
    output are logits `(B, labels, *spatial)`. Batch and spatial axes may have any size that the
    network can halve. Plan, labels and config are stored as JSON beside the weights.

    Args:
        checkpoints: folder of a run or a checkpoint file, or several.
        file: file to write; of a MONAI bundle a folder that is not there, or empty.
        kind: the format.
        scan: files of a scan, of which a window is compared too.

    Returns:
        The share of voxels with torch's label: the smallest of noise of two sizes, and of the
        scan's window.

    Raises:
        ConfigError: if the file has another ending, or what the format needs is not installed, or
            it cannot take the network.
        DataError: if the scan cannot be used.
        SegpipeError: if the masks differ in more than one voxel of a thousand.
    """
    chosen = formats()[kind]
    _check_output(file, chosen, kind)
    trained = load_ensemble(checkpoints)
    images = _compared(trained, scan)
    written_at_once = atomic if chosen.endings else atomic_folder
    with written_at_once(file) as part:
        chosen.write(trained, part)
        alike = _least_agreement(trained, part, chosen, images)
        if alike < MIN_AGREEMENT:
            raise SegpipeError(
                f"{file}: only {alike:.2%} of voxels are as torch has them, so it was not written"
            )
    return alike


def _check_output(file: Path, chosen: "Format", kind: str) -> None:
    """Check that an output suits its format.

    Raises:
        ConfigError: if its ending is another's, or the folder of a bundle is not empty.
    """
    if chosen.endings and file.suffix not in chosen.endings:
        raise ConfigError(f"output={file}: {kind} needs the ending {' or '.join(chosen.endings)}")
    if not chosen.endings and (file.is_file() or (file.is_dir() and any(file.iterdir()))):
        raise ConfigError(f"output={file}: is there already; {kind} needs a new folder")


def _compared(trained: "Trained", scan: Sequence[Path] | None) -> "list[Tensor]":
    """Return the images on which networks are compared, each `(1, C, *spatial)`."""
    from segpipe.exporting.formats import noise

    window = trained.plan.network_patch
    images = [noise(trained, window), noise(trained, [2 * window[0], *window[1:]])]
    return images if scan is None else [*images, _middle_window(trained, scan)]


def _middle_window(trained: "Trained", scan: Sequence[Path]) -> "Tensor":
    """Return the window in the middle of a scan, `(1, C, *spatial)`; a smaller scan is padded."""
    import torch

    from segpipe.data.prepare import prepare_scan
    from segpipe.windows import to_network

    image = prepare_scan(scan, trained.plan).image
    for axis, edge in enumerate(trained.plan.patch, start=1):
        missing = max(0, edge - image.shape[axis])
        padding = [0, 0] * (3 - axis) + [0, missing]
        image = torch.nn.functional.pad(image, padding)
        image = image.narrow(axis, (image.shape[axis] - edge) // 2, edge)
    return to_network(image[None], trained.plan.slice_axis)


def _least_agreement(
    trained: "Trained", file: Path, chosen: "Format", images: "Sequence[Tensor]"
) -> float:
    """Return the smallest agreement of a written network with torch over some images."""
    from segpipe.exporting.formats import agreement

    compute = chosen.load(file)
    return min(agreement(trained, compute, image) for image in images)


def _export(values: dict[str, Any], _folder: Path, _overrides: list[str]) -> int:
    options = validate(Export, values)
    assert options.checkpoint is not None
    assert options.output is not None
    alike = export(options.checkpoint, options.output, options.format, options.scan)
    compared = "noise of two sizes"
    if options.scan is not None:
        compared += f" and a window of {options.scan[0]}"
    log.info(
        "%s: %.3f %% of voxels as torch has them, on %s", options.output, 100 * alike, compared
    )
    return 0


if __name__ == "__main__":
    launch("export", Export, _export, "python -m segpipe.export")

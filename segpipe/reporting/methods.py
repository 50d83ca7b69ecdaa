"""A paragraph on methods for a paper, each number of which is stored, with its references."""

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from segpipe.axes import AXES
from segpipe.files import write_text
from segpipe.reporting.latex import escaped
from segpipe.reporting.methods_network import network
from segpipe.reporting.methods_record import MethodsRecord
from segpipe.reporting.methods_training import training
from segpipe.reporting.methods_words import (
    METRICS,
    NORMALISED,
    distinct,
    listing,
    product,
)
from segpipe.text import count, visible
from segpipe.units import UNITS

FILE = "methods.md"
REFERENCES = "references.bib"
CITATION = re.compile(r"\[@[a-z0-9]+(?:; @[a-z0-9]+)*\]")
NAMES = {
    "torch": "PyTorch [@paszke2019pytorch]",
    "monai": "MONAI [@cardoso2022monai]",
    "pytorch-lightning": "PyTorch Lightning",
}


def methods(record: MethodsRecord) -> list[str]:
    """Return the paragraphs on the methods of a training, in Markdown with Pandoc's citations."""
    parts = [
        [_data(record), _preprocessing(record)],
        [network(record), *training(record)],
        [_inference(record), _scoring(record), _software(record)],
    ]
    return [" ".join(filter(None, sentences)) for sentences in parts]


def write_methods(file: Path, record: MethodsRecord) -> None:
    """Write the paragraphs as Markdown and as LaTeX, and the references as BibTeX, side by side.

    Args:
        file: `NAME.md`; beside it come `NAME.tex` and `NAME.bib`.
        record: the record of the training.

    Raises:
        DataError: if a file cannot be written.
    """
    paragraphs = methods(record)
    write_text(file, "\n\n".join(paragraphs) + "\n")
    latex = [in_latex(paragraph) for paragraph in paragraphs]
    write_text(file.with_suffix(".tex"), "\n\n".join(latex) + "\n")
    write_text(file.with_suffix(".bib"), references(paragraphs))


def in_latex(paragraph: str) -> str:
    r"""Return a paragraph in LaTeX, citations as `\cite{key}`."""
    texts = [escaped(text) for text in CITATION.split(paragraph)]
    cited = [""]
    for found in CITATION.findall(paragraph):
        keys = found.strip("[]").replace("@", "").split("; ")
        cited.append(rf"\cite{{{','.join(keys)}}}")
    return "".join(map("".join, zip(cited, texts, strict=True))).replace(r" \cite", r"~\cite")


def on_page(paragraph: str) -> str:
    """Return a paragraph with citations as readers know them: `(Isensee 2021)`."""
    return CITATION.sub(_named, paragraph)


def _named(found: re.Match[str]) -> str:
    names = re.findall(r"@([a-z]+)(\d{4})", found[0])
    return f"({'; '.join(f'{name.title()} {year}' for name, year in names)})" if names else ""


def references(paragraphs: Sequence[str]) -> str:
    """Return the BibTeX entries that paragraphs cite."""
    known = files("segpipe.reporting").joinpath(REFERENCES).read_text(encoding="utf-8")
    cited = set(re.findall(r"@([a-z0-9]+)", " ".join(CITATION.findall(" ".join(paragraphs)))))
    entries: list[str] = []
    for entry in known.strip().split("\n\n"):
        key = entry.partition("{")[2].partition(",")[0]
        if key in cited:
            entries.append(entry)
    return "\n\n".join(entries) + "\n"


def _data(record: MethodsRecord) -> str:
    plan = record.plan
    labels = listing([visible(name) for name in plan.targets])
    channels = listing([visible(name) for name in plan.channels])
    told = f"The network segments {labels} in scans of {count(len(plan.channels), 'channel')} "
    told += f"({channels})."
    if record.train is None or record.validate is None:
        return told
    used = f"{count(record.train, 'case')} {'was' if record.train == 1 else 'were'} used"
    told += f" {used} for training and {record.validate} for validation"
    data = record.config["data"]
    if data.get("fold") is not None:
        told += f" (fold {data['fold']} of {data['folds']}, counted from 0)"
    return f"{told}."


def _preprocessing(record: MethodsRecord) -> str:
    plan = record.plan
    ways = distinct(NORMALISED, plan.normalise)
    normalised = f"intensities were normalised {listing(ways)}"
    if plan.rules == "nnunet":
        return (
            f"As nnU-Net does it [@isensee2021nnunet], scans were cropped to what is not 0, "
            f"{normalised}, and they were resampled with cubic splines to {_voxels(record)}."
        )
    coarse = ", averaging along axes that become more than twice as coarse" if plan.averages else ""
    own = 1.0 if plan.unit == "px2" else None
    if all(edge in (None, own) for edge in plan.spacing_mm):
        return f"Scans kept their own resolution; {normalised}."
    return f"Scans were resampled linearly to {_voxels(record)}{coarse}; {normalised}."


def _voxels(record: MethodsRecord) -> str:
    """Return the voxel size of model space in words."""
    spacing = record.plan.spacing_mm
    length = UNITS[record.plan.unit].length
    if record.plan.unit == "px2":
        return f"pixels of {product([f'{edge:.3g}' for edge in spacing[:2] if edge])} {length}"
    if None not in spacing:
        return f"voxels of {product([f'{edge:.3g}' for edge in spacing])} {length}"
    parts: list[str] = []
    for name, edge in zip(AXES, spacing, strict=True):
        size = "the scan's own spacing" if edge is None else f"{edge:.3g} {length}"
        parts.append(f"{size} {name}")
    return f"voxels of {listing(parts)}"


def _inference(record: MethodsRecord) -> str:
    plan = record.plan
    shape = product(plan.network_patch)
    text = f"Whole scans were segmented in overlapping windows of {shape} "
    text += f"{'pixels' if plan.dims == 2 else 'voxels'} with Gaussian weights "
    text += "[@isensee2021nnunet]."
    if record.postprocess:
        text += f" As chosen on the validation cases, {visible(record.postprocess)}."
    return text


def _scoring(record: MethodsRecord) -> str:
    if not record.metrics:
        return ""
    names = distinct(METRICS, record.metrics)
    text = f"Masks were scored on the scans' own grids by {listing(names)}"
    if "nsd" in record.metrics:
        text += f" (tolerance {_tolerance(record)})"
    return f"{text}; intervals are 95 % bootstrap intervals over cases (BCa) [@efron1987bootstrap]."


def _tolerance(record: MethodsRecord) -> str:
    from segpipe.config.scoring import Scoring
    from segpipe.metrics import tolerance_text

    scoring = Scoring(**{name: record.config[name] for name in Scoring.model_fields})
    return tolerance_text(scoring, UNITS[record.plan.unit].length)


def _software(record: MethodsRecord) -> str:
    versions = dict(record.versions)
    own = versions.pop("segpipe", "")
    what = "Scans were segmented" if record.is_best else "All was done"
    text = f"{what} with segpipe {own} [@segpipe2026]"
    others = [f"{NAMES[name]} {versions[name]}" for name in NAMES if name in versions]
    if others:
        text += f", {listing(others)}"
    if record.environment:
        device = record.environment["device"]
        text += f", in Python {record.environment['python']} on "
        text += "a CPU" if device.startswith("CPU") else device
    return f"{text}."

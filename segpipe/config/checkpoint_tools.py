"""The options of `python -m segpipe.card`, `segpipe.export` and `segpipe.import_nnunet`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt, field_validator, model_validator

from segpipe.config.extensions import EXTENSIONS_HELP, Extensions
from segpipe.config.section import Section

ExportFormat = Literal["onnx", "torchscript", "torch_export", "monai_bundle"]


class Card(Section):
    """What is printed."""

    checkpoint: Path | None = Field(
        description="a run's folder (its best checkpoint), a checkpoint file, or "
        "hf://ORG/NAME@COMMIT (pip install 'segpipe[hub]')"
    )
    format: Literal["text", "hub", "methods"] = Field(
        description="text = one screen; hub = a model card of the Hugging Face Hub, in Markdown; "
        "methods = paragraphs for a paper; output=methods.md has them as LaTeX and references in "
        "BibTeX beside it"
    )
    output: Path | None = Field(description="file to write, as README.md; null = it is printed")
    extensions: Extensions = Field(description=EXTENSIONS_HELP)

    @model_validator(mode="after")
    def _says_which(self) -> "Card":
        if self.checkpoint is None:
            raise ValueError("checkpoint is missing: name a run, as in checkpoint=runs/latest")
        return self


class Export(Section):
    """What is written of a network, and in which format."""

    checkpoint: list[Path] | None = Field(
        min_length=1,
        description="a run's folder (its best checkpoint) or a checkpoint file; of several, "
        "[RUN,RUN], one network that gives the mean of their probabilities",
    )
    extensions: Extensions = Field(description=EXTENSIONS_HELP)
    output: Path | None = Field(
        description="file to write, as network.onnx; one that is there is replaced; of a MONAI "
        "bundle a new folder"
    )
    format: ExportFormat = Field(
        description="onnx, for any runtime (pip install 'segpipe[onnx]'); torchscript (.ts) and "
        "torch_export (.pt2), for PyTorch without segpipe; monai_bundle, a folder with the whole "
        "pipeline for python -m monai.bundle run"
    )
    scan: list[Path] | None = Field(
        min_length=1,
        description="a scan, or its files, of which a window is compared with PyTorch too; null = "
        "noise of two sizes alone",
    )

    @field_validator("checkpoint", "scan", mode="before")
    @classmethod
    def _one_or_several(cls, given: object) -> object:
        return [given] if isinstance(given, str) else given

    @model_validator(mode="after")
    def _says_what(self) -> "Export":
        for key in ("checkpoint", "output"):
            if getattr(self, key) is None:
                raise ValueError(f"{key} is missing: give checkpoint=RUN output=network.onnx")
        return self


class ImportNNUNet(Section):
    """Which networks of nnU-Net's are written as checkpoints."""

    results: Path | None = Field(
        description="a folder of nnU-Net v2's results, with plans.json, dataset.json and fold_0 ..."
    )
    output: Path | None = Field(
        description="checkpoint to write, as organ.ckpt; of several folds a folder with one for "
        "each, which predict.py takes as an ensemble; what is there is replaced"
    )
    folds: list[NonNegativeInt | Literal["all"]] | None = Field(
        min_length=1, description="one fold, a list, or all = fold_all; null = all that are there"
    )
    checkpoint: Literal["final", "best"] = Field(
        description="checkpoint_final.pth or checkpoint_best.pth of each fold"
    )
    extensions: Extensions = Field(description=EXTENSIONS_HELP)

    @field_validator("folds", mode="before")
    @classmethod
    def _one_or_several(cls, given: object) -> object:
        return [given] if isinstance(given, int | str) else given

    @model_validator(mode="after")
    def _says_what(self) -> "ImportNNUNet":
        for key in ("results", "output"):
            if getattr(self, key) is None:
                raise ValueError(f"{key} is missing: give results=FOLDER output=organ.ckpt")
        return self

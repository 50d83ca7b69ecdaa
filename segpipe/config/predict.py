"""The options of `predict.py`: how to run; the checkpoint holds network, plan and labels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, field_validator, model_validator

from segpipe.config.codes import CODES_HELP, Codes
from segpipe.config.data import NaNPolicy
from segpipe.config.extensions import EXTENSIONS_HELP, Extensions
from segpipe.config.page import PageOptions
from segpipe.config.remote import RemoteOptions
from segpipe.config.scoring import Scoring
from segpipe.config.section import NamesFiles, OneOf, Unit, Was
from segpipe.config.train import DEVICE_HELP, Device, Precision
from segpipe.registry import BACKENDS, ENGINES

Checkpoints = Annotated[list[Path], Field(min_length=1)]


def listed(given: object) -> object:
    """Return a path that stands alone as a list of one."""
    return [given] if isinstance(given, str) else given


class Predict(Scoring):
    """All options of `predict.py`."""

    checkpoint: Checkpoints | dict[str, Checkpoints] | None = Field(
        min_length=1,
        description="a run's folder (its best checkpoint), a checkpoint file, or "
        "hf://ORG/NAME@COMMIT (pip install 'segpipe[hub]'); of several, [RUN,RUN], the mean of "
        "their probabilities; of networks with labels of their own, {organs:RUN,bones:RUN}, one "
        "mask, in which the later paints over the earlier",
    )
    input: Annotated[str | None, NamesFiles()] = Field(
        description="a scan (NIfTI, NRRD, MHA, PNG, TIFF, or a folder of one DICOM series), a "
        "folder of scans, a glob such as 'scans/*_T1.nii.gz', a list (.txt, a file a line), or a "
        "table (.csv, .tsv, .json: columns image or image_0, image_1 ..., case for the mask's "
        "name, label for the truth); or an address such as s3://BUCKET/SCANS (pip install "
        "'segpipe[remote]')"
    )
    columns: Annotated[dict[str, str] | None, Was(None)] = Field(
        description="of a table with other columns: which is which, as "
        "{case:Subject,image:Scan,label:Mask}"
    )
    recursive: bool = Field(
        description="of a folder: also the scans in the folders inside it, mirrored in the output"
    )
    output: Path | None = Field(
        description="folder for the masks, made if it is not there; or an address such as "
        "s3://BUCKET/MASKS"
    )
    truth: Path | None = Field(
        description="folder of labels with the scans' names, in any format: Dice per label is "
        "printed and saved; the column label of a table goes first"
    )
    overlap: float = Field(
        ge=0, lt=1, description="overlap of neighbouring windows, as a share of the window"
    )
    mirror_axes: Literal["checkpoint"] | list[Literal[0, 1, 2]] = Field(
        description="average over each window and its mirror images along these axes (0 "
        "left-right, 1 posterior-anterior, 2 foot-head), alone and together; for networks that "
        "were trained with the same augment.mirror_axes; checkpoint = those that an imported "
        "network was trained with"
    )
    labels: list[str] | None = Field(
        min_length=1, description="names of the labels that masks show; null = all"
    )
    label_ids: Annotated[dict[str, PositiveInt] | None, Was(None)] = Field(
        description="ids of labels in the masks, as {liver:5,spleen:1}; the others keep theirs; "
        "null = those of the training, or of several networks 1, 2, 3 ... in their order"
    )
    keep_largest: list[str] = Field(
        description="names of the labels of which only the largest part stays"
    )
    min_volume_ml: Annotated[dict[str, NonNegativeFloat] | NonNegativeFloat, Unit("mL")] = Field(
        description="least volume of a part that stays: one number for all labels, or {label: "
        "number}"
    )
    thresholds: Annotated[dict[str, Annotated[float, Field(gt=0, lt=1)]] | None, Was(None)] = Field(
        description="the probability from which a label or region is taken, as {vessel: 0.4}; null "
        "= 0.5 for each, or as postprocess has it"
    )
    temperature: Annotated[float | None, Was(None)] = Field(
        ge=0.05,
        le=20,
        description="logits are divided by it before probabilities and entropy are saved, so that "
        "they say how often they are right; masks stay; null = as postprocess has it, else 1",
    )
    postprocess: Annotated[Literal["auto", "none"], Was("none")] = Field(
        description="auto = what the training chose on its validation cases and stored in the "
        "checkpoint (thresholds, keep_largest, min_volume_ml, temperature); none = only what is "
        "typed here"
    )
    quality: Annotated[bool, Was(False)] = Field(
        description="predict the Dice of each mask, by what the training learnt on its validation "
        "cases and stored in the checkpoint; predictions.csv and the page begin with the lowest"
    )
    save: list[Literal["mask", "probabilities", "entropy", "dicom_seg", "rtstruct"]] = Field(
        min_length=1,
        description="what is written of each scan: mask; probabilities, of each label or region; "
        "entropy, 0 where the network is sure, 1 where all are alike; the latter two as NIfTI on "
        "the scan's grid, in folders of their own; of DICOM scans also dicom_seg, a DICOM "
        "segmentation (pip install 'segpipe[dicom]'), and rtstruct, a structure set",
    )
    seg_type: Annotated[Literal["binary", "labelmap"], Was("binary")] = Field(
        description="kind of the DICOM segmentation: binary, which all viewers read, or labelmap, "
        "which is smaller where there are many labels"
    )
    codes: Annotated[Codes | None, Was(None)] = Field(
        description=f"{CODES_HELP}; these go before data.codes of the training"
    )
    batch_size: PositiveInt | None = Field(
        description="windows that the network computes at once; null = as many as suit the "
        "device; fewer where memory is short"
    )
    skip_air: Literal["auto"] | bool = Field(
        description="do not ask the network about windows of CT in which every voxel is below -800 "
        "HU, which are background then; auto = where all channels are CT and no label lies in air"
    )
    backend: Annotated[str, OneOf(BACKENDS)] = Field(
        description="what computes the network; openvino, on a CPU, needs pip install "
        "'segpipe[openvino]'"
    )
    compile: bool = Field(
        description="let torch.compile make the network faster: a minute at the start, which pays "
        "for many scans"
    )
    nan: Annotated[NaNPolicy, Was("refuse")] = Field(
        description="scans with voxels that are NaN or infinite: refuse, or fill them with the "
        "smallest value of their channel"
    )
    slice_tolerance: Annotated[NonNegativeFloat, Unit("mm"), Was(0.1)] = Field(
        description="how far slices of DICOM may lie from an even spacing, as where positions were "
        "rounded; of thick slices up to 2 % are always allowed"
    )
    retry_failed: bool = Field(
        description="try again what failed in an earlier call, though nothing has changed"
    )
    strict: Annotated[bool, Was(True)] = Field(
        description="exit with status 3 wherever a scan of the input has no mask or score; false = "
        "only where that is new in this call"
    )
    shard: Annotated[str | None, Was(None)] = Field(
        pattern=r"^[0-9]+/[0-9]+$",
        description="do one of N equal parts of the scans, as 1/4 to 4/4 on four machines that "
        "write into one output; the part that a scan is in depends on its name alone",
    )
    claim: Annotated[bool, Was(False)] = Field(
        description="share the scans with other calls into the same output, on any machine: each "
        "scan is claimed while it is computed; a claim ends with its process, and 300 s after the "
        "last sign of life of another machine"
    )
    engine: Annotated[str, OneOf(ENGINES), Was("local")] = Field(
        description="who computes the scans: local, this machine; ray, a Ray cluster, needs pip "
        "install 'segpipe[ray]'"
    )
    workers: Annotated[PositiveInt | Literal["all"], Was(1)] = Field(
        description="processes that share the scans, each with a network of its own; they share "
        "cores, memory and GPUs; one that is lost is replaced; all = one for each GPU"
    )
    watch: Annotated[Annotated[float, Field(gt=0)] | None, Unit("s"), Was(None)] = Field(
        description="stay, look at the input again and again after this time, and take what has "
        "arrived and not changed since the last look; Ctrl-C or SIGTERM ends it; null = end when "
        "all is done"
    )
    collect: Annotated[bool, Was(False)] = Field(
        description="predict nothing: make tables and page from the records in output, and say "
        "what of input is missing, where that is given"
    )
    device: Device = Field(description=DEVICE_HELP)
    precision: Precision = Field(
        description="auto = as in training: bf16 where the device computes it faster"
    )
    overlays: bool = Field(description="draw a picture of each mask over its scan")
    page: PageOptions
    remote: RemoteOptions
    extensions: Annotated[Extensions, Was([])] = Field(description=EXTENSIONS_HELP)
    verbose: bool = Field(
        description="say more in the terminal; predict.log has it all in any case"
    )

    @field_validator("checkpoint", mode="before")
    @classmethod
    def _one_or_several(cls, given: object) -> object:
        if not isinstance(given, Mapping):
            return listed(given)
        return {str(name): listed(paths) for name, paths in given.items()}

    @property
    def networks(self) -> dict[str, list[Path]]:
        """Return the checkpoints of each network that paints masks, by its name."""
        if isinstance(self.checkpoint, dict):
            return self.checkpoint
        return {"network": self.checkpoint or []}

    @property
    def checkpoint_paths(self) -> list[Path]:
        """Return all checkpoints that are named."""
        paths: list[Path] = []
        for files in self.networks.values():
            paths += files
        return paths

    @field_validator("shard")
    @classmethod
    def _is_one_of(cls, given: str | None) -> str | None:
        if given is not None:
            number, total = map(int, given.split("/"))
            if not 1 <= number <= total:
                raise ValueError(f"the shards of {total} are 1/{total} to {total}/{total}")
        return given

    @model_validator(mode="after")
    def _says_what(self) -> "Predict":
        needed = ("output",) if self.collect else ("checkpoint", "input", "output")
        for key in needed:
            if getattr(self, key) is None:
                raise ValueError(
                    f"{key} is missing: predict.py needs checkpoint=RUN input=SCANS output=FOLDER"
                )
        if self.watch is not None and (self.collect or self.truth is not None):
            other = "collect" if self.collect else "truth"
            raise ValueError(
                f"watch and {other} do not go together: watch without it, and call again with it"
            )
        probabilities = {"probabilities", "entropy"} & set(self.save)
        if len(self.networks) > 1 and probabilities:
            raise ValueError(
                f"save={sorted(probabilities)[0]}: of several networks with labels of their own "
                "there is one mask, but no common probabilities; predict with each alone"
            )
        return self

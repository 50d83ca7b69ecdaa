"""Several networks as one: checkpoints that are given, or the folder of a cross-validation."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from segpipe.checkpoint import Trained, find, load
from segpipe.errors import ConfigError
from segpipe.files import write_json
from segpipe.nets.ensemble import Ensemble
from segpipe.plan import Plan
from segpipe.postprocess import PostProcess
from segpipe.stored import SCHEMA, read_record

FILE = "ensemble.json"


@dataclass(frozen=True)
class EnsembleFile:
    """The content of `ensemble.json`.

    Attributes:
        members: folders of the runs, relative to this one.
        postprocess: the post-processing that was chosen on the cases that each network has not
            seen.
    """

    members: list[str]
    postprocess: PostProcess


def write_ensemble(folder: Path, members: list[str], postprocess: PostProcess) -> None:
    """Write `ensemble.json`, by which `predict.py` takes the folder for its networks.

    Raises:
        DataError: if it cannot be written.
    """
    content = {"schema": SCHEMA, "members": members, "postprocess": postprocess.model_dump()}
    write_json(folder / FILE, content)


def read_ensemble(path: Path) -> EnsembleFile | None:
    """Return the networks of a folder of a cross-validation; None where `path` is none.

    Raises:
        ConfigError: if its file is damaged, or names what is not below the folder.
    """
    file = path / FILE
    if not file.is_file():
        return None
    found: EnsembleFile = read_record(file, EnsembleFile)
    if not found.members:
        raise ConfigError(f"{file}: names no networks")
    for name in found.members:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts:
            raise ConfigError(f"{file}: names {name[:60]!r}, which is not below its folder")
    return found


def find_all(paths: Sequence[Path]) -> list[Path]:
    """Return the checkpoint files that paths mean, with those of folders of cross-validations.

    Raises:
        ConfigError: if there is none.
    """
    files = []
    for path in paths:
        ensemble = read_ensemble(path)
        names = [""] if ensemble is None else ensemble.members
        files += [find(path / name) for name in names]
    return files


def load_ensemble(
    paths: Sequence[Path], mirror_axes: Sequence[int] | Literal["checkpoint"] = ()
) -> Trained:
    """Open several checkpoints as one network, which gives the mean of their probabilities.

    Args:
        paths: checkpoints, or folders of runs or of cross-validations.
        mirror_axes: axes of model space along which a window is mirrored too; the mean is over the
            mirror images as well. `checkpoint`: those with which the network was trained.

    Raises:
        ConfigError: if one is not a checkpoint, or does not see scans as the first one does.
    """
    whole = read_ensemble(paths[0]) if len(paths) == 1 else None
    files = find_all(paths)
    members = [load(file) for file in files]
    plan = members[0].plan
    axes = _mirrored_axes(plan, mirror_axes)
    if len(members) == 1 and not axes:
        return members[0]
    for file, member in zip(files, members, strict=True):
        _check_same_input(files[0], plan, file, member.plan)
    network = Ensemble(
        [member.network for member in members],
        exclusive=plan.regions is None,
        mirror_axes=axes,
        mean="logits" if plan.rules == "nnunet" else "probabilities",
    )
    chosen = PostProcess.merge([member.postprocess for member in members])
    if whole is not None:
        chosen = whole.postprocess
    return Trained(
        network.eval(),
        plan,
        members[0].config,
        postprocess=chosen,
        quality=tuple(chain.from_iterable(member.quality for member in members)),
        seen=frozenset(chain.from_iterable(member.seen for member in members)),
    )


def _mirrored_axes(plan: Plan, requested: Sequence[int] | Literal["checkpoint"]) -> list[int]:
    """Return the axes along which windows are mirrored, among those that the network sees.

    Raises:
        ConfigError: if the network does not see one of them.
    """
    axes = plan.mirror_axes if requested == "checkpoint" else requested
    if plan.slice_axis in axes:
        raise ConfigError(
            f"mirror_axes: the network sees slices across axis {plan.slice_axis}: "
            "leave that one out"
        )
    return [plan.network_axes.index(axis) for axis in axes]


def _check_same_input(path: Path, plan: Plan, other_path: Path, other: Plan) -> None:
    """Refuse two networks that see scans in different ways.

    Raises:
        ConfigError: naming what differs.
    """
    expected = _input_of(plan)
    for key, value in _input_of(other).items():
        if value != expected[key]:
            raise ConfigError(
                f"checkpoint: {other_path} was trained with {key} {value}, but {path} with "
                f"{expected[key]}; those that are averaged must share it: train them as folds of "
                "one split (data.fold), or set plan.* alike"
            )


def _input_of(plan: Plan) -> dict[str, Any]:
    """Return the entries of a plan that all members of an ensemble must share."""
    left_out = {"batch", "strides", "kernels", "ignore", "reasons"}
    if "ct" not in plan.normalise:
        left_out.add("foreground")
    return plan.model_dump(exclude=left_out)

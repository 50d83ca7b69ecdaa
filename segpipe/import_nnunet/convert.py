"""Write networks that nnU-Net v2 has trained as checkpoints of segpipe."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from segpipe.config.compose import defaults
from segpipe.errors import ConfigError
from segpipe.files import atomic

if TYPE_CHECKING:
    from segpipe.import_nnunet.results import Results


def import_nnunet(
    folder: Path,
    output: Path,
    folds: Sequence[int | str] | None = None,
    which: Literal["final", "best"] = "final",
) -> list[str]:
    """Write networks that nnU-Net v2 has trained as a checkpoint, or as an ensemble of several.

    Args:
        folder: the folder of results, with `plans.json`, `dataset.json` and `fold_0` ...
        output: file of the checkpoint; of several folds a folder with one for each.
        folds: their numbers, or `all`; None: all that are there.
        which: the one of each fold's checkpoints that is taken.

    Returns:
        The names of the folds' folders.

    Raises:
        ConfigError: if there is none, or segpipe has no network or plan that does the same.
        DataError: if the output cannot be written.
    """
    from segpipe.ensembles import write_ensemble
    from segpipe.import_nnunet.results import fold_names, read_results
    from segpipe.postprocess import PostProcess

    results = read_results(folder)
    names = fold_names(folder, folds)
    if len(names) == 1:
        _write_fold(results, names[0], which, output)
        return names
    if output.is_file():
        raise ConfigError(f"output={output}: is a file; of several folds it is a folder")
    members = [f"{name}.ckpt" for name in names]
    for name, member in zip(names, members, strict=True):
        _write_fold(results, name, which, output / member)
    write_ensemble(output, members, PostProcess())
    return names


def _write_fold(results: "Results", fold: str, which: Literal["final", "best"], file: Path) -> None:
    """Write the checkpoint of one fold."""
    import torch

    from segpipe.checkpoint import KEY, NETWORK, metadata
    from segpipe.import_nnunet.axes import Turn
    from segpipe.import_nnunet.plan import layers_of, model_of, plan_of
    from segpipe.import_nnunet.results import read_checkpoint, read_configuration
    from segpipe.import_nnunet.weights import renamed
    from segpipe.nets.bounded import build_bounded
    from segpipe.nets.build import build

    source = results.folder / fold / f"checkpoint_{which}.pth"
    stored, weights = read_checkpoint(results.folder, fold, which)
    configuration = read_configuration(results, stored.init_args.configuration)
    layers = layers_of(results, configuration)
    plan = plan_of(results, configuration, layers, stored)
    model = model_of(results, configuration, layers)
    order = Turn.of(results.plans.transpose_forward, plan.dims).order
    own = renamed(source, weights, layers, order)
    shape = (len(plan.channels), plan.outputs, plan.strides, plan.kernels)
    network = build_bounded(source, lambda: build(model, *shape), own)
    usual = defaults("train")  # what probes ask of a run; nnU-Net's loss is the same
    config = {name: usual[name] for name in ("loss", "augment", "plan")}
    config["model"] = model.model_dump(mode="json")
    content = {
        "state_dict": {NETWORK + name: weight for name, weight in network.state_dict().items()},
        "global_step": 0,
        KEY: metadata(config, plan),
    }
    with atomic(file) as part:
        torch.save(content, part)

"""The checkpoint from which a stopped training goes on."""

from pathlib import Path

from segpipe import archive
from segpipe.checkpoint import load
from segpipe.errors import ConfigError
from segpipe.plan import Plan
from segpipe.stored import read_plan, read_yaml

RESUMED = ("epoch", "loops", "callbacks", "optimizer_states", "lr_schedulers", "random_states")


def check_last(folder: Path) -> None:
    """Check that a training can go on from the last checkpoint of a run's folder.

    Raises:
        ConfigError: if it is damaged, of another run, or not what a training has written; it names
            the best checkpoint where that one is whole.
    """
    checkpoints = folder / "checkpoints"
    try:
        _check(checkpoints / "last.ckpt", folder / "plan.yaml")
    except ConfigError as error:
        raise ConfigError(f"{error}{_offer(checkpoints / 'best.ckpt')}") from None


def _check(last: Path, plan: Path) -> None:
    trained = load(last)
    if plan.is_file() and _written(read_plan(plan, read_yaml(plan))) != _written(trained.plan):
        raise ConfigError(f"{last}: is of another run: its plan is not that of {plan}")
    stored = archive.read(last)
    for key in RESUMED:
        if key not in stored:
            raise ConfigError(f"{last}: has no {key}, so no training can go on from it")


def _written(plan: Plan) -> str:
    return plan.model_dump_json()  # in which NaN equals NaN


def _offer(best: Path) -> str:
    """Return what to do with a best checkpoint, if it is whole."""
    try:
        step = load(best).step
    except ConfigError:
        return ""
    return (
        f"; {best} is whole (step {step}): copy it over last.ckpt to go on from there, or predict "
        "with it"
    )

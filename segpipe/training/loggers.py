"""Lightning's loggers, which show a run while it goes on; `metrics.csv` is written in any case."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from segpipe.config.logger import AnyLogger, MLflow, Wandb
from segpipe.config.train import Train
from segpipe.errors import ConfigError

# MLflow's small edition comes without the last two
MLFLOW_WITH_SQLITE = ["mlflow", "sqlalchemy", "alembic"]
CHATTY = ("mlflow", "alembic")  # they log every table that they make


def check(chosen: AnyLogger) -> None:
    """Refuse a logger whose package is not installed, before any data is read.

    Raises:
        ConfigError: with the command that installs it.
    """
    for name in _packages(chosen):
        if find_spec(name) is None:
            raise ConfigError(
                f"logger={chosen.name}: {name} is not installed: "
                f"pip install 'segpipe[{chosen.name}]'"
            )


def _packages(chosen: AnyLogger) -> list[str]:
    """Return the packages that a logger needs beside those of segpipe."""
    if isinstance(chosen, Wandb):
        return ["wandb"]
    if isinstance(chosen, MLflow):
        return MLFLOW_WITH_SQLITE if chosen.tracking.startswith("sqlite:") else ["mlflow"]
    return []


@contextmanager
def open_logger(options: Train, folder: Path) -> Iterator[Logger]:
    """Open the logger of a run, and close it so that the next run of a sweep gets its own.

    Args:
        options: the run's options, which MLflow and Weights & Biases record.
        folder: the run's folder; its last two names are the run's name there.
    """
    chosen = options.logger
    logger = _make_logger(chosen, folder)
    if isinstance(chosen, MLflow | Wandb):
        logger.log_hyperparams(options.model_dump(mode="json"))
    try:
        yield logger
    finally:
        if isinstance(chosen, Wandb):
            import wandb  # pyright: ignore[reportMissingImports]

            wandb.finish()


def _make_logger(chosen: AnyLogger, folder: Path) -> Logger:
    title = f"{folder.absolute().parent.name}/{folder.name}"
    if isinstance(chosen, MLflow):
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        return MLFlowLogger(chosen.project, title, tracking_uri=chosen.tracking)
    if isinstance(chosen, Wandb):
        import wandb  # pyright: ignore[reportMissingImports]

        settings = wandb.Settings(silent=True, console="off")
        return WandbLogger(
            title, folder, offline=chosen.offline, project=chosen.project, settings=settings
        )
    return TensorBoardLogger(folder, "", "tensorboard")

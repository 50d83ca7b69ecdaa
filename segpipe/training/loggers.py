"""What shows a run while it goes on: Lightning's own loggers; `metrics.csv` is written in any case."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from segpipe.config.logger import AnyLogger, MLflow, Wandb
from segpipe.config.train import Train
from segpipe.errors import ConfigError


def check(chosen: AnyLogger) -> None:
    """Refuses a logger whose package is not there, before any data is read.

    Raises:
        ConfigError: with the command that installs it.
    """
    if not isinstance(chosen, MLflow | Wandb):
        return
    needed = ["mlflow"]
    if isinstance(chosen, Wandb):
        needed = ["wandb"]
    elif chosen.tracking.startswith("sqlite:"):
        needed = [
            "mlflow",
            "sqlalchemy",
            "alembic",
        ]  # MLflow's small edition comes without the last two
    if missing := [name for name in needed if find_spec(name) is None]:
        raise ConfigError(
            f"logger={chosen.name}: {missing[0]} is not installed: pip install 'segpipe[{chosen.name}]'"
        )


@contextmanager
def open_logger(options: Train, folder: Path) -> Iterator[Logger]:
    """The logger of a run, closed behind it, so that the next run of a sweep gets one of its own.

    Args:
        options: the run's options, which the logger is told.
        folder: the run's folder; its last two names are the run's name there.
    """
    chosen, title = options.logger, f"{folder.absolute().parent.name}/{folder.name}"
    if isinstance(chosen, MLflow):
        for noisy in ("mlflow", "alembic"):  # they tell of every table they make
            logging.getLogger(noisy).setLevel(logging.WARNING)
        logger: Logger = MLFlowLogger(chosen.project, title, tracking_uri=chosen.tracking)
    elif isinstance(chosen, Wandb):
        import wandb  # pyright: ignore[reportMissingImports]

        settings = wandb.Settings(silent=True, console="off")
        logger = WandbLogger(
            title, folder, offline=chosen.offline, project=chosen.project, settings=settings
        )
    else:
        logger = TensorBoardLogger(folder, "", "tensorboard")
    if isinstance(chosen, MLflow | Wandb):
        logger.log_hyperparams(options.model_dump(mode="json"))
    try:
        yield logger
    finally:
        if isinstance(chosen, Wandb):
            import wandb  # pyright: ignore[reportMissingImports]

            wandb.finish()

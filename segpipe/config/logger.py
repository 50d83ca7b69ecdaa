"""The options of loggers, which show losses and Dice during a run beside `metrics.csv`."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from segpipe.config.section import Section

Name = Annotated[
    Literal["tensorboard", "mlflow", "wandb"],
    Field(description="who shows them; set by logger=NAME with all it needs"),
]
Project = Annotated[
    str, Field(min_length=1, description="MLflow's experiment, or the project of Weights & Biases")
]


class TensorBoard(Section):
    """Files of TensorBoard in the run's folder."""

    name: Name


class MLflow(Section):
    """An experiment of MLflow."""

    name: Name
    project: Project
    tracking: str = Field(
        min_length=1,
        description="a database, as sqlite:///mlflow.db, or a server, as http://HOST:5000",
    )


class Wandb(Section):
    """A project of Weights & Biases."""

    name: Name
    project: Project
    offline: bool = Field(
        description="only write files into the run's folder, for wandb sync later"
    )


def _kind(values: Any) -> str:
    name = values.get("name") if isinstance(values, dict) else values.name
    return f"({name})" if name in ("mlflow", "wandb") else "(tensorboard)"


AnyLogger = TensorBoard | MLflow | Wandb
LoggerChoice = Annotated[
    Annotated[TensorBoard, Tag("(tensorboard)")]
    | Annotated[MLflow, Tag("(mlflow)")]
    | Annotated[Wandb, Tag("(wandb)")],
    Discriminator(_kind),
]

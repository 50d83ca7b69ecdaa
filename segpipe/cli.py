"""The two commands: compose the config, check it, call one function, set the exit status."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segpipe.config.compose import CONF, check, validate
from segpipe.config.help import page
from segpipe.config.predict import Predict
from segpipe.config.section import Section
from segpipe.config.train import Train
from segpipe.errors import ConfigError, SegpipeError

log = logging.getLogger("segpipe")


def train() -> None:
    """`segpipe-train`: trains one network, or one for each combination of a sweep."""
    # a resumed run goes on in its own folder, not in a new one
    for argument in sys.argv[1:]:
        if argument.startswith("resume=") and argument != "resume=null":
            sys.argv.append(f"hydra.run.dir='{argument.removeprefix('resume=')}'")
    _launch("train", Train, _train_one)


def predict() -> None:
    """`segpipe-predict`: writes a mask for each scan."""
    _launch("predict", Predict, _predict_all)


def _train_one(values: dict[str, Any], folder: Path, overrides: list[str]) -> int:
    from segpipe.config.resume import resumed

    options = validate(Train, resumed(values, overrides))
    if options.mode == "doctor":  # torch, MONAI and Lightning take seconds to import: only after the check
        from segpipe.training.cases import diagnose

        return diagnose(options, folder)
    from segpipe.training.fit import fit

    fit(options, folder, overrides)
    return 0


def _predict_all(values: dict[str, Any], _folder: Path, _overrides: list[str]) -> int:
    options = validate(Predict, values)
    from segpipe.prediction.batch import predict_batch

    return predict_batch(options)


def _launch(program: str, schema: type[Section], run: Callable[[dict[str, Any], Path, list[str]], int]) -> None:
    if {"--help", "-h"} & set(sys.argv[1:]):
        script = Path(sys.argv[0]).name
        print(page(program, f"python {script}" if script.endswith(".py") else script, schema))
        return
    try:
        check(program, schema, sys.argv[1:])
        _run_jobs(program, run)
    except ConfigError as error:
        print(f"segpipe-{program}: {error}", file=sys.stderr)
        sys.exit(error.exit_status)


def _run_jobs(program: str, run: Callable[[dict[str, Any], Path, list[str]], int]) -> None:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import DictConfig, OmegaConf

    def job(composed: DictConfig) -> None:
        info = HydraConfig.get()
        values: Any = OmegaConf.to_container(composed, resolve=True)
        try:
            status = run(values, Path(info.runtime.output_dir), list(info.overrides.task))
        except SegpipeError as error:
            log.error("segpipe-%s: %s", program, error)
            if info.mode == RunMode.MULTIRUN:
                raise  # Hydra goes on with the other jobs of the sweep and raises this at its end
            status = error.exit_status
        if status:
            sys.exit(status)

    # Hydra would print its own traceback and exit 1: let errors through to the caller, whose exit status they set
    os.environ["HYDRA_FULL_ERROR"] = "1"
    hydra.main(str(CONF), program, version_base="1.3")(job)()

"""The callback at the end of a sweep: its runs become a study."""

import logging
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from segpipe.config.quoting import invocation, typed

log = logging.getLogger("segpipe")
NO_REPORT = 1
SOME_FAILED = 3


class StudyReport(Callback):
    """Writes the study of a sweep of trainings; ends with status 3 if a run has failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the study, in the process that started the sweep, when all jobs have ended."""
        if config.mode != "train":
            return
        folder = Path(config.hydra.sweep.dir)
        _write_report(folder, config)
        if any(folder.glob("*/failure.txt")):
            log.error(
                "some runs failed; go on with what is missing: %s %s",
                invocation("train"),
                typed("resume", folder),
            )
            sys.exit(SOME_FAILED)


def _write_report(folder: Path, config: DictConfig) -> None:
    """Write the report, or log why there is none and exit with an error's status."""
    from segpipe.config.page import ComparisonOptions
    from segpipe.config.validation import validate
    from segpipe.errors import SegpipeError
    from segpipe.reporting.formats import figures_as
    from segpipe.study.report import report  # SciPy and matplotlib take long to import

    values: Any = OmegaConf.to_container(config.comparison, resolve=True)
    try:
        with figures_as(config.page.figures):
            report(folder, validate(ComparisonOptions, values))
    except SegpipeError as error:
        log.error("%s: %s", folder, error)
        sys.exit(error.exit_status)
    except Exception:  # Hydra would turn it into a warning and end with status 0
        log.exception("%s: no report", folder)
        sys.exit(NO_REPORT)

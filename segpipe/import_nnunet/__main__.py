"""`python -m segpipe.import_nnunet results=FOLDER output=x.ckpt`."""

import logging
from pathlib import Path
from typing import Any

from segpipe.cli import launch
from segpipe.config.checkpoint_tools import ImportNNUNet
from segpipe.config.quoting import typed
from segpipe.config.validation import validate
from segpipe.import_nnunet.convert import import_nnunet

log = logging.getLogger("segpipe")


def _import(values: dict[str, Any], _folder: Path, _overrides: list[str]) -> int:
    options = validate(ImportNNUNet, values)
    assert options.results is not None
    assert options.output is not None
    names = import_nnunet(options.results, options.output, options.folds, options.checkpoint)
    log.info("%s: %s, checkpoint_%s", options.results, ", ".join(names), options.checkpoint)
    log.info(
        "use it: segpipe-predict %s input=SCANS output=MASKS", typed("checkpoint", options.output)
    )
    return 0


if __name__ == "__main__":
    launch("import_nnunet", ImportNNUNet, _import, "python -m segpipe.import_nnunet")

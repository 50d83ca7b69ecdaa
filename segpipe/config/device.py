"""The key `device`, the same in every program."""

import re
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from segpipe.config.section import Written

DEVICES = re.compile(r"auto|cpu|cuda(:\d{1,3})?")


def _device(name: str) -> str:
    if name.split(":")[0] == "mps":
        raise ValueError(f"{name} is refused: Apple's GPUs are not supported; use cpu or auto")
    if DEVICES.fullmatch(name) is None:
        expected = "'auto', 'cpu', 'cuda' or 'cuda:N'"
        raise PydanticCustomError(
            "literal_error", "Input should be {expected}", {"expected": expected}
        )
    return name


Device = Annotated[str, AfterValidator(_device), Written("auto|cpu|cuda|cuda:N")]
DEVICE_HELP = "auto = the first GPU if there is one; cuda:1 = the second GPU"

"""The file `dataset.json`, by which Decathlon and nnU-Net datasets describe themselves."""

import logging
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segpipe.config.data import Data
from segpipe.data.cases import read_json
from segpipe.data.layouts.base import layout_hint, root_folder
from segpipe.errors import ConfigError, DataError
from segpipe.text import count, unwritable

log = logging.getLogger("segpipe")
NAME = "dataset.json"
MOST_DIGITS = 10  # of an id or the number of a channel


def mentions(root: Path, key: str) -> bool:
    """Return whether the folder holds a `dataset.json` in which this key occurs."""
    file = root / NAME
    try:
        return file.is_file() and f'"{key}"' in file.read_text(encoding="utf-8", errors="replace")
    except OSError:  # what cannot be read mentions nothing; reading the dataset says why
        return False


@dataclass(frozen=True)
class DatasetJson:
    """The content of a `dataset.json`.

    Attributes:
        file: the file itself.
        content: the JSON object that it holds.
    """

    file: Path
    content: dict[str, Any]

    @classmethod
    def read(cls, data: Data, key: str) -> "DatasetJson":
        """Read the file of the dataset in `data.root`.

        Args:
            data: the options of the dataset.
            key: the key by which this layout's file differs from those of other layouts.

        Raises:
            ConfigError: if there is no such file, or it lacks the key.
            DataError: if it is not JSON.
        """
        root = root_folder(data)
        file = root / NAME
        if not file.is_file():
            raise ConfigError(
                f"data.root={root}: has no {NAME}, so it is not data={data.layout}"
                f"{layout_hint(root)}"
            )
        content = read_json(file)
        if not isinstance(content, dict) or key not in content:
            raise ConfigError(
                f"{file}: has no '{key}', so it is not data={data.layout}{layout_hint(root)}"
            )
        return cls(file, content)

    @property
    def dataset_name(self) -> str:
        """Return the name that the dataset gives itself, else that of its folder."""
        name = self.content.get("name")
        if isinstance(name, str) and not unwritable(name):
            return name
        return self.file.parent.name

    def names_by_number(self, key: str, example: str) -> dict[int, str]:
        """Return an object such as `{"0": "MRI"}` as names by number, in the order of the numbers.

        Raises:
            DataError: if the value of `key` is not such an object; the message quotes `example`.
        """
        names: dict[int, str] = {}
        for number, name in self._object(key, example).items():
            names[self.number(number, key, example)] = str(name)
        return dict(sorted(names.items()))

    def unions_by_name(self, key: str, example: str) -> dict[str, list[int]]:
        """Return an object such as `{"background": 0, "core": [1, 2]}` as lists of numbers by name.

        Raises:
            DataError: if the value of `key` is not such an object; the message quotes `example`.
        """
        unions: dict[str, list[int]] = {}
        for name, value in self._object(key, example).items():
            numbers = value if isinstance(value, list) else [value]
            if not numbers:
                raise self.wrong_value(key, example)
            unions[name] = sorted({self.number(number, key, example) for number in numbers})
        return unions

    def check_number_of_cases(self, found: int) -> None:
        """Log a warning where `numTraining` is another number than that of the cases found."""
        declared = self.content.get("numTraining")
        if isinstance(declared, int) and declared != found:
            there = f"there {'is' if found == 1 else 'are'} {count(found, 'case')}"
            log.warning("%s: numTraining is %d, but %s", self.file, declared, there)

    def _object(self, key: str, example: str) -> dict[str, Any]:
        value = self.content.get(key)
        if not isinstance(value, dict) or not value:
            raise self.wrong_value(key, example)
        return value

    def number(self, number: object, key: str, example: str) -> int:
        """Return a whole number from 0, which may be written as text.

        Raises:
            DataError: if it is something else; the message quotes `example`.
        """
        text = str(number)
        if not text.isdecimal() or len(text) > MOST_DIGITS:
            raise self.wrong_value(key, example)
        return int(text)

    def wrong_value(self, key: str, example: str) -> DataError:
        """Return the error for a value that does not look like the example."""
        value = reprlib.repr(self.content.get(key))
        return DataError(f"{self.file}: '{key}' must look like {example}, got {value}")

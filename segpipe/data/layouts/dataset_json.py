"""The file `dataset.json`, by which Decathlon and nnU-Net datasets describe themselves."""

import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segpipe.config.data import Data
from segpipe.data.cases import read_json
from segpipe.data.layouts.base import layout_hint, root_folder
from segpipe.errors import ConfigError, DataError

NAME = "dataset.json"


def mentions(root: Path, key: str) -> bool:
    """Return whether the folder holds a `dataset.json` in which this key occurs."""
    file = root / NAME
    return file.is_file() and f'"{key}"' in file.read_text(encoding="utf-8", errors="replace")


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
        return str(self.content.get("name", self.file.parent.name))

    def names_by_number(self, key: str, example: str) -> dict[int, str]:
        """Return an object such as `{"0": "MRI"}` as names by number, in the order of the numbers.

        Raises:
            DataError: if the value of `key` is not such an object; the message quotes `example`.
        """
        names: dict[int, str] = {}
        for number, name in self._object(key, example).items():
            names[self._number(number, key, example)] = str(name)
        return dict(sorted(names.items()))

    def numbers_by_name(self, key: str, example: str) -> dict[str, int]:
        """Return an object such as `{"background": 0}` as numbers by name.

        Raises:
            DataError: if the value of `key` is not such an object; the message quotes `example`.
        """
        numbers: dict[str, int] = {}
        for name, number in self._object(key, example).items():
            numbers[str(name)] = self._number(number, key, example)
        return numbers

    def _object(self, key: str, example: str) -> dict[str, Any]:
        value = self.content.get(key)
        if not isinstance(value, dict) or not value:
            raise self._wrong_value(key, example)
        return value

    def _number(self, number: object, key: str, example: str) -> int:
        text = str(number)
        if not text.isdecimal():
            raise self._wrong_value(key, example)
        return int(text)

    def _wrong_value(self, key: str, example: str) -> DataError:
        value = reprlib.repr(self.content.get(key))
        return DataError(f"{self.file}: '{key}' must look like {example}, got {value}")

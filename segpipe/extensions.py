"""A user's own code: files or modules, loaded because the user named them.

An extension registers skips, blocks, losses, metrics, augmentations or networks in the registries
of `segpipe.registry`. Checkpoints record the extensions that were loaded (name, hash and source
text), so that prediction can name the ones it needs; what a checkpoint records is never run.
"""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from segpipe.errors import ConfigError
from segpipe.text import first_line

PREFIX = "segpipe_extension_"


@dataclass(frozen=True)
class Extension:
    """An extension as it was loaded.

    Attributes:
        name: the name of its file, or of its module.
        sha256: the SHA-256 of its source.
        source: its text.
    """

    name: str
    sha256: str
    source: str


_loaded: dict[str, Extension] = {}


def load(names: Iterable[str]) -> None:
    """Load Python files or importable modules, each once in a process.

    Raises:
        ConfigError: if one is missing, cannot be imported, or registers a name that is taken.
    """
    for name in names:
        if name not in _loaded:
            _loaded[name] = _load(name)


def loaded() -> list[Extension]:
    """Return the extensions of this process, in the order in which they were loaded."""
    return list(_loaded.values())


def check_loaded(needed: Sequence[Extension], source: object) -> list[str]:
    """Check that extensions that a stored file needs are loaded, and return what to warn of.

    Args:
        needed: the extensions that the file records.
        source: the name of the file, for the message.

    Raises:
        ConfigError: if one is not loaded; the message says how to give it.
    """
    present = {extension.name: extension for extension in loaded()}
    warnings = []
    for extension in needed:
        found = present.get(extension.name)
        if found is None:
            raise ConfigError(
                f"{source}: needs the extension {extension.name} (SHA-256 "
                f"{extension.sha256[:12]}): give extensions=[{extension.name}]; code of a "
                "checkpoint is never run"
            )
        if found.sha256 != extension.sha256:
            warnings.append(
                f"{source}: was written with another {extension.name} (SHA-256 "
                f"{extension.sha256[:12]}, here {found.sha256[:12]})"
            )
    return warnings


def _load(name: str) -> Extension:
    try:
        module = _import_file(Path(name)) if name.endswith(".py") else importlib.import_module(name)
    except ConfigError as error:
        raise ConfigError(f"extensions: {name}: {error}") from None
    except Exception as error:  # whatever a user's code raises while it is imported
        kind = type(error).__name__
        raise ConfigError(
            f"extensions: {name} cannot be loaded ({kind}: {first_line(error)})"
        ) from error
    content = Path(str(module.__file__)).read_bytes()
    short = Path(name).name if name.endswith(".py") else name
    return Extension(short, hashlib.sha256(content).hexdigest(), content.decode("utf-8", "replace"))


def _import_file(file: Path) -> ModuleType:
    if not file.is_file():
        raise ConfigError("no such file")
    name = PREFIX + file.stem
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module

"""Variation points: one registry per kind of thing that a user can choose or add.

An entry is a class or a function, registered where it is defined, with all that is known of it:

    @LONG_SKIPS.register("add", help="the sum of both", colour="#0072B2")
    class AddSkip(LongSkip): ...

The schema's choices, `--help`, drawings, tables and tests are made from the registries. The names
of built-in entries are read from the source of their module without importing it, since torch takes
a second to import and `--help` must not; so `name`, `help` and `colour` are written as literals.
"""

import ast
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, TypeVar

from segpipe.errors import ConfigError
from segpipe.text import nearest

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """What is known of an entry without importing it.

    Attributes:
        name: what a user types.
        help: one line.
        colour: the colour of drawings, as `#RRGGBB`; empty where it is never drawn.
    """

    name: str
    help: str
    colour: str = ""


@dataclass(eq=False)
class Registry(Generic[T]):
    """The entries of one kind, by name, in the order of their definition.

    Attributes:
        kind: what an entry is, in the singular, as errors call it.
        variable: the registry's own name in this module, as its decorators are spelt.
        home: the module that defines the built-in entries, or the package whose modules do.
    """

    kind: str
    variable: str
    home: str
    added: dict[str, Entry] = field(default_factory=dict)
    values: dict[str, T] = field(default_factory=dict)

    def register(
        self,
        name: str,
        *,
        help: str,  # noqa: A002
        colour: str = "",
    ) -> Callable[[T], T]:
        """Return a decorator that adds a class or a function under this name.

        Raises:
            ConfigError: if the name is taken by something else.
        """

        def add(value: T) -> T:
            origin = getattr(value, "__module__", "")
            if name in self.entries() and not self._is_built_in(origin):
                raise ConfigError(f"{self.kind} {name}: there is one of that name already")
            self.values[name] = value
            if not self._is_built_in(origin):
                self.added[name] = Entry(name, help, colour)
            return value

        return add

    def entries(self) -> dict[str, Entry]:
        """Return all entries by name: the built-in ones, then those of extensions."""
        return {**self._built_in, **self.added}

    def names(self) -> list[str]:
        """Return the names of all entries."""
        return list(self.entries())

    def __contains__(self, name: object) -> bool:
        return name in self.entries()

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries())

    def __getitem__(self, name: str) -> T:
        """Return the class or function of this name.

        Raises:
            ConfigError: if there is none.
        """
        for module in self._sources:
            importlib.import_module(module)
        if name not in self.values:
            names = self.names()
            known = ", ".join(names)
            raise ConfigError(
                f"{name} is no {self.kind}; there are {known}.{nearest(name, names)} If an "
                "extension defines it, give extensions=[FILE]"
            )
        return self.values[name]

    def _is_built_in(self, module: str) -> bool:
        """Return whether a module is the home, or lies in the package that is the home."""
        return module == self.home or module.startswith(f"{self.home}.")

    @cached_property
    def _sources(self) -> dict[str, Path]:
        """Return the modules that define the built-in entries by name, each with its file."""
        spec = find_spec(self.home)
        assert spec is not None
        assert spec.origin is not None
        sources = {self.home: Path(spec.origin)}
        for folder in spec.submodule_search_locations or []:
            for file in sorted(Path(folder).glob("[!_]*.py")):
                sources[f"{self.home}.{file.stem}"] = file
        return sources

    @cached_property
    def _built_in(self) -> dict[str, Entry]:
        """Read the entries of the home from its source, without importing it."""
        found: dict[str, Entry] = {}
        for file in self._sources.values():
            tree = ast.parse(file.read_text(encoding="utf-8"))
            for node in tree.body:
                for decorator in getattr(node, "decorator_list", []):
                    entry = self._read(decorator)
                    if entry is not None:
                        found[entry.name] = entry
        return found

    def _read(self, decorator: ast.expr) -> Entry | None:
        """Return the entry that a decorator `VARIABLE.register(...)` of this registry adds."""
        if not isinstance(decorator, ast.Call):
            return None
        match decorator.func:
            case ast.Attribute(ast.Name(self.variable), "register"):
                pass
            case _:
                return None
        words: dict[str, Any] = {
            keyword.arg: ast.literal_eval(keyword.value)
            for keyword in decorator.keywords
            if keyword.arg in ("help", "colour")
        }
        return Entry(ast.literal_eval(decorator.args[0]), **words)


LONG_SKIPS: Registry[Any] = Registry("long skip", "LONG_SKIPS", "segpipe.nets.skips")
SHORT_SKIPS: Registry[Any] = Registry("short skip", "SHORT_SKIPS", "segpipe.nets.blocks")
BLOCKS: Registry[Any] = Registry("block", "BLOCKS", "segpipe.nets.blocks")
NETWORKS: Registry[Any] = Registry("network", "NETWORKS", "segpipe.nets.build")
LOSSES: Registry[Any] = Registry("loss term", "LOSSES", "segpipe.training.loss")
METRICS: Registry[Any] = Registry("metric", "METRICS", "segpipe.metrics")
AUGMENTATIONS: Registry[Any] = Registry("augmentation", "AUGMENTATIONS", "segpipe.data.intensity")
LAYOUTS: Registry[Any] = Registry("layout", "LAYOUTS", "segpipe.data.layouts")
BACKENDS: Registry[Any] = Registry("backend", "BACKENDS", "segpipe.prediction.backends")
OPTIMISERS: Registry[Any] = Registry("optimiser", "OPTIMISERS", "segpipe.training.optim")
ENGINES: Registry[Any] = Registry("engine", "ENGINES", "segpipe.engines")

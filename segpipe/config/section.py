"""What all sections of the config share: closed keys, units, choices from registries, history."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from segpipe.registry import Registry
from segpipe.text import nearest


class Section(BaseModel):
    """A closed group of keys: an unknown key is an error, every key has a help line."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Unit(str):
    """The unit of a key's values, as in `Annotated[float, Unit("mm")]`; the help shows it."""

    __slots__ = ()


@dataclass(frozen=True)
class Written:
    """How the values of a key of text are written, as in `cpu|cuda:N`; the help shows it."""

    as_: str


@dataclass(frozen=True)
class NamesFiles:
    """Marks a key whose text names files though its type is not `Path`, as a glob does."""


@dataclass(frozen=True)
class Was:
    """What a key meant before it existed, as in `Annotated[int, Was(1)]`.

    A stored file that lacks the key is completed with this value, whatever a preset says today.
    """

    value: Any


@dataclass(frozen=True)
class OneOf:
    """The names of a registry as the choices of a key, as in `Annotated[str, OneOf(LOSSES)]`."""

    registry: Registry[Any]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Check the value after its type."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, value: str) -> str:
        names = self.registry.names()
        if value in names:
            return value
        quoted = [repr(name) for name in names]
        expected = quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"
        raise PydanticCustomError(
            "literal_error", "Input should be {expected}", {"expected": expected}
        )


class RegisteredSection(Section):
    """A section with a key for each entry of a registry, beside its own fields.

    Attributes:
        registry: the registry whose entries are keys.
        title: the section's name in the config.
        entry_type: type and rule of the values.
        entry_help: what the value of an entry means, before the entry's own help.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    registry: ClassVar[Registry[Any]]
    title: ClassVar[str]
    entry_type: ClassVar[Any]
    entry_help: ClassVar[str]

    @classmethod
    def entry_fields(cls) -> dict[str, FieldInfo]:
        """Return the keys that the registry adds, with type and help."""
        fields = {}
        for name, entry in cls.registry.entries().items():
            text = f"{cls.entry_help} {entry.help}"
            annotation: Any = Annotated[cls.entry_type, Was(0.0), Field(description=text)]
            fields[name] = FieldInfo.from_annotation(annotation)
        return fields

    @model_validator(mode="before")
    @classmethod
    def _only_registered(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        known = [*cls.model_fields, *cls.registry]
        for name in values:
            if name not in known:
                key = f"{cls.title}.{name}"
                hint = nearest(key, [f"{cls.title}.{other}" for other in known])
                raise ValueError(f"{key} is not a key.{hint}")
        # a term of an extension that was loaded after the config was composed is off
        return {**dict.fromkeys(cls.registry, 0.0), **values}

"""What all sections of the config share."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A closed group of keys: an unknown key is an error, every key has a help line, and no default lives here."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Unit(str):
    """The unit of a key's values, as in `Annotated[float, Unit("mm")]`; the help shows it behind the type."""

    __slots__ = ()

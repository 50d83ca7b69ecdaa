"""The key `extensions`, which every command that builds networks or scores masks has."""

from typing import Annotated

from pydantic import BeforeValidator

from segpipe.config.section import NamesFiles

EXTENSIONS_HELP = (
    "Python files, or importable modules, that register skips, losses, metrics ...; "
    "docs/howto/extensions.md"
)


def _as_list(given: object) -> object:
    return [given] if isinstance(given, str) else given


Extensions = Annotated[list[str], NamesFiles(), BeforeValidator(_as_list)]

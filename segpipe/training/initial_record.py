"""What became of the weights that a run started from, as its log, page and folder have it."""

from collections.abc import Mapping
from dataclasses import dataclass

from segpipe.checkpoint import StartedFrom
from segpipe.nets.transfer import Sources, State
from segpipe.plan import Plan

FILE = "initial.json"  # in the run's folder
PARTS = {
    "stem": "encoder",
    "downs": "encoder",
    "ups": "decoder",
    "skips": "decoder",
    "decoder_stages": "decoder",
    "heads": "head",
}


@dataclass(frozen=True)
class Record:
    """What became of the weights; `initial.json` in the run's folder.

    Attributes:
        source: the checkpoint.
        states: the state of each weight, by its name.
        rows: the rows of the table: what became of weights, how many, and of which parts they are.
    """

    source: StartedFrom
    states: dict[str, State]
    rows: list[tuple[str, int, str]]

    @property
    def loaded(self) -> list[str]:
        """Names of the weights that have learnt already."""
        return [name for name, state in self.states.items() if state in ("loaded", "adapted")]


def channel_note(sources: Sources, plan: Plan, old: Plan) -> str:
    """Return which filters each image channel has, as `T1 of T1, FLAIR mean of 2`."""
    notes = []
    for name, source in zip(plan.channels, sources, strict=True):
        mean = f"mean of {len(old.channels)}"
        notes.append(f"{name} {mean if source is None else 'of ' + old.channels[source]}")
    return ", ".join(notes)


def output_note(sources: Sources, plan: Plan) -> str:
    """Return which outputs are kept and which are new, as `liver kept, tumour new`."""
    notes = []
    for name, source in zip(plan.regions or plan.labels, sources, strict=True):
        notes.append(f"{name} {'new' if source is None else 'kept'}")
    return ", ".join(notes)


def state_rows(states: Mapping[str, State], sizes: Mapping[str, int]) -> list[tuple[str, int, str]]:
    """Return a row for each state: how many weights are in it, and of which parts they are."""
    rows: list[tuple[str, int, str]] = []
    words: dict[State, str] = {
        "loaded": "loaded",
        "adapted": "adapted",
        "new": "new",
        "left": "left in the checkpoint",
    }
    for state, word in words.items():
        names = [name for name, own in states.items() if own == state]
        parts = dict.fromkeys(_part(name) for name in names)
        rows.append((word, sum(sizes[name] for name in names), ", ".join(parts)))
    return rows


def _part(name: str) -> str:
    first = name.partition(".")[0]
    return PARTS.get(first, first)

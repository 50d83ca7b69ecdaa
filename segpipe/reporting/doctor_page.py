"""`doctor.html`: a dataset before the first training, and what a training would be."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segpipe.data.inspected_case import usable_of
from segpipe.planning.fingerprint import facts
from segpipe.reporting import doctor_tables as tables
from segpipe.reporting.doctor_pictures import choose_cases, draw_case
from segpipe.reporting.doctor_tables import Examination, Thumbnail
from segpipe.reporting.fingerprint import draw_fingerprint
from segpipe.reporting.page import Link, Page, Picture, Table, embed, embed_all, write_page
from segpipe.reporting.run_tables import plan_table
from segpipe.terminal import progress_bar
from segpipe.text import count

FILE = "doctor.html"
WIDTH = 1100  # pixels of a figure inside the page
THUMBNAIL = 800  # pixels of a case's picture inside the page
OPEN = 12  # pictures that are seen at once; half of them where nothing was found
PICTURES_MIB = 24.0  # beyond this, a page is slow to open
FIX = (
    "fix=NEW_DIR writes a copy in which what is safe is repaired; the table of findings says what "
    "to do about the rest."
)
FLAGGED_FIRST = "those with findings first, the worst at the top; the others "
BY_SIZE = "from the smallest to the largest labels. Click a picture to enlarge it."
BESIDE = ("doctor.csv", "split.json", "train.log")


@dataclass(frozen=True)
class Outlook:
    """What a training on the cases that can be used would be.

    Attributes:
        reasons: a line per entry of the plan, `entry value: why`; empty where there is no plan.
        time: how long a run would take here, name and text.
        problem: why the plan or the time is not known; empty where they are.
    """

    reasons: Sequence[str] = ()
    time: Sequence[tuple[str, str]] = ()
    problem: str = ""


@dataclass(frozen=True)
class Diagnosis(Page):
    """The content of `doctor.html`.

    Attributes:
        level: `good`, `weak` where there are warnings, `bad` where a case cannot be used.
        sentence: the result in words.
        advice: what to do about it, a sentence each.
        train: the command that trains on it; empty where it cannot.
        facts: name and text.
        kinds: the kinds of the findings; None where there is none.
        cases: some of them with pictures, the worst first.
        shown: which cases these are.
        open: how many of them are seen before the others are asked for.
        findings: all of them, or the worst; None where there is none.
        fingerprint: spacings, sizes, labels and intensities as plots.
        labels: sizes, cases and metrics of each label.
        grids: spacings and sizes in numbers.
        grouping: what is known of patients with several cases.
        groups: patients of several cases.
        plan: entry and reason.
        time: how long a run would take here.
        problem: why the plan or the time is not known.
        files: beside the page.
    """

    level: str
    sentence: str
    advice: Sequence[str]
    train: str
    facts: Sequence[tuple[str, str]]
    kinds: Table | None
    cases: Sequence[Thumbnail]
    shown: str
    open: int
    findings: Table | None
    fingerprint: Picture | None
    labels: Table | None
    grids: Table | None
    grouping: str
    groups: Table | None
    plan: Table | None
    time: Sequence[tuple[str, str]]
    problem: str
    files: Sequence[Link]


def write_diagnosis(
    folder: Path, examined: Examination, outlook: Outlook, pictures: int, train: str
) -> None:
    """Write `doctor.html`, with the pictures of some cases in `overlays/`.

    Args:
        folder: the run's folder.
        examined: the dataset.
        outlook: what a training would be.
        pictures: most cases that are drawn.
        train: the command that trains on the dataset.

    Raises:
        DataError: if a file cannot be written.
    """
    level, sentence, advice = _verdict(examined)
    grouping, groups = tables.groups(examined)
    cases = _cases(examined, folder, pictures)
    page = Diagnosis(
        title=f"Dataset {examined.dataset.name}",
        lead=f"{tables.counts(examined)}.",
        level=level,
        sentence=sentence,
        advice=advice,
        train="" if level == "bad" else train,
        facts=[*_facts(examined), *outlook.time[:1]],
        kinds=tables.kinds(examined),
        cases=cases,
        shown=_shown(examined, len(cases)),
        open=OPEN if examined.findings else OPEN // 2,
        findings=tables.findings(examined),
        fingerprint=_fingerprint(examined, folder),
        labels=tables.labels(examined),
        grids=tables.grids(examined),
        grouping=grouping,
        groups=groups,
        plan=plan_table(outlook.reasons) if outlook.reasons else None,
        time=outlook.time,
        problem=outlook.problem,
        files=[Link(name, name) for name in BESIDE if (folder / name).is_file()],
    )
    write_page(folder / FILE, "doctor.html", page)


def _verdict(examined: Examination) -> tuple[str, str, list[str]]:
    """Return a level, a sentence and what to do."""
    total = len(examined.cases)
    unusable = total - len(usable_of(examined.cases))
    warnings = sum(finding.severity == "warning" for finding in examined.findings)
    seen = count(warnings, "warning")
    if unusable:
        return (
            "bad",
            f"{unusable} of {count(total, 'case')} cannot be used, and a training would stop; "
            f"{seen}.",
            [FIX],
        )
    if warnings:
        advice = "A training would go on; look at the warnings, the worst first."
        return "weak", f"{_all(total)} usable; {seen}.", [advice]
    return "good", f"{_all(total)} usable; no problems found.", []


def _all(cases: int) -> str:
    return "The only case is" if cases == 1 else f"All {count(cases, 'case')} are"


def _shown(examined: Examination, number: int) -> str:
    """Return which cases have pictures, and in what order."""
    flagged = FLAGGED_FIRST if any(case.findings for case in examined.cases) else ""
    return f"{number} of {count(len(examined.cases), 'case')}, {flagged}{BY_SIZE}"


def _facts(examined: Examination) -> list[tuple[str, str]]:
    channels = {len(case.foreground) for case in examined.cases if case.grid is not None}
    names = ", ".join(examined.dataset.channels)
    if channels and channels != {len(examined.dataset.channels)}:
        names = f"{names}: {', '.join(map(str, sorted(channels)))} in a case"
    return [
        ("labels", ", ".join(list(examined.labels)[1:]) or "none"),
        ("channels", names),
    ]


def _cases(examined: Examination, folder: Path, most: int) -> list[Thumbnail]:
    """Draw some cases, and return a thumbnail of each."""
    chosen = choose_cases(examined.cases, most)
    files: dict[str, Path] = {}
    with progress_bar() as bar:
        drawing = bar.add_task("drawing cases", total=len(chosen), note="")
        for inspected in chosen:
            name = inspected.case.name
            picture = folder / "overlays" / f"{name}.png"
            if draw_case(inspected, examined.labels, picture, examined.unit):
                files[name] = picture
            bar.advance(drawing)
    pictures = embed_all(files, "labels over the scan", THUMBNAIL, PICTURES_MIB)
    return tables.thumbnails(chosen, pictures, examined)


def _fingerprint(examined: Examination, folder: Path) -> Picture | None:
    """Draw spacings, sizes, labels and intensities; None where no training case is labelled."""
    train = usable_of(examined.parts["train"])
    if not examined.labels or not any(case.foreground.size for case in train):
        return None
    file = folder / "fingerprint.png"
    channels = examined.dataset.channels
    if len(channels) != len(train[0].foreground):
        channels = [f"{channels[0]} {number}" for number in range(len(train[0].foreground))]
    shown = facts(train, usable_of(examined.parts["val"]), dict(examined.labels), channels)
    draw_fingerprint(shown, file, examined.units)
    return embed(file, "size, spacing, labels and intensities of the cases", WIDTH)

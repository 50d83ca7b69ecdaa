"""A CSV, TSV or JSON table with a row per case."""

from collections.abc import Sequence
from pathlib import Path

from segpipe.config.data import COLUMNS, Data
from segpipe.data.cases import Case, Dataset, check_files, name_of
from segpipe.data.layouts.base import Layout, existing_root, layout_hint
from segpipe.data.tables import COLUMNS as TAKEN
from segpipe.data.tables import TABLES, TableRow, find_tables, read_rows
from segpipe.errors import ConfigError, DataError
from segpipe.registry import LAYOUTS
from segpipe.text import closest

SPLITS = ("train", "val", "test")


@LAYOUTS.register("table", help="a CSV, TSV or JSON file with a row per case")
class Table(Layout):
    """A table that names the files of each case; `data.root` is the file or its folder."""

    signs = tuple(f"*{ending}" for ending in TABLES)

    def is_meant(self, data: Data) -> bool:
        """Return whether columns are given, or `data.root` is a table."""
        root = data.root
        is_table = root is not None and root.is_file() and root.suffix.lower() in TABLES
        return data.columns is not None or is_table

    def looks_like(self, root: Path) -> bool:
        """Return whether the folder holds a table, other than those that BIDS has."""
        is_bids = (root / "participants.tsv").is_file() or bool(list(root.glob("sub-*/")))
        return root.is_dir() and not is_bids and bool(find_tables(root))

    def read(self, data: Data) -> Dataset:
        """Read the cases of the table."""
        file = _table_file(existing_root(data))
        rows = read_rows(file, data.columns)
        _check_columns(rows[0])
        cases: list[Case] = []
        test: list[Case] = []
        for row in rows:
            part = test if _split_of(row) == "test" else cases
            part.append(_case_of(row))
        check_files(file, [*cases, *test])
        if not cases:
            raise DataError(
                f"{file}: all {len(rows)} rows have the split test; there is nothing to train on"
            )
        _check_channels(file, [*cases, *test])
        cases.sort(key=name_of)
        test.sort(key=name_of)
        return Dataset(file.stem, tuple(cases), tuple(test), None, ("image",))


def _table_file(root: Path) -> Path:
    """Return the table that `root` is, or the only one that it holds."""
    if root.is_file():
        return root
    tables = find_tables(root)
    if not tables:
        hint = layout_hint(root)
        if hint:
            raise ConfigError(f"data.root={root}: holds no table, so it is not data=table{hint}")
    if len(tables) != 1:
        raise ConfigError(
            f"data.root={root}: holds {len(tables)} tables (*.csv, *.tsv, *.json); name the one to "
            "use"
        )
    return tables[0]


def _check_columns(row: TableRow) -> None:
    if "label" not in row.values:
        raise DataError(
            f"{row.file}: has no column label, but {', '.join(row.values)}; say which columns are "
            "meant, as in 'data.columns={case:Subject,image:Image,label:Mask}'"
        )
    for column in row.values:
        similar = closest(column.lower(), COLUMNS, 0.75)
        if similar and similar[0] not in row.values and not TAKEN.fullmatch(column):
            raise DataError(f"{row.file}: has a column {column}; did you mean {similar[0]}?")


def _check_channels(file: Path, cases: Sequence[Case]) -> None:
    examples = {len(case.images): case.name for case in cases}
    if len(examples) > 1:
        found = ", ".join(f"{count} in {name}" for count, name in sorted(examples.items()))
        raise DataError(
            f"{file}: the cases have different numbers of images: {found}; each needs the same "
            "channels"
        )


def _split_of(row: TableRow) -> str | None:
    split = row.values.get("split") or None
    if isinstance(split, str):
        split = split.strip().lower() or None
    if split is not None and split not in SPLITS:
        raise DataError(
            f"{row.file}: row {row.number} has the split {split!r}; it must be "
            f"{', '.join(SPLITS)} or empty"
        )
    return split


def _case_of(row: TableRow) -> Case:
    split = _split_of(row)
    label = row.label()
    images = row.images()
    if not label and split != "test":
        raise DataError(
            f"{row.file}: row {row.number} has no label; each row needs an image and a label"
        )
    group = row.values.get("group")
    return Case(
        name=row.case_name(images),
        images=images,
        label=label,
        group=None if group in (None, "") else str(group),
        split=None if split == "test" else split,
    )

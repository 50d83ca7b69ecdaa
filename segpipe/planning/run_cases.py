"""The cases of a run: found, divided, and inspected before anything is trained on them."""

from pathlib import Path

from segpipe.config.train import Train
from segpipe.data.datasets import open_for_training, select_cases, split_dataset
from segpipe.data.doctor import inspect_dataset, refuse_errors
from segpipe.data.inspected_case import InspectedCase
from segpipe.planning.case_record import CaseRecord


class RunCases:
    """The dataset of a run and its two parts; a resumed run keeps its split.

    Args:
        options: the run's options.
        folder: the run's folder.

    Attributes:
        options: the same, with the layout and the labels that the dataset was found to have.
        dataset: the dataset of the run.
        train: training cases.
        val: validation cases.

    Raises:
        ConfigError: if a resumed run's cases are not there any more, or there are others.
    """

    def __init__(self, options: Train, folder: Path) -> None:
        self.folder = folder
        self.options, self.dataset = open_for_training(options)
        self._begun_with: CaseRecord | None = None
        if options.resume is None:
            self._split = split_dataset(self.dataset, self.options.data)
        else:
            self._begun_with = CaseRecord.read(folder, self.dataset, self.options.data)
            self._split = self._begun_with.split_now(self.dataset, folder, options.resume_changed)
        self.train, self.val = select_cases(self.dataset, self._split)

    def inspect(self) -> tuple[list[InspectedCase], list[InspectedCase]]:
        """Return training and validation cases as inspected, and write `split.json`.

        Raises:
            DataError: if a case has an error.
            ConfigError: if a resumed run's cases hold something else now.
        """
        cases, _ = inspect_dataset(
            self.dataset, self.train, self.val, self.options.data, self.folder
        )
        refuse_errors(cases)
        record = CaseRecord.of(self.dataset, self._split, cases)
        if self._begun_with is not None and not self.options.resume_changed:
            self._begun_with.check_contents(record, self.folder)
        record.write(self.folder)
        number = len(self.train)
        return cases[:number], cases[number:]

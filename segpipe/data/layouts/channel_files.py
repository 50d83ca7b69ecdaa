"""Cases with a file per channel; its name ends in the channel's number, as `_0000`, `_0001`."""

from dataclasses import dataclass, field
from pathlib import Path

from segpipe.data.cases import Case
from segpipe.errors import DataError


@dataclass(frozen=True)
class ChannelFiles:
    """The image files of a folder, by case and by channel suffix.

    Attributes:
        folder: the folder of the files.
        files: case name -> suffix -> file; the suffix is empty where a single file has none.
    """

    folder: Path
    files: dict[str, dict[str, Path]] = field(default_factory=dict)

    def add(self, case: str, suffix: str, file: Path) -> None:
        """Add the file of one channel."""
        self.files.setdefault(case, {})[suffix] = file

    def most_channels(self) -> int:
        """Return the largest number of channels of any case."""
        return max(map(len, self.files.values()))

    def check(self, channels: int) -> None:
        """Check that each case has exactly these channels; a single one needs no suffix.

        Raises:
            DataError: with the first case that has too few or too many.
        """
        required = list(map("_{:04d}".format, range(channels)))
        for case, files in self.files.items():
            if sorted(files) == required or (channels == 1 and list(files) == [""]):
                continue
            missing = [suffix for suffix in required if suffix not in files]
            problem = f"lacks {', '.join(missing)}" if missing else "has too many channels"
            found = ", ".join(path.name for path in files.values())
            raise DataError(
                f"{self.folder}: case {case} {problem}: here a case has {', '.join(required)}; "
                f"found {found}"
            )

    def cases(self, labels: dict[str, Path]) -> tuple[Case, ...]:
        """Return the cases by name, their channels in the order of the suffixes.

        Args:
            labels: case name -> label map, of those cases that have one.
        """
        cases = []
        for name, files in sorted(self.files.items()):
            images = dict(sorted(files.items())).values()
            cases.append(Case(name, tuple(images), labels.get(name)))
        return tuple(cases)

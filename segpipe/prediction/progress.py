"""Progress of a batch of predictions in the terminal."""

import logging
from types import TracebackType

from segpipe.terminal import progress_bar
from segpipe.text import visible

log = logging.getLogger("segpipe")


class BatchProgress:
    """Progress bars of a batch; where there is no terminal, a line for each scan.

    Args:
        total: number of the scans.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.shares: dict[str, float] = {}  # of the scans in hand: how much of each is computed
        self.bar = progress_bar()
        self.scans = self.bar.add_task("scans", total=total, note="")
        self.windows = self.bar.add_task("windows", total=1, visible=False, note="")

    def __enter__(self) -> "BatchProgress":
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def start(self, name: str) -> None:
        """Show the name of the next scan."""
        self.shares[name] = 0.0
        self.bar.reset(self.windows, description="windows", note=visible(name))

    def report(self, name: str, done: int, total: int) -> None:
        """Show how many of a scan's windows are done."""
        self.shares[name] = done / total
        self._show()
        self.bar.update(self.windows, completed=done, total=total, note=visible(name), visible=True)

    def drop(self, name: str) -> None:
        """Show that what is computed of a scan is lost."""
        self.shares.pop(name, None)
        self._show()

    def finish(self, name: str) -> None:
        """Show that a scan is done."""
        self.done += 1
        self.drop(name)
        if self.bar.disable:
            log.info("%d of %d: %s", self.done, self.total, name)

    def _show(self) -> None:
        self.bar.update(self.scans, completed=self.done + sum(self.shares.values()))

"""This call and the others that work on the same folder of predictions, on any machine.

Each call has a file in the output that it touches while it runs. A claim names the call that holds
it, so that one file says for all claims of a call whether they still count.
"""

import itertools
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segpipe.errors import ConfigError, DataError
from segpipe.files import write_text
from segpipe.lock import Holder, own_facts, read_holder, remove, showing_life
from segpipe.prediction.records import key_of
from segpipe.processes import HOST

log = logging.getLogger("segpipe")
CALLS = ".segpipe/calls"
CLAIMS = ".segpipe/claims"
_numbers = itertools.count()


class Calls:
    """The calls at work on a folder of predictions.

    Args:
        output: the folder.
        settings: name of what this call's masks depend on, beside their scans; empty for a call
            that makes none.
        shares: whether the calls share the scans.
        family: name of the call that this one is a worker of; workers do not speak of each other.
    """

    def __init__(
        self, output: Path, settings: str = "", shares: bool = True, family: str = ""
    ) -> None:
        self.output = output
        self.settings = settings
        self.shares = shares
        self.name = f"{HOST}-{os.getpid()}-{next(_numbers)}.json"
        self.family = family or self.name

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Be one of the calls while the block runs; name the others in the log.

        Raises:
            ConfigError: if another call makes its masks in another way.
            DataError: if the folder cannot be written to.
        """
        sign = self.output / CALLS / self.name
        write_text(sign, json.dumps(own_facts(settings=self.settings, family=self.family)))
        with showing_life(sign):
            self._greet()
            yield

    def others(self) -> list[Holder]:
        """Return the other calls that are alive; what those that are gone left is removed."""
        found = []
        for file in sorted((self.output / CALLS).glob("*.json")):
            holder = read_holder(file)
            if file.name == self.name or holder is None:
                continue
            if holder.is_gone:
                file.unlink(missing_ok=True)
            else:
                found.append(holder)
        return found

    def claim(self, name: str) -> bool:
        """Return whether this call may do what has this name: no other that is alive claims it.

        Raises:
            DataError: if the folder cannot be written to.
        """
        file = self._claim_file(name)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            for _ in range(2):
                if _created(file, self.name):
                    return True
                left = self._left_behind(file)
                if left is None:
                    return False
                remove(file, left)
        except OSError as error:
            raise DataError(f"{file}: cannot be written ({error.strerror})") from None
        return False

    def release(self, name: str) -> None:
        """Give back what this call has claimed."""
        remove(self._claim_file(name), self.name.encode())

    def _greet(self) -> None:
        for holder in self.others():
            if holder.facts.get("family") == self.family:
                continue
            since = holder.facts.get("since")
            settings = holder.facts.get("settings")
            if settings and self.settings and settings != self.settings:
                raise ConfigError(
                    f"output={self.output}: {holder} has written masks into it since {since} with "
                    "another checkpoint or other options; wait for it, or choose another folder"
                )
            if self.family != self.name:  # the call of which this is a worker has said it
                continue
            log.info("%s: %s has worked in it since %s", self.output, holder, since)
            if not self.shares:
                log.warning(
                    "nothing is lost, but scans may be computed twice; claim=true or shard=I/N of "
                    "all calls shares them"
                )

    def _claim_file(self, name: str) -> Path:
        return self.output / CLAIMS / key_of(name)

    def _left_behind(self, claim: Path) -> bytes | None:
        """Return the content of a claim whose call is gone; None where the call is alive."""
        try:
            content = claim.read_bytes()
        except FileNotFoundError:
            return b""
        if not content:  # read while it is written, or never finished: its age decides
            holder = read_holder(claim)
        else:
            call = Path(content.decode("utf-8", errors="replace")).name
            holder = read_holder(self.output / CALLS / call)
        return content if holder is None or holder.is_gone else None


def _created(file: Path, text: str) -> bool:
    """Return whether a file was made, which was not there before."""
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        return False
    return True

"""Folders of object stores and web servers, such as `s3://BUCKET/SCANS`, through fsspec.

Credentials are left to the client of each protocol, which takes them from the environment or from
its own files: an address that holds any is refused.
"""

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from segpipe.errors import ConfigError, DataError
from segpipe.files import part_name
from segpipe.text import clipped, first_line, visible

log = logging.getLogger("segpipe")
ADDRESS = re.compile(r"(?P<protocol>[a-z][a-z0-9+.\-]+):/+(?P<rest>.*)", re.DOTALL)
# whose uploads appear whole or not at all; elsewhere files are renamed once they are whole
ATOMIC = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"}
READ_ONLY = {"http", "https"}
# what clients call that which changes with the content of a file, the best first
VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "generation", "Last-Modified")
TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")
SECRETS = re.compile(r"\?[^\s'\"<>)]+|(?<=//)[^\s/@'\"]+@")  # of addresses within messages
ATTEMPTS = 6
PAUSE_S = 0.5  # before the second attempt; then twice as long each time
AT_ONCE = 500  # files of which the contents are asked for at once
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
# whose lines say where they found credentials, and with verbose=true what they sent
CHATTY = ("botocore", "aiobotocore", "boto3", "s3fs", "gcsfs", "adlfs", "azure", "fsspec", "google")
Result = TypeVar("Result")


class RemoteError(DataError):
    """A file of an object store that could not be read or written, so that it is tried again."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a remote folder.

    Attributes:
        name: its path below the folder.
        size: its size in bytes; None where the server does not tell.
        version: changes with the content; empty where the server tells none.
    """

    name: str
    size: int | None
    version: str


def is_address(given: object) -> bool:
    """Return whether a path is an address; of a `Path`, which keeps one slash, too."""
    return ADDRESS.fullmatch(str(given)) is not None


def full(given: object) -> str:
    """Return an address as it was typed, from a text or from a `Path`."""
    found = ADDRESS.fullmatch(str(given))
    assert found is not None
    slashes = ":///" if found["protocol"] == "file" else "://"
    return f"{found['protocol']}{slashes}{found['rest']}"


class RemoteFolder:
    """A folder of an object store or a web server.

    Args:
        address: its address.
        key: the key of the config, for messages.

    Raises:
        ConfigError: if the address holds a key, or its protocol is unknown or not installed.
    """

    def __init__(self, address: str, key: str) -> None:
        _check_address(address, key)
        self.address = address.rstrip("/")
        self.protocol = address.partition("://")[0]
        self.client, self.root = _client(address, key)

    def files(self, depth: int | None = None) -> Iterator[RemoteFile]:
        """Yield the files of the folder, and of those inside it.

        Args:
            depth: the levels of folders that are searched; None: all.

        Raises:
            RemoteError: if the server cannot be asked.
            DataError: if it refuses.
        """
        self.client.invalidate_cache()
        found = self._retried("", lambda: self.client.find(self.root, maxdepth=depth, detail=True))
        for path in sorted(found):
            name = path[len(self.root) :].lstrip("/")
            if name and path.startswith(self.root) and not path.endswith("/"):
                yield _as_file(name, found[path])

    def file(self, name: str) -> RemoteFile:
        """Return a file as it is now.

        Raises:
            RemoteError: if the server cannot be asked.
            DataError: if it refuses, or there is none.
        """
        return _as_file(name, self._retried(name, lambda: self.client.info(self._path(name))))

    def fetch(self, file: RemoteFile, target: Path) -> None:
        """Copy a file to this machine; one that arrives cut is asked for again.

        Raises:
            RemoteError: if it does not arrive.
            DataError: if there is none, or the server refuses.
        """

        def get() -> None:
            self.client.get_file(self._path(file.name), str(target))
            size = target.stat().st_size
            if file.size is not None and size != file.size:
                raise ConnectionError(f"{size} of {file.size} bytes have arrived")

        self._retried(file.name, get)

    def send(self, source: Path, name: str) -> None:
        """Copy a file of this machine into the folder; readers see the whole of it or nothing.

        Raises:
            RemoteError: if it cannot be sent.
            DataError: if the server refuses.
        """
        path = self._path(name)

        def put() -> None:
            if self.protocol in ATOMIC:
                self.client.put_file(str(source), path)
                return
            parent, _, last = path.rpartition("/")
            part = f"{parent}/{part_name(last)}"
            self.client.makedirs(parent, exist_ok=True)
            try:
                self.client.put_file(str(source), part)
                self.client.mv(part, path)
            except Exception:
                self._discard(part)
                raise

        self._retried(name, put)

    def contents(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Yield names and contents of small files; one that is gone meanwhile is left out.

        Raises:
            RemoteError: if one does not arrive.
            DataError: if the server refuses.
        """
        for start in range(0, len(names), AT_ONCE):
            some = names[start : start + AT_ONCE]
            found = self._retried("", lambda some=some: self._cat(some))
            yield from found

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        self._discard(self._path(name))

    def _cat(self, names: Iterable[str]) -> list[tuple[str, bytes]]:
        paths = {self._path(name): name for name in names}
        found: list[tuple[str, bytes]] = []
        for path, content in self.client.cat(list(paths), on_error="return").items():
            if isinstance(content, FileNotFoundError):
                continue
            if isinstance(content, Exception):
                raise content
            found.append((paths[path], content))
        return found

    def _discard(self, path: str) -> None:
        try:
            self.client.rm_file(path)
        except Exception as error:  # it may not be there, or the connection may be cut
            log.debug("%s: not removed (%s)", path, plain(error))

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def _retried(self, name: str, action: Callable[[], Result]) -> Result:
        """Return the result of an action, tried again after a while where it fails."""
        place = f"{self.address}/{name}" if name else self.address
        cause = ""
        for attempt in range(ATTEMPTS):
            try:
                return action()
            except FINAL as error:
                known = error.strerror or plain(error)
                raise DataError(f"{place}: {known}") from None
            except Exception as error:  # each client raises types of its own
                cause = plain(error)
            log.debug("%s: attempt %d has failed (%s)", place, attempt + 1, cause)
            if attempt + 1 < ATTEMPTS:
                time.sleep(PAUSE_S * 2**attempt)
        raise RemoteError(f"{place}: {ATTEMPTS} attempts have failed ({cause})")


def plain(error: Exception) -> str:
    """Return the first line of an error without what an address may hold of keys."""
    return clipped(visible(SECRETS.sub("", first_line(error) or type(error).__name__)))


def _check_address(address: str, key: str) -> None:
    """Check that an address holds no key, which would stand in the history of the shell.

    Raises:
        ConfigError: if it does, or names several protocols.
    """
    protocol, _, rest = address.partition("://")
    user, at, _ = rest.partition("/")[0].rpartition("@")
    if at and (protocol in READ_ONLY or ":" in user):
        raise ConfigError(
            f"{key}={protocol}://...: a user name or a key does not belong into an address; give "
            "it by the environment, or by the files of the protocol's client"
        )
    if protocol in READ_ONLY and "?" in rest:
        raise ConfigError(f"{key}={protocol}://...: what follows ? is not supported")
    if "::" in address:
        raise ConfigError(f"{key}={protocol}://...: give one address, without ::")


def _client(address: str, key: str) -> tuple[Any, str]:
    """Return fsspec's client of an address, and its path there."""
    protocol = address.partition("://")[0]
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        from fsspec.core import url_to_fs

        client, root = url_to_fs(address)
    except ImportError as error:
        raise ConfigError(
            f"{key}={address}: {protocol}:// needs a package that is not installed "
            f"({plain(error)}): pip install 'segpipe[remote]'"
        ) from None
    except Exception as error:  # ValueError of an unknown protocol, and whatever a client raises
        raise ConfigError(f"{key}={address}: {plain(error)}") from None
    return client, str(root).rstrip("/")


def _as_file(name: str, info: dict[str, Any]) -> RemoteFile:
    """Return a file from what a client says of it."""
    size = info.get("size")
    found = [str(info[key]) for key in (*VERSIONS, *TIMES) if info.get(key)]
    return RemoteFile(name, size, found[0] if found else "")

"""Checkpoints of the Hugging Face Hub: `hf://ORG/NAME@COMMIT`, one file of one commit."""

import hashlib
import logging
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from segpipe.errors import ConfigError
from segpipe.text import first_line

log = logging.getLogger("segpipe")
PREFIX = re.compile(r"hf:/+")  # a `Path` keeps one slash
NAME = r"[A-Za-z0-9][\w.\-]*"
ADDRESS = re.compile(
    rf"(?P<repository>{NAME}/{NAME})(?P<file>(/{NAME})*/{NAME}\.ckpt)?"
    r"(@(?P<revision>[\w.\-]+))?(:(?P<sha256>[0-9a-f]{64}))?"
)
COMMIT = re.compile("[0-9a-f]{40}")
USUAL_FILE = "best.ckpt"


@dataclass(frozen=True)
class HubFile:
    """A file of the hub.

    Attributes:
        repository: its `ORG/NAME`.
        file: its path there.
        commit: the commit of its repository, 40 hexadecimal digits.
        sha256: the SHA-256 of the file, where the address names it; else empty.
    """

    repository: str
    file: str
    commit: str
    sha256: str


def is_on_hub(path: Path) -> bool:
    """Return whether a path is an address of the hub."""
    return PREFIX.match(str(path)) is not None


def parse(path: Path) -> HubFile:
    """Return the file that an address means.

    Raises:
        ConfigError: if it is no such address, or names no commit: what a branch means may change.
    """
    text = PREFIX.sub("", str(path), count=1)
    found = ADDRESS.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"hf://{text}: is no address of a checkpoint; give hf://ORG/NAME[/FILE.ckpt]@COMMIT, "
            "and :SHA256 behind it where you know it"
        )
    commit = found["revision"] or ""
    if not COMMIT.fullmatch(commit):
        raise ConfigError(
            f"hf://{text}: names no commit, so that the weights may change: give @COMMIT, the 40 "
            f"digits of https://huggingface.co/{found['repository']}/commits/main"
        )
    file = (found["file"] or f"/{USUAL_FILE}").removeprefix("/")
    return HubFile(found["repository"], file, commit, found["sha256"] or "")


@lru_cache(maxsize=64)
def fetch(path: Path) -> Path:
    """Return the local copy of a checkpoint of the hub, downloaded where it is not there yet.

    Nothing of it is opened here: it is read as any checkpoint is.

    Args:
        path: `hf://ORG/NAME[/FILE.ckpt]@COMMIT[:SHA256]`.

    Raises:
        ConfigError: if the address is wrong, huggingface_hub is missing, the file cannot be had, or
            its content is not that of the hash.
    """
    wanted = parse(path)
    try:
        import huggingface_hub  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigError(
            "checkpoint=hf://...: huggingface_hub is not installed: pip install 'segpipe[hub]'"
        ) from None
    try:
        file = huggingface_hub.hf_hub_download(
            repo_id=wanted.repository, filename=wanted.file, revision=wanted.commit
        )
    except Exception as error:  # the hub's client raises many types, also of its HTTP library
        raise ConfigError(
            f"hf://{wanted.repository}: {wanted.file} cannot be had ({first_line(error)[:200]})"
        ) from None
    _check_content(wanted, Path(file))
    return Path(file)


def _check_content(wanted: HubFile, file: Path) -> None:
    """Check that a file has the content that its address names, or name that in the log.

    Raises:
        ConfigError: if it has another.
    """
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if not wanted.sha256:
        log.info("hf://%s: SHA-256 %s; :SHA256 in the address pins it", wanted.repository, found)
    elif found != wanted.sha256:
        raise ConfigError(
            f"hf://{wanted.repository}: {wanted.file} has the SHA-256 {found}, not the one of the "
            "address; do not trust it"
        )

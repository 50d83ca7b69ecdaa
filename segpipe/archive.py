"""A file of `torch.save` that anybody may have written, checked before it is believed.

Such a file is a zip archive: a pickle, and a record for each tensor. Nothing is unpacked that is
larger than the file, no object is made but plain values and tensors, and a damaged byte is found
by the checksums.
"""

import pickletools
import zipfile
from collections import Counter
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segpipe.errors import ConfigError

MOST_PICKLE_BYTES = 2**24  # of what is beside the tensors; a large network has a fifth of it
MOST_STEPS = 2_000_000  # of the pickle; a tensor takes about 25
MADE = {  # what the pickle may make, beside the types of `torch` that name a tensor's numbers
    "collections OrderedDict",
    "collections defaultdict",
    "collections Counter",
    "builtins set",
    "torch Size",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
}


def read(
    file: Path, weights: str = "state_dict", made: AbstractSet[str] = frozenset()
) -> dict[str, Any]:
    """Return the content of a checkpoint's file; its tensors stay in the file until they are used.

    Args:
        file: the file to read.
        weights: the key of its tensors.
        made: what its pickle may make beside plain values and tensors, as `module name`; torch
            must be told of it by `torch.serialization.safe_globals`.

    Raises:
        ConfigError: if it is damaged, holds what only an attacker writes, or is another program's.
    """
    try:
        records = _check(file, MADE | made)
        stored = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror})") from None
    except Exception:  # zipfile and the unpickler meet a damaged file with whatever they trip over
        raise _damaged(file) from None
    if not isinstance(stored, dict):
        raise ConfigError(f"{file}: is a file of torch, but not a checkpoint of segpipe")
    _check_tensors(file, stored.get(weights), records)
    return stored


def _check(file: Path, made: AbstractSet[str]) -> Counter[int]:
    """Check a file's archive and its pickle, and return how many records of each size it has.

    Raises:
        ConfigError: naming what is wrong.
    """
    size = file.stat().st_size
    if not zipfile.is_zipfile(file):
        raise _damaged(file)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        names = {entry.filename for entry in entries}
        unpacked = sum(entry.file_size for entry in entries)
        if packed or len(names) < len(entries) or unpacked > size:
            raise ConfigError(f"{file}: is packed, which a checkpoint never is; do not trust it")
        broken = archive.testzip()
        if broken is not None:
            raise ConfigError(
                f"{file}: is damaged: the checksum of {broken!r} is wrong; copy it again"
            )
        pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise _damaged(file)
        if pickles[0].file_size > MOST_PICKLE_BYTES:
            raise ConfigError(f"{file}: holds far more beside its weights than a checkpoint does")
        _check_pickle(file, archive.read(pickles[0]), made)
    return Counter(entry.file_size for entry in entries if "/data/" in entry.filename)


def _check_pickle(file: Path, content: bytes, made: AbstractSet[str]) -> None:
    for number, (step, argument, _) in enumerate(pickletools.genops(content)):
        if number > MOST_STEPS:
            raise ConfigError(f"{file}: holds far more beside its weights than a checkpoint does")
        if step.name == "GLOBAL" and not _is_plain(str(argument), made):
            name = str(argument).replace(" ", ".")
            raise ConfigError(
                f"{file}: holds {name[:60]!r}, which a checkpoint never does; do not trust it"
            )


def _is_plain(name: str, made: AbstractSet[str]) -> bool:
    """Return whether a pickle's `module name` is of plain values and tensors alone."""
    module, _, kind = name.partition(" ")
    if module == "torch":
        of_numbers = isinstance(getattr(torch, kind, None), torch.dtype)
        return name in made or of_numbers or kind.endswith("Storage")
    return name in made


def _check_tensors(file: Path, weights: object, records: Counter[int]) -> None:
    """Check that every weight is of plain numbers, and all of them are in the file.

    Raises:
        ConfigError: otherwise.
    """
    values = weights.values() if isinstance(weights, dict) else []
    seen = set()
    for tensor in values:
        if not isinstance(tensor, Tensor):
            continue
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_complex():
            raise ConfigError(f"{file}: holds weights that are no plain numbers; do not trust it")
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen and storage.nbytes():
            seen.add(storage.data_ptr())
            records[storage.nbytes()] -= 1
        declared = tensor.numel() * tensor.element_size()
        if declared > storage.nbytes() or records[storage.nbytes()] < 0:
            raise ConfigError(f"{file}: declares other weights than it holds; do not trust it")


def _damaged(file: Path) -> ConfigError:
    size = file.stat().st_size
    return ConfigError(f"{file}: is not a checkpoint, or is cut short ({size} bytes)")

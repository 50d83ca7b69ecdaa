"""Checkpoints as an attacker or a broken disk leaves them; opened in a process with limits.

python -m support.hostile FOLDER     opens all of FOLDER and prints a line of JSON for each
"""

import copy
import io
import json
import pickle
import resource
import signal
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from support.config import composed
from support.plans import plan as make_plan
from torch import nn

from segpipe.checkpoint import KEY, NETWORK, TrainedOn, metadata
from segpipe.config.model import MonaiModel
from segpipe.nets.build import build

SECONDS = 30  # for one checkpoint, on a busy machine
WRONG: dict[str, Any] = {
    "none": None,
    "text": "\x1b[31m[/b]$",
    "negative": -1,
    "zero": 0,
    "huge": 10**9,
    "larger": 10**30,
    "float": 0.37,
    "nan": float("nan"),
    "list": [],
    "long": [1] * 20_000,
    "nested": [[[1]]],
    "dict": {"x": 1},
    "true": True,
}
IN_NETWORK = ("none", "text", "negative", "huge", "nan", "nested", "dict")
Stored = dict[str, Any]


def stored_checkpoint() -> Stored:
    """Return the content of a whole checkpoint of a small network."""
    options = composed("model.channels=[2,4]", "model.convs=1", "data=folder", "data.root=scans")
    plan = make_plan("plan.patch=[16,16,16]")
    network = build(options.model, 1, plan.outputs, plan.strides, plan.kernels)
    data = TrainedOn("set", "c0ffee", 8, 2)
    about = metadata(options.model_dump(mode="json"), plan, data, {"core": 0.5})
    return {"state_dict": _named(network), "global_step": 7, KEY: about}


def monai_checkpoint(network: str, levels: int, **arguments: Any) -> Stored:
    """Return a checkpoint that names a network of MONAI, with weights of some small one."""
    stored = stored_checkpoint()
    model = MonaiModel(network=network, dims=3, levels=levels, arguments=arguments)
    stored["state_dict"] = {f"{NETWORK}{index}": torch.ones(4, 4) for index in range(20)}
    stored[KEY]["config"]["model"] = model.model_dump()
    return stored


def _named(network: nn.Module) -> dict[str, Any]:
    return {NETWORK + name: weight for name, weight in network.state_dict().items()}


def leaves(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every entry: of dictionaries all, of lists the first."""
    if path:
        yield path
    if isinstance(values, dict):
        for key, inner in values.items():
            yield from leaves(inner, (*path, key))
    if isinstance(values, list | tuple) and values:
        yield from leaves(values[0], (*path, 0))


def put(values: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of nested values with another value at a path."""
    if not path:
        return value
    if isinstance(values, dict):
        return {**values, path[0]: put(values[path[0]], path[1:], value)}
    return [put(values[0], path[1:], value), *values[1:]]


def taken_out(values: Any, path: tuple[Any, ...]) -> Any:
    """Return a copy of nested values without what is at a path."""
    found = copy.deepcopy(values)
    inner = found
    for part in path[:-1]:
        if isinstance(inner[part], tuple):
            inner[part] = list(inner[part])
        inner = inner[part]
    del inner[path[-1]]
    return found


def wrong_fields(stored: Stored) -> Iterator[tuple[str, Stored]]:
    """Yield a checkpoint for every entry of plan, config and the rest, and every wrong value."""
    about = stored[KEY]
    for number, path in enumerate(leaves(about)):
        name = ".".join(map(str, path))
        in_network = path[0] == "plan" or path[:2] == ("config", "model")
        turned = IN_NETWORK[number % 3 :: 3] + IN_NETWORK[-1:]  # each kind in every third entry
        for kind in turned if in_network else ("nested",):
            yield f"{name} {kind}", {**stored, KEY: put(about, path, WRONG[kind])}
        if in_network:
            yield f"{name} gone", {**stored, KEY: taken_out(about, path)}


def wrong_networks(stored: Stored) -> Iterator[tuple[str, Stored]]:
    """Yield checkpoints whose network is absurd, or not that of its weights."""
    model = stored[KEY]["config"]["model"]
    absurd: dict[str, dict[str, Any]] = {
        "wide": {"channels": [10**9, 10**9]},
        "rather wide": {"channels": [20_000, 20_000]},
        "deep": {"channels": [2] * 100_000},
        "blocks": {"blocks": 10**6},
        "convs": {"convs": [10**6, 10**6]},
        "dense": {"short_skips": "dense", "growth_rate": 10**5, "convs": 10**4},
        "kernel": {"kernel": 999_999_999},
        "upsampling": {"up": "nearest", "up_kernel": 1_000_001},
        "other skips": {"long_skips": "none"},
        "block of an extension": {"block": "fancy"},
        "network of an extension": {"network": "fancy"},
        "bottleneck": {"block": "bottleneck", "blocks": 10**5},
    }
    for name, changed in absurd.items():
        config = stored[KEY]["config"] | {"model": model | changed}
        yield name, {**stored, KEY: stored[KEY] | {"config": config}}
    plan = stored[KEY]["plan"]
    deep = {"strides": [[1, 1, 1]] * 9_999, "kernels": [[3, 3, 3]] * 10_000}
    config = stored[KEY]["config"] | {"model": model | {"channels": [2] * 10_000}}
    about = stored[KEY] | {"config": config, "plan": plan | deep}
    yield "10,000 levels", {**stored, KEY: about}
    labels = {f"label {index}": index for index in range(1_000_000)}
    yield "labels", {**stored, KEY: stored[KEY] | {"plan": plan | {"labels": labels}}}


def wrong_monai() -> Iterator[tuple[str, Stored]]:
    """Yield checkpoints that name networks of MONAI."""
    yield (
        "monai pretrained",
        monai_checkpoint("FlexibleUNet", 2, backbone="efficientnet-b0", pretrained=True),
    )
    yield "monai default", monai_checkpoint("ResNetFeatures", 2, model_name="resnet18")
    yield "monai url", monai_checkpoint("HoVerNet", 2, pretrained_url="http://127.0.0.1:9/x")
    yield "monai hub", monai_checkpoint("TransChex", 2, weights="x")
    yield "monai wide", monai_checkpoint("UNet", 2, channels=[10**6, 10**6], strides=[2])
    yield "monai wider", monai_checkpoint("UNet", 2, channels=[10**12, 10**12], strides=[2])
    yield "monai deep", monai_checkpoint("UNet", 2, channels=[2] * 5_000, strides=[1] * 4_999)
    yield (
        "monai units",
        monai_checkpoint("UNet", 2, channels=[2, 4], strides=[2], num_res_units=10**6),
    )
    yield "monai sizes", monai_checkpoint("UNETR", 2, img_size=[10**6, 10**6, 10**6])
    yield "monai swin", monai_checkpoint("SwinUNETR", 2, feature_size=48 * 10**5)
    yield "monai types", monai_checkpoint("UNet", 2, channels="wide", strides=None)
    yield "monai class", monai_checkpoint("__class__", 2)
    yield "monai nothing", monai_checkpoint("", 2)


def wrong_weights(stored: Stored) -> Iterator[tuple[str, Stored]]:
    """Yield checkpoints whose weights are not those of the network."""
    weights = stored["state_dict"]
    first = next(iter(weights))
    value = weights[first]
    wrong: dict[str, Any] = {
        "nan": torch.full_like(value, float("nan")),
        "infinite": torch.full_like(value, float("inf")),
        "one nan": value.clone().index_fill_(0, torch.tensor([0]), float("nan")),
        "complex": value.to(torch.complex64),
        "sparse": value.to_sparse(),
        "expanded": torch.zeros(1).expand(10**9),
        "expanded in shape": torch.zeros(1).expand(value.shape),
        "transposed": value.transpose(0, 1),
        "scalar": torch.zeros(()),
        "text": "weights",
        "number": 3,
        "list": value.tolist(),
        "meta": torch.empty(value.shape, device="meta"),
        "none": None,
    }
    for name, weight in wrong.items():
        yield f"weight {name}", {**stored, "state_dict": {**weights, first: weight}}
    kept = {name: weight for name, weight in weights.items() if name != first}
    yield "weight gone", {**stored, "state_dict": kept}
    yield "weight more", {**stored, "state_dict": {**weights, NETWORK + "more": value}}
    yield "weight named by a number", {**stored, "state_dict": {**weights, 5: value}}
    shared = torch.zeros(2_000_000)
    many = {f"{NETWORK}{index}": shared for index in range(2_000)}
    yield "weights shared", {**stored, "state_dict": many}
    for name, value in {"none": None, "list": [1], "text": "x", "empty": {}}.items():
        yield f"state_dict {name}", {**stored, "state_dict": value}


def wrong_content(stored: Stored) -> Iterator[tuple[str, Any]]:
    """Yield content that is not that of a checkpoint."""
    for name, value in WRONG.items():
        if value is not None:
            yield f"segpipe {name}", {**stored, KEY: value}
        if name not in ("zero", "true"):
            yield f"global_step {name}", {**stored, "global_step": value}
    yield "a list", [stored]
    yield "a tensor", torch.zeros(3)
    yield "nothing", {}
    yield "schema 99", put(stored, (KEY, "schema"), 99)
    yield (
        "extension needed",
        put(stored, (KEY, "extensions"), [{"name": "mine.py", "sha256": "0" * 64, "source": "x"}]),
    )
    yield "extension cut", put(stored, (KEY, "extensions"), [{"name": "mine.py"}])
    reasons = (KEY, "plan", "reasons")
    yield "key of a number", put(stored, (KEY, "dice"), {3: 0.5})
    laughs: Any = ["ha"]
    for _ in range(30):
        laughs = [laughs] * 10
    yield "billion laughs", put(stored, reasons, laughs)
    yield "itself", put(stored, reasons, _endless())
    yield "many values", put(stored, reasons, [0] * 3_000_000)


def _endless() -> list[Any]:
    values: list[Any] = []
    values.append(values)
    return values


class Evil:
    """Runs a command where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what the unpickler calls."""
        return Path.touch, (Path("evil"),)


def saved(content: Any) -> bytes:
    """Return what `torch.save` writes."""
    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


def archive(entries: dict[str, bytes], packed: bool = False) -> bytes:
    """Return a zip file of these entries."""
    out = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", method) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return out.getvalue()


def unpacked(content: bytes) -> dict[str, bytes]:
    """Return the entries of a zip file."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return {name: file.read(name) for name in file.namelist()}


def broken_files(stored: Stored) -> Iterator[tuple[str, bytes]]:
    """Yield files that are damaged, or that no `torch.save` writes."""
    whole = saved(stored)
    entries = unpacked(whole)
    yield "empty", b""
    yield "text", b"weights\n" * 99
    yield "half", whole[: len(whole) // 2]
    yield "last byte gone", whole[:-1]
    yield "only the end", whole[len(whole) // 2 :]
    first = stored["state_dict"][f"{NETWORK}stem.0.0.0.weight"]
    weights = whole.index(first.numpy().tobytes()[:64])
    yield "zeroed weights", whole[:weights] + bytes(64) + whole[weights + 64 :]
    middle = len(whole) // 2
    yield "zeroed block", whole[:middle] + bytes(4096) + whole[middle + 4096 :]
    for place in range(1, 10):
        at = len(whole) * place // 10
        yield f"flipped bit {place}", whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    yield "gzip", b"\x1f\x8b" + whole
    yield "pickle", pickle.dumps({"state_dict": {}})
    legacy = io.BytesIO()
    torch.save(stored, legacy, _use_new_zipfile_serialization=False)
    yield "legacy", legacy.getvalue()
    yield "evil pickle", pickle.dumps(Evil())
    pickled = next(name for name in entries if name.endswith("data.pkl"))
    yield "evil archive", archive({**entries, pickled: pickle.dumps(Evil(), 2)})
    yield "packed", archive(entries, packed=True)
    bomb = next(name for name in entries if "/data/" in name)
    yield "bomb", archive({**entries, bomb: bytes(40_000_000)}, packed=True)
    for name, content in _pickles().items():
        yield name, archive({**entries, pickled: content})
    small = {
        name: content[: len(content) // 2] for name, content in entries.items() if "/data/" in name
    }
    yield "records cut", archive({**entries, **small})
    without = {name: content for name, content in entries.items() if "/data/" not in name}
    yield "records gone", archive(without)
    yield "no pickle", archive({name: entries[name] for name in entries if name != pickled})
    yield "two pickles", archive({**entries, "other/data.pkl": entries[pickled]})
    yield "big endian", archive({**entries, pickled.replace("data.pkl", "byteorder"): b"big"})


def _pickles() -> dict[str, bytes]:
    """Return pickles of few bytes that would make much, or call something."""
    large = (10**12).to_bytes(8, "little")
    deep = 100_000
    return {
        "bytearray": b"\x80\x02cbuiltins\nbytearray\n\x8a\x08" + large + b"\x85R.",
        "bytes": b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00xX\x06\x00\x00\x00latin1\x86R.",
        "deep": b"\x80\x02" + b"]" * deep + b"a" * (deep - 1) + b".",
        "deep dicts": b"\x80\x02" + b"}K\x01" * deep + b"}" + b"s" * deep + b".",
        "many lists": b"\x80\x02(" + b"]" * 4_000_000 + b"l.",
        "large": b"\x80\x02X" + (30_000_000).to_bytes(4, "little") + bytes(30_000_000) + b".",
        "declared": b"\x80\x02X" + (2**31).to_bytes(4, "little") + b"x.",
        "empty pickle": b"",
        "no end": b"\x80\x02]",
        "eval": b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.",
        "storage": b"\x80\x02ctorch\nUntypedStorage\n\x8a\x08" + large + b"\x85R.",
        "tensor": b"\x80\x02ctorch\nFloatTensor\n\x8a\x08" + large + b"\x85R.",
    }


def all_hostile() -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of every checkpoint."""
    stored = stored_checkpoint()
    makers = [wrong_fields, wrong_networks, wrong_weights, wrong_content]
    for make in makers:
        for name, content in make(stored):
            yield name, saved(content)
    for name, content in wrong_monai():
        yield name, saved(content)
    yield from broken_files(stored)


def write_hostile(folder: Path) -> list[str]:
    """Write a whole checkpoint and all others into a folder, and return the names of those."""
    (folder / "whole.ckpt").write_bytes(saved(stored_checkpoint()))
    names = []
    for name, content in all_hostile():
        (folder / f"{name}.ckpt").write_bytes(content)
        names.append(name)
    return names


def open_all(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Open every checkpoint of a folder, and yield what became of each."""
    from segpipe.checkpoint import load
    from segpipe.errors import ConfigError

    load(folder / "whole.ckpt")
    for file in sorted(folder.glob("*.ckpt")):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        signal.alarm(SECONDS)
        try:
            load(file)
            outcome = "loaded"
        except ConfigError as error:
            outcome = str(error)
        except BaseException as error:
            outcome = f"Traceback {type(error).__name__}: {error}"
        signal.alarm(0)
        seconds = time.perf_counter() - start
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        yield file.stem, {"outcome": outcome, "seconds": seconds, "mib": grown}


def _too_slow(*_: Any) -> None:
    raise TimeoutError("took too long")


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, _too_slow)
    for one in open_all(Path(sys.argv[1])):
        print(json.dumps(one), flush=True)

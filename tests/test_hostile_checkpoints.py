"""Every checkpoint that an attacker or a broken disk leaves is one line, soon, in little memory."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic.fields import FieldInfo
from support.commands import command
from support.hostile import (
    NETWORK,
    saved,
    stored_checkpoint,
    write_hostile,
)
from support.plans import plan

from segpipe import checkpoint
from segpipe.checkpoint import KEY, load
from segpipe.config.section import Was
from segpipe.errors import ConfigError
from segpipe.nets.bounded import offline
from segpipe.nets.foreign import without_fetching
from segpipe.plan import Plan
from segpipe.training.last import check_last

MIB = 1024  # beyond what the file holds
SECONDS = 10
# what means the same network, or another one that is as good
FINE = (
    " none", "config.resume nested", "plan.channels.0 text", "plan.foreground.0", "plan.ignore",
    "plan.labels", "plan.reasons", "flipped bit", "global_step huge",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all checkpoints."""
    folder = tmp_path_factory.mktemp("hostile")
    write_hostile(folder)
    return folder


@pytest.fixture(scope="module")
def opened(folder: Path) -> dict[str, dict[str, Any]]:
    """What became of each checkpoint, opened by one process."""
    names = {file.stem for file in folder.glob("*.ckpt")}
    done = command("support.hostile", str(folder), folder=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (folder / "evil").exists(), "code of a checkpoint was run"
    found = dict(json.loads(line) for line in done.stdout.splitlines())
    assert names == found.keys()
    return found


def test_each_is_one_line_that_names_the_file(opened: dict[str, dict[str, Any]]) -> None:
    assert len(opened) > 300
    for name, found in opened.items():
        outcome = found["outcome"]
        assert not outcome.startswith("Traceback"), f"{name}: {outcome}"
        if outcome != "loaded":
            assert f"{name}.ckpt: " in outcome
            assert "\n" not in outcome
            assert len(outcome) < 600, name
    assert opened["whole"]["outcome"] == "loaded"


def test_what_loads_is_harmless(opened: dict[str, dict[str, Any]]) -> None:
    loaded = [name for name, found in opened.items() if found["outcome"] == "loaded"]
    later = [f"plan.{key} gone" for key, field in Plan.model_fields.items() if _is_later(field)]
    fine = (*FINE, *later, "whole")
    for name in loaded:
        assert any(part in name for part in fine), name


def _is_later(field: FieldInfo) -> bool:
    """Return whether a plan of an earlier version lacks the field."""
    return any(isinstance(rule, Was) for rule in field.metadata)


def test_each_is_soon_done_in_little_memory(opened: dict[str, dict[str, Any]]) -> None:
    for name, found in opened.items():
        assert found["mib"] < MIB, name
        assert found["seconds"] < SECONDS or name.startswith("monai"), name  # it is imported once


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("half", "is not a checkpoint, or is cut short"),
        ("empty", "is not a checkpoint, or is cut short (0 bytes)"),
        ("zeroed weights", "is damaged: the checksum of"),
        ("bomb", "is packed, which a checkpoint never is"),
        ("legacy", "is not a checkpoint, or is cut short"),
        ("bytearray", "holds 'builtins.bytearray', which a checkpoint never does"),
        ("weight one nan", "are NaN or infinite, so it predicts nothing"),
        ("weight expanded", "declares other weights than it holds"),
        ("records cut", "declares other weights than it holds"),
        ("weight gone", "lacks the weights stem."),
        ("rather wide", "describes a network that is far larger than its weights"),
        ("monai pretrained", "model.arguments.pretrained: networks are trained from the start"),
        ("monai wide", "describes a network that is far larger than its weights"),
        ("block of an extension", "model.block is fancy, which no block here is called"),
        ("schema 99", "was written by a newer segpipe (schema 99;"),
        ("billion laughs", "is nested too deeply, or holds too many values"),
        ("plan.patch dict", "does not hold a plan (patch: Input should be a valid list)"),
        ("config.model.kernel dict", "config.model is wrong"),
    ],
)
def test_the_line_says_what_is_wrong(
    opened: dict[str, dict[str, Any]], name: str, words: str
) -> None:
    assert words in opened[name]["outcome"]


def test_the_command_ends_with_status_2(folder: Path, tmp_path: Path) -> None:
    for name in ("half", "wide"):
        shutil.copy(folder / f"{name}.ckpt", tmp_path)
        words = [f"checkpoint={name}.ckpt", "input=x", "output=new"]
        done = command("predict.py", *words, folder=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith(f"segpipe-predict: {name}.ckpt: ")
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "new").exists()


def test_a_network_that_would_fetch_weights_is_stopped() -> None:
    import socket
    import urllib.request

    with offline():
        for fetch in (
            lambda: urllib.request.urlopen("http://127.0.0.1:9/weights"),
            lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
        ):
            with pytest.raises(ConfigError, match="would fetch its weights"):
                fetch()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", 9), timeout=1)


def test_weights_of_a_whole_checkpoint_are_what_was_saved(tmp_path: Path) -> None:
    stored = stored_checkpoint()
    file = tmp_path / "whole.ckpt"
    file.write_bytes(saved(stored))
    found = load(file).network.state_dict()
    for name, weight in found.items():
        assert torch.equal(weight, stored["state_dict"][NETWORK + name])


def test_a_last_checkpoint_that_is_cut_short_offers_the_best(tmp_path: Path) -> None:
    whole = saved(stored_checkpoint())
    (tmp_path / "checkpoints").mkdir()
    last = tmp_path / "checkpoints/last.ckpt"
    for broken, words in ((whole[: len(whole) // 2], "cut short"), (b"", r"\(0 bytes\)")):
        last.write_bytes(broken)
        with pytest.raises(ConfigError, match=rf"last.ckpt: .*{words}[^;]*$"):
            check_last(tmp_path)
    last.with_name("best.ckpt").write_bytes(whole)
    with pytest.raises(ConfigError, match=r"best.ckpt is whole \(step 7\): copy it over last.ckpt"):
        check_last(tmp_path)


def test_a_checkpoint_of_another_run_is_not_gone_on_from(tmp_path: Path) -> None:
    stored = stored_checkpoint()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.ckpt").write_bytes(saved(stored))
    with pytest.raises(ConfigError, match=r"has no epoch, so no training can go on from it"):
        check_last(tmp_path)
    other = plan("plan.patch=[8,8,8]").model_dump(mode="json")
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(other))
    with pytest.raises(ConfigError, match="is of another run: its plan is not that of"):
        check_last(tmp_path)


def test_an_extension_of_an_optimiser_is_named(tmp_path: Path) -> None:
    stored = stored_checkpoint()
    stored[KEY]["config"]["optim"]["name"] = "lion"
    file = tmp_path / "net.ckpt"
    file.write_bytes(saved(stored))
    with pytest.raises(ConfigError, match=r"optim.name is lion, which no optimiser here is called"):
        checkpoint.load(file)


@pytest.mark.parametrize("given", [{"pretrained": True}, {"weights": "DEFAULT"}, {"filename": "x"}])
def test_networks_of_a_training_fetch_nothing_either(given: dict[str, Any]) -> None:
    def factory(
        spatial_dims: int, pretrained: bool = True, weights: str = "", filename: str = ""
    ) -> Any:
        return spatial_dims

    with pytest.raises(ConfigError, match="networks are trained from the start here"):
        without_fetching(factory, given)
    assert without_fetching(factory, {"weights": ""}) == {"pretrained": False, "weights": ""}

"""Checkpoints of the Hugging Face Hub, whose client is a stand-in, and the card that goes there."""

import hashlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from support.checkpoints import network_file, write_checkpoint

from segpipe import Predictor, hub
from segpipe.checkpoint import find, load
from segpipe.config.checkpoint_tools import Card
from segpipe.config.compose import check, defaults
from segpipe.config.predict import Predict
from segpipe.config.quoting import quoted
from segpipe.config.validation import validate
from segpipe.errors import ConfigError
from segpipe.exporting.model_card import model_card

COMMIT = "0123456789" * 4


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub: a folder for each repository and commit."""
    client: Any = ModuleType("huggingface_hub")

    def download(repo_id: str, filename: str, revision: str) -> str:
        file = tmp_path / repo_id / revision / filename
        if not file.is_file():
            raise LookupError(f"404: {filename}\nsee the log")
        return str(file)

    client.hf_hub_download = download
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    hub.fetch.cache_clear()
    folder = tmp_path / "me/livers" / COMMIT
    folder.mkdir(parents=True)
    write_checkpoint(folder / "best.ckpt")
    return folder


def test_a_checkpoint_of_the_hub_is_one_of_this_machine(remote: Path) -> None:
    digest = hashlib.sha256((remote / "best.ckpt").read_bytes()).hexdigest()
    for address in ("hf://me/livers@", "hf://me/livers/best.ckpt@"):
        for ending in ("", f":{digest}"):
            path = Path(f"{address}{COMMIT}{ending}")
            assert find(path) == remote / "best.ckpt"
            assert load(path).plan == load(remote / "best.ckpt").plan
    predictor = Predictor.load(f"hf://me/livers@{COMMIT}")
    assert predictor.plan.label_names == ["organ"]


def test_the_config_takes_addresses() -> None:
    address = f"hf://me/livers@{COMMIT}:{'0a' * 32}"
    given = quoted([f"checkpoint={address}", "input=a", "output=b"], Predict)
    check("predict", Predict, given)
    values = {"checkpoint": address, "input": "a", "output": "b"}
    options = validate(Predict, defaults("predict") | values)
    assert options.checkpoint is not None
    assert hub.parse(options.checkpoint[0]).sha256 == "0a" * 32


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("hf://me/livers", "names no commit, so that the weights may change: give @COMMIT"),
        ("hf://me/livers@main", "names no commit"),
        ("hf://me", "is no address of a checkpoint"),
        (f"hf://me/../../etc/x.ckpt@{COMMIT}", "is no address of a checkpoint"),
        (f"hf://me/livers/model.pkl@{COMMIT}", "is no address of a checkpoint"),
        (f"hf://me/other@{COMMIT}", r"best.ckpt cannot be had \(404: best.ckpt\)"),
        (f"hf://me/livers@{COMMIT}:{'0a' * 32}", "not the one of the address; do not trust it"),
    ],
)
@pytest.mark.usefixtures("remote")
def test_what_is_not_pinned_or_not_there_is_one_line(address: str, line: str) -> None:
    with pytest.raises(ConfigError, match=line) as caught:
        load(Path(address))
    assert "\n" not in str(caught.value)


def test_a_file_of_the_hub_runs_no_code(remote: Path, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"state_dict": {}, "segpipe": Hostile()}, remote / "best.ckpt")
    with pytest.raises(ConfigError, match="do not trust it"):
        load(Path(f"hf://me/livers@{COMMIT}"))
    assert not (tmp_path / "touched").exists()


def test_without_its_client_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    hub.fetch.cache_clear()
    with pytest.raises(ConfigError, match=r"pip install 'segpipe\[hub\]'"):
        load(Path(f"hf://me/livers@{COMMIT}"))


def test_the_model_card_begins_with_what_the_hub_reads(tmp_path: Path) -> None:
    file = network_file(tmp_path / "net.ckpt")
    text = model_card(file)
    _, head, body = text.split("---\n", 2)
    metadata = yaml.safe_load(head)
    assert metadata["library_name"] == "segpipe"
    assert metadata["pipeline_tag"] == "image-segmentation"
    (result,) = metadata["model-index"][0]["results"]
    assert result["dataset"]["name"] == "Phantom"
    assert result["metrics"][0] == {"type": "dice", "name": "Dice liver", "value": 0.9}
    assert len(result["metrics"]) == 2  # the vessel, which no validation case has, is NaN
    assert hashlib.sha256(file.read_bytes()).hexdigest() in body
    assert "4 vessel" in body
    assert "8 training cases, 2 validation cases" in body
    check("card", Card, [f"checkpoint={file}", "format=hub", "output=README.md"])

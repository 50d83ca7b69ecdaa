"""Code of a user's own: what it registers is a choice everywhere, and only who names it runs it."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from support.commands import REPOSITORY, TINY, command

from segpipe import extensions
from segpipe.config.compose import named_extensions
from segpipe.errors import ConfigError

SOURCE = REPOSITORY / "docs/howto/my_skips.py"
NAMED = "extensions=[my_skips.py]"
SCALED = [NAMED, "model.long_skips=scaled_add", "loss.jaccard=1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the extension, and a run that was trained by its skip and its loss term."""
    folder = tmp_path_factory.mktemp("extended")
    shutil.copy(SOURCE, folder / "my_skips.py")
    line = [*TINY, *SCALED, "trainer.max_steps=2", "hydra.run.dir=runs/a/one"]
    done = command("train.py", *line, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_what_is_registered_is_trained(trained: Path) -> None:
    record = json.loads((trained / "runs/a/one/network.json").read_text())
    assert "scaled_add" in json.dumps(record)
    config = yaml.safe_load((trained / "runs/a/one/config.yaml").read_text())
    assert (config["loss"]["jaccard"], config["extensions"]) == (1, ["my_skips.py"])


def test_help_offers_what_is_registered(trained: Path) -> None:
    done = command("train.py", "--help", NAMED, "model.long_skips", "loss.jaccard", folder=trained)
    assert done.returncode == 0, done.stderr
    assert "none|add|concat|gate|scaled_add" in done.stdout
    assert "loss.jaccard=0  [number >= 0]" in done.stdout


def test_a_misspelt_name_is_near_the_registered_one(trained: Path) -> None:
    line = (NAMED, "model.long_skips=scaled_ad")
    done = command("train.py", *line, folder=trained)
    assert done.returncode == 2
    assert done.stderr.endswith("Did you mean 'scaled_add'?\n")
    assert done.stderr.count("\n") == 1


def test_without_the_extension_its_keys_are_unknown(trained: Path) -> None:
    done = command("train.py", "loss.jaccard=1", folder=trained)
    assert (done.returncode, done.stderr) == (
        2,
        "segpipe-train: loss.jaccard is not a key. (--help lists all)\n",
    )


def test_a_sweep_goes_through_what_is_registered(trained: Path) -> None:
    line = ["-m", *TINY, NAMED, "model.long_skips=add,scaled_add", "trainer.max_steps=2"]
    where = "hydra.sweep.dir=runs/a/sweep"
    done = command("train.py", *line, where, folder=trained, pictures=False)
    assert done.returncode == 0, done.stderr
    assert (trained / "runs/a/sweep/1/validation.csv").is_file()
    done = command("train.py", "resume=runs/a/sweep", folder=trained)
    assert done.returncode == 2
    assert f"was started with {NAMED}: give it again" in done.stderr
    done = command("train.py", "resume=runs/a/sweep", NAMED, folder=trained)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("is done already") == 2


def test_a_resumed_run_needs_its_extension_again(trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained / "runs/a/one", tmp_path / "run")
    done = command("train.py", f"resume={run}", "trainer.max_steps=4", folder=trained)
    assert done.returncode == 2
    assert "give them again; code that a folder names is never run" in done.stderr
    words = [f"resume={run}", "trainer.max_steps=4", NAMED]
    done = command("train.py", *words, folder=trained, pictures=False)
    assert done.returncode == 0, done.stderr


def test_a_prediction_needs_it_and_never_runs_what_is_stored(trained: Path) -> None:
    line = ["checkpoint=runs/a/one", "input=data/phantom/imagesTs", "output=masks", "device=cpu"]
    done = command("predict.py", *line, folder=trained)
    assert done.returncode == 2
    assert "extensions=[my_skips.py]" in done.stderr
    done = command("predict.py", *line, NAMED, folder=trained)
    assert done.returncode == 0, done.stderr


def write(folder: Path, name: str, text: str) -> str:
    file = folder / name
    file.write_text(text)
    return str(file)


def test_what_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    broken = write(tmp_path, "broken_extension.py", "raise RuntimeError('first\\nsecond')\n")
    with pytest.raises(ConfigError, match=r"^extensions: .*broken_extension.py cannot be loaded "):
        extensions.load([broken])
    with pytest.raises(ConfigError, match=r"^extensions: nowhere.py: no such file$"):
        extensions.load(["nowhere.py"])
    with pytest.raises(ConfigError, match=r"^extensions: no.such.module cannot be loaded "):
        extensions.load(["no.such.module"])


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    text = "from segpipe.registry import LOSSES\n"
    text += "@LOSSES.register('dice', help='mine')\ndef mine(): ...\n"
    with pytest.raises(ConfigError, match=r"loss term dice: there is one of that name already$"):
        extensions.load([write(tmp_path, "taken_extension.py", text)])


def test_an_extension_is_loaded_once_and_recorded(tmp_path: Path) -> None:
    text = "from pathlib import Path\n"
    text += "file = Path(__file__).with_suffix('.count')\n"
    text += "file.write_text(file.read_text() + 'x' if file.exists() else 'x')\n"
    path = write(tmp_path, "counted_extension.py", text)
    extensions.load([path])
    extensions.load([path])
    assert (tmp_path / "counted_extension.count").read_text() == "x"
    record = extensions.loaded()[-1]
    assert (record.name, record.source, len(record.sha256)) == ("counted_extension.py", text, 64)


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("extensions=[a.py,b.c]", ["a.py", "b.c"]),
        ("extensions=a.py", ["a.py"]),
        ("extensions=['a b.py']", ["a b.py"]),
        ("seed=1", []),
    ],
)
def test_extensions_are_read_from_the_command_line(word: str, names: list[str]) -> None:
    assert named_extensions("train", [word]) == names

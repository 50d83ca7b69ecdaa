"""What no run of a sweep could do is said before its first run."""

from pathlib import Path

import pytest
from support.commands import command
from support.config import composed

from segpipe.config.compose import check
from segpipe.config.train import Train
from segpipe.errors import ConfigError
from segpipe.job_check import check_trainings
from segpipe.nets.match import match


def checked(*words: str) -> None:
    check_trainings(check("train", Train, words))


def test_channels_that_cannot_be_matched_end_a_sweep_before_its_first_run(tmp_path: Path) -> None:
    words = ["-m", "model.match=params", "model.channels=[16,32],[1,1]",
             "model.long_skips=concat,none", "hydra.sweep.dir=sweep"]  # fmt: skip
    done = command("train.py", *words, folder=tmp_path)
    assert done.returncode == 2
    assert "model.match=params: no channels come within 5% of the" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "sweep").exists()


def test_channels_that_can_be_matched_pass() -> None:
    checked("study=long_skips", "model.channels=[4,8,16]")


@pytest.mark.parametrize("kernel", [[3, 3, 3], [3, 3, 1]])
def test_few_channels_are_matched_as_nearly_as_can_be(kernel: list[int]) -> None:
    model = composed("model.channels=[3,5]", "model.long_skips=none", "model.match=params").model
    found = match(model, 1, 2, [[2] * 3], [kernel, [3] * 3], [16] * 3)
    assert 0.01 < abs(found.deviation) <= 0.05
    assert not found.is_close


@pytest.mark.parametrize("more", [[], ["mode=doctor"], ["-m", "seed=0,1"]])
def test_a_misspelt_folder_does_not_become_a_phantom(tmp_path: Path, more: list[str]) -> None:
    (tmp_path / "hippocampus").mkdir()
    missing = tmp_path / "hipocampus"
    with pytest.raises(ConfigError, match="no such folder; closest: hippocampus .data=phantom"):
        checked(*more, f"data.root={missing}")


@pytest.mark.parametrize(
    "more",
    ["data=phantom", "data.phantom.train=3", "data.layout=phantom", "data=folder"],
)
def test_a_phantom_that_is_asked_for_may_be_written_anywhere(tmp_path: Path, more: str) -> None:
    checked(f"data.root={tmp_path / 'new'}", more)


def test_the_phantom_needs_no_words() -> None:
    checked("seed=3")

"""Sweeps: variants that begin alike, runs that fail alone, folders read back, and the report at the end."""

import csv
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from support.browser import Browser
from support.commands import REPOSITORY, TINY, command
from support.config import composed

from segpipe.config.compose import check, sweep_jobs
from segpipe.config.train import Train
from segpipe.errors import ConfigError
from segpipe.nets.build import build, init_weights
from segpipe.resume import command_line, resumable
from segpipe.study.evidence import ALL, analyse
from segpipe.study.runs import read_runs
from segpipe.study.sweep import find_reference, read_sweep

SWEEP = [
    "-m",
    *TINY,
    "data.fraction=0.5",
    "model.long_skips=none,concat",
    "seed=0,1",
    "hydra.sweep.dir=runs/a/sweep",
]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two variants and two seeds, done."""
    folder = tmp_path_factory.mktemp("swept")
    done = command("train.py", *SWEEP, folder=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("run 1 of 4: model.long_skips=none seed=0\n")
    assert re.search(r"\nrun 4 of 4: model.long_skips=concat seed=1; about .+ left\n", done.stdout)
    assert done.stdout.count("the plan is that of the run before") == 3
    assert done.stdout.count("  patch 32x32x32 ") == 1, "a plan of all runs is shown once"
    for once in ("3 cases are too few for a test", "\nvariants\n", "for a paper"):
        assert done.stdout.count(once) == 1, once
    assert "#0" not in done.stdout, "Hydra says again which run begins"
    return folder / "runs/a/sweep"


@pytest.fixture
def copied(swept: Path, tmp_path: Path) -> Path:
    """The same sweep, to be spoilt."""
    return Path(shutil.copytree(swept, tmp_path / "sweep"))


def study(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return command("segpipe.study", str(folder), *arguments, folder=folder.parent)


def edit(file: Path, column: str, value: str, line: int = 0) -> None:
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    rows[line][column] = value
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("name", ["none", "add", "gate", "concat"])
def test_variants_begin_with_the_same_weights_where_their_shapes_agree(name: str) -> None:
    def drawn(skip: str, seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(len(skip) + 10 * seed)  # whatever was drawn before
        model = composed("model.channels=[4,8,16]", f"model.long_skips={skip}").model
        network = build(model, 1, 3, [[2, 2, 2]] * 2, [[3, 3, 3]] * 3)
        init_weights(network, seed)
        return network.state_dict()

    reference, variant, other = drawn("concat", 0), drawn(name, 0), drawn("concat", 1)
    shared = [
        key for key in reference if key in variant and reference[key].shape == variant[key].shape
    ]
    assert all(torch.equal(reference[key], variant[key]) for key in shared)
    convolutions = [key for key in reference if reference[key].ndim > 1]
    assert (
        len(set(shared) & set(convolutions)) >= len(convolutions) - 2
    )  # only what a concatenation enters may differ
    assert not any(torch.equal(reference[key], other[key]) for key in convolutions)


def test_runs_are_compared_as_a_sweep_is(copied: Path) -> None:
    odd = copied.parent / "läufe (1), [x]"
    odd.mkdir()
    for run in "0123":
        shutil.copytree(copied / run, odd / f"run {run}")
    done = study(odd / "run 0", *(str(odd / f"run {run}") for run in "123"))
    assert done.returncode == 0, done.stderr
    sweep = read_runs([odd / f"run {run}" for run in "0123"])
    assert [variant.name for variant in sweep.variants] == ["long_skips=none", "long_skips=concat"]
    assert [len(variant.runs) for variant in sweep.variants] == [2, 2]
    evidence = analyse(sweep, find_reference(sweep, None))
    expected = analyse(read_sweep(copied), find_reference(read_sweep(copied), None))
    for own, other in zip(evidence.mean_scores, expected.mean_scores, strict=True):
        assert own.metrics["dice"].mean == other.metrics["dice"].mean
    assert (odd / "study/study.html").is_file()
    (odd / "link").symlink_to(odd / "run 0")
    twice = study(odd / "run 0", str(odd / "link"), "output=twice")
    assert twice.returncode == 2
    assert "is the run that" in twice.stderr
    assert not (odd / "twice").exists()
    wrong = study(odd / "run 0", str(copied))
    assert wrong.returncode == 2
    assert wrong.stderr.strip().endswith("is not the folder of a run: it holds no config.yaml")


def test_the_log_of_each_run_has_its_whole_plan(swept: Path) -> None:
    for number in range(4):
        assert "  patch 32x32x32 " in (swept / str(number) / "train.log").read_text()


def test_a_sweep_ends_in_a_report(swept: Path) -> None:
    page = (swept / "study.html").read_text()
    assert "No answer: the reference, A (long_skips=concat), has found nothing" in page
    assert "3 cases are too few for a test" in page
    stored = json.loads((swept / "study.json").read_text())
    assert stored["verdict"]["sentence"] in page
    assert stored["variants"] == {"A": "long_skips=concat", "B": "long_skips=none"}
    assert "Taking away all long skips" not in page, "what so few cases show is not to be quoted"
    assert "http://" not in page
    assert "https://" not in page
    with (swept / "study.csv").open() as opened:
        rows = {(row["variant"], row["label"]): row for row in csv.DictReader(opened)}
    assert {label for _, label in rows} == {"liver", "kidneys", "vessel", ALL}
    mean = rows["long_skips=none", ALL]
    assert (mean["runs"], mean["cases"]) == ("2", "3")
    assert mean["dice_p_holm"] in ("", "nan")  # three cases are too few
    assert float(mean["seconds_per_step"]) > 0
    assert "too few for a test" in (swept / "study.md").read_text()
    latex = (swept / "study.tex").read_text()
    assert latex.count(r"\toprule") == 4
    assert "tab:differences" in latex
    with (swept / "0/metrics.csv").open() as opened:
        measured = [row["val_loss"] for row in csv.DictReader(opened) if row["dice/mean"]]
    assert len(measured) == 2, "a loss on validation patches at each validation"
    assert all(0 < float(loss) < 10 for loss in measured)
    assert measured[0] != measured[1]


@pytest.mark.slow
def test_a_browser_shows_the_report_and_asks_nobody(opened: Browser, swept: Path) -> None:
    opened.show(swept / "study.html", width=1500)
    pictures = "[...document.querySelectorAll('img[src]')]"
    opened.wait(f"{pictures}.every(one => one.complete && one.naturalWidth > 0)")
    assert opened.ask(f"{pictures}.length") >= 5
    assert opened.ask("document.documentElement.scrollWidth <= innerWidth"), (
        "the page is wider than the window"
    )
    assert opened.complaints == []
    assert opened.left(swept) == []


def test_all_runs_of_a_sweep_saw_the_same_cases(swept: Path) -> None:
    splits = [json.loads((swept / str(number) / "split.json").read_text()) for number in range(4)]
    assert all(split == splits[0] for split in splits)


def test_runs_are_sorted_by_variant_and_compared_with_the_configs_own(swept: Path) -> None:
    sweep = read_sweep(swept)
    assert [variant.name for variant in sweep.variants] == ["long_skips=none", "long_skips=concat"]
    assert [sorted(variant.runs) for variant in sweep.variants] == [[("seed=0",), ("seed=1",)]] * 2
    assert not sweep.problems
    assert find_reference(sweep, None).name == "long_skips=concat"
    assert find_reference(sweep, "model.long_skips=none").name == "long_skips=none"
    with pytest.raises(
        ConfigError,
        match="no variant of .* is 'x'; there are: model.long_skips=none; model.long_sk",
    ):
        find_reference(sweep, "x")


def test_a_sweep_of_which_all_runs_are_done_is_not_run_again(swept: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in swept.glob("*/checkpoints/*.ckpt")}
    done = command("train.py", "resume=runs/a/sweep", folder=swept.parents[2])
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("is done already") == 4
    assert before == {file: file.stat().st_mtime_ns for file in swept.glob("*/checkpoints/*.ckpt")}


def test_a_stopped_sweep_goes_on_where_it_was(swept: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(swept.parents[2], home, symlinks=True)
    sweep = home / "runs/a/sweep"
    shutil.rmtree(sweep / "3")
    kept = (sweep / "0/checkpoints/best.ckpt").stat().st_mtime_ns
    done = command("train.py", "resume=runs/a/sweep", folder=home, pictures=False)
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("is done already") == 3
    assert (sweep / "0/checkpoints/best.ckpt").stat().st_mtime_ns == kept
    assert (sweep / "3/validation.csv").read_text() == (swept / "3/validation.csv").read_text()


def test_a_sweep_goes_on_with_its_own_overrides(swept: Path) -> None:
    words = command_line([f"resume={swept}"])
    assert words[0] == "-m"
    assert words[-1] == f"hydra.sweep.dir='{swept}'"
    assert "model.long_skips=none,concat" in words
    with pytest.raises(
        ConfigError, match="^optim.lr=1: a sweep that goes on keeps its overrides; give resume="
    ):
        command_line([f"resume={swept}", "optim.lr=1"])


def test_a_folder_that_holds_another_run_is_not_written_over(swept: Path) -> None:
    with pytest.raises(
        ConfigError, match="holds the run of .*model.long_skips=none.*: choose another folder"
    ):
        resumable(swept / "0", ["seed=7"])


def test_a_run_that_fails_is_listed_and_the_others_go_on(swept: Path, tmp_path: Path) -> None:
    shutil.copytree(swept.parents[2] / "data", tmp_path / "data")
    done = command(
        "train.py",
        "-m",
        *TINY,
        "optim.lr=1e30,8e-3",
        "hydra.sweep.dir=runs/a/sweep",
        folder=tmp_path,
        pictures=False,
    )
    text = done.stdout + done.stderr
    assert done.returncode == 3, text
    assert "go on with what is missing: python train.py resume=runs/a/sweep" in text
    sweep = tmp_path / "runs/a/sweep"
    assert "loss" in (sweep / "0/failure.txt").read_text()
    assert (sweep / "1/validation.csv").is_file()
    found = read_sweep(sweep)
    assert [variant.name for variant in found.variants] == ["optim.lr=0.008"]
    assert found.problems["0"].startswith("failed: ")
    assert "optim.lr=1e+30" in (sweep / "study.html").read_text()


def test_what_is_not_done_is_said_run_by_run(copied: Path) -> None:
    shutil.rmtree(copied / "0")
    (copied / "1/validation.csv").unlink()
    (copied / "2/failure.txt").write_text("the loss is nan\n")
    problems = read_sweep(copied).problems
    assert problems["0"].startswith("not begun (")
    assert problems["1"].startswith("unfinished: stopped after step 6 (")
    assert problems["2"].startswith("failed: the loss is nan (")
    done = study(copied)
    assert done.returncode == 0, done.stderr
    assert all(
        text.split(" (")[0] in (copied / "study.md").read_text() for text in problems.values()
    )
    assert "p =" not in (copied / "study.md").read_text()


@pytest.mark.parametrize(("spoilt", "why"), [("split", "trained on 3 cases that are not the 2 of 2"),
                                             ("truth", "the truth of .*, .*, has .* mL, but 9 mL in 2"),
                                             ("labels", "scored other cases or labels than 2")])  # fmt: skip
def test_runs_that_cannot_be_compared_are_left_out_and_named(
    copied: Path, spoilt: str, why: str
) -> None:
    if spoilt == "split":
        split = json.loads((copied / "2/split.json").read_text())
        (copied / "2/split.json").write_text(json.dumps(split | {"train": split["train"][:-1]}))
    else:
        edit(
            copied / "2/validation.csv",
            *(("truth_ml", "9") if spoilt == "truth" else ("label", "spleen")),
        )
    sweep = read_sweep(copied)
    evidence = analyse(sweep, find_reference(sweep, None))
    assert list(evidence.problems) == ["0"]
    assert re.search(why, evidence.problems["0"])
    assert evidence.comparisons[0].differences["dice"].runs == 1


def test_a_sweep_without_a_done_run_has_nothing_to_compare(copied: Path) -> None:
    for number in range(4):
        shutil.rmtree(copied / str(number))
    done = study(copied)
    assert done.returncode == 1
    assert "no run is done, so there is nothing to compare" in done.stdout + done.stderr


def test_the_report_of_what_is_no_sweep_is_one_line(tmp_path: Path) -> None:
    done = study(tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("is not the folder of a sweep: it holds no multirun.yaml")


def without_seed(job: list[str]) -> tuple[str, ...]:
    return tuple(word for word in job if not word.startswith("seed="))


@pytest.mark.parametrize("name", [file.stem for file in (REPOSITORY / "conf/study").glob("*.yaml")])
def test_every_study_is_a_grid_of_valid_runs_with_three_seeds(name: str, tmp_path: Path) -> None:
    check("train", Train, ["-m", f"+study={name}"])
    overrides = {"task": [f"+study={name}"], "hydra": []}
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump({"hydra": {"overrides": overrides}}))
    jobs = sweep_jobs(tmp_path)
    variants = {without_seed(job) for job in jobs}
    assert len(jobs) == 3 * len(variants) >= 12


@pytest.mark.parametrize("skips", ["none", pytest.param("none,concat", marks=pytest.mark.slow)])
def test_runs_go_beside_each_other(swept: Path, tmp_path: Path, skips: str) -> None:
    """Each in a process that imports all anew, so one run has to do where time is short."""
    pytest.importorskip(
        "hydra_plugins.hydra_joblib_launcher", reason="needs pip install 'segpipe[parallel]'"
    )
    shutil.copytree(swept.parents[2] / "data", tmp_path / "data")
    done = command(
        "train.py",
        *SWEEP,
        f"model.long_skips={skips}",
        "seed=0",
        "hydra/launcher=parallel",
        "hydra.launcher.n_jobs=2",
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    sweep = read_sweep(tmp_path / "runs/a/sweep")
    variants = skips.split(",")
    assert [len(variant.runs) for variant in sweep.variants] == [1] * len(variants)
    for number in range(len(variants)):  # as the sequential ones of two seeds, to the last digit
        own = sweep.folder / str(number) / "validation.csv"
        theirs = swept / str(2 * number) / "validation.csv"
        assert own.read_text() == theirs.read_text()


@pytest.mark.skipif(shutil.which("srun") is not None, reason="this is a node of a cluster")
def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip(
        "hydra_plugins.hydra_submitit_launcher", reason="needs pip install 'segpipe[slurm]'"
    )
    done = command("train.py", "-m", "hydra/launcher=slurm", "seed=0,1", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "segpipe-train: hydra/launcher=slurm: there is no srun here; start the sweep on a node of the cluster\n"
    )

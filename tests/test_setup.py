"""What a stranger needs: a wheel that works by itself, a citation, a licence, CI."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import yaml
from support.commands import ONE_THREAD, PROJECT, REPOSITORY, TINY

import segpipe


def run(*call: str | Path, folder: Path) -> str:
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in call],
        cwd=folder,
        env=alone | ONE_THREAD,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_works_where_there_is_no_checkout(tmp_path: Path) -> None:
    """In an environment of its own, which borrows only the dependencies, from an empty folder."""
    build = (
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        tmp_path / "dist",
        REPOSITORY,
    )
    run(sys.executable, "-m", "pip", *build, folder=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("segpipe-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {
        "segpipe/conf/train.yaml",
        "segpipe/conf/logger/wandb.yaml",
        "segpipe/reporting/templates/page.css",
    } <= {*names}
    assert not [name for name in names if name.startswith(("tests", "docs", "conf"))]

    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", folder=tmp_path)
    python, bin_folder = tmp_path / "venv/bin/python", tmp_path / "venv/bin"
    own = Path(
        run(
            python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=tmp_path
        ).strip()
    )
    # a path in a .pth file lends packages, but not what their own .pth files add, such as an editable segpipe
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        wheel,
        folder=tmp_path,
    )

    empty = tmp_path / "empty"
    empty.mkdir()
    assert run(python, "-c", "import segpipe; print(segpipe.__file__)", folder=empty).startswith(
        str(own)
    )
    run(bin_folder / "segpipe-train", *TINY, folder=empty)
    run(
        bin_folder / "segpipe-predict",
        "checkpoint=runs/latest",
        "input=data/phantom/imagesTs",
        "output=masks",
        folder=empty,
    )
    assert len(list((empty / "masks").glob("*.nii.gz"))) == 2
    assert "5 training cases" in run(
        python, "-m", "segpipe.card", "checkpoint=runs/latest", folder=empty
    )
    assert {path.name for path in empty.iterdir()} == {"data", "runs", "masks"}


def test_the_citation_is_of_this_version_and_licence() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (
        segpipe.__version__,
        PROJECT["project"]["license"],
    )
    assert "Apache License" in (REPOSITORY / "LICENSE").read_text()


def test_github_does_what_ci_does() -> None:
    """Under each Python that the package supports."""
    (job,) = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text())["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands == [".ci/run"]
    prefix = "Programming Language :: Python :: "
    supported = []
    for classifier in PROJECT["project"]["classifiers"]:
        if classifier.startswith(prefix):
            supported.append(classifier.removeprefix(prefix))
    assert job["strategy"]["matrix"]["python-version"] == supported


def run_ci(tmp_path: Path, failing: str = "") -> tuple[int, list[str]]:
    """Run `.ci/run` with a `make` that only notes its targets; return the status and the targets.

    Args:
        tmp_path: holds the repository's copy of the script and the stand-in.
        failing: target at which the stand-in fails.
    """
    checkout = tmp_path / "checkout"
    (checkout / ".ci").mkdir(parents=True)
    shutil.copy(REPOSITORY / ".ci/run", checkout / ".ci/run")
    stand_in = tmp_path / "bin/make"
    stand_in.parent.mkdir()
    stand_in.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n[ "$1" != "{failing}" ]\n')
    stand_in.chmod(0o755)
    environment = os.environ | {"PATH": f"{stand_in.parent}:{os.environ['PATH']}", "PYTHONS": ""}
    done = subprocess.run([checkout / ".ci/run"], env=environment, capture_output=True, timeout=60)
    return done.returncode, (tmp_path / "calls").read_text().splitlines()


def test_ci_runs_the_commands_of_the_readme_in_order(tmp_path: Path) -> None:
    readme = (REPOSITORY / "README.md").read_text()
    commands = re.findall(r"^make (\w+)", readme, re.MULTILINE)
    assert run_ci(tmp_path) == (0, commands)


@pytest.mark.parametrize("target", ["demo", "test"])
def test_ci_fails_if_a_command_of_the_readme_fails(tmp_path: Path, target: str) -> None:
    status, targets = run_ci(tmp_path, failing=target)
    assert status != 0
    assert targets[-1] == target


def test_real_scans_are_tested_where_they_exist(tmp_path: Path) -> None:
    (tmp_path / "shared/data").mkdir(parents=True)
    status, targets = run_ci(tmp_path)
    assert status == 0
    assert targets == ["demo", f"test REAL_DATA={tmp_path}/shared/data"]


def test_the_image_is_given_what_it_copies() -> None:
    """No engine builds it here; at least no file that it names is missing or kept from it."""
    lines = (REPOSITORY / "Dockerfile").read_text().splitlines()
    copied = {name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]}
    given = {
        line[1:]
        for line in (REPOSITORY / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert copied == given
    assert all((REPOSITORY / name).exists() for name in copied)


def test_what_an_extra_brings_the_tests_have_too() -> None:
    """MLflow in its small edition, which is all that writing takes; of the hub there is a stand-in.

    A Ray cluster, and the stores of Google and Azure, are tried by hand or not at all, as docs say.
    """
    extras = {
        name for needed in PROJECT["project"]["optional-dependencies"].values() for name in needed
    }
    with_s3fs = {"fsspec>=2024.10", "aiohttp>=3.9"}
    by_hand = {
        "mlflow>=3.0",
        "huggingface_hub>=0.30",
        "ray>=2.40",
        "gcsfs>=2024.10",
        "adlfs>=2024.7",
    }
    assert extras <= {*PROJECT["dependency-groups"]["dev"]} | with_s3fs | by_hand

"""Every fenced block of the README and the docs is true: each command is checked, and with --slow run on the phantom.

A block is found by its fence alone, and a command that nobody here knows is a failure, so that a new one cannot escape.
What is checked without --slow: options by the schema, as the command itself would; files, targets, extras and groups by
their being there; imports of Python by importing; JSON and YAML by reading. What --slow runs is shortened in its budget
alone; names in capitals (DIR, RUN, SCANS, MASKS ...) are folders of the phantom. Never run: what installs, what needs a
cluster, a container or a browser, and benchmarks.
"""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from hydra import compose
from support.commands import PROJECT, REPOSITORY
from support.nnunet import write_results

from segpipe.config.compose import check, hydra_on_conf
from segpipe.config.predict import Predict
from segpipe.config.quoting import quoted
from segpipe.config.train import Train
from segpipe.errors import ConfigError
from segpipe.resume import command_line

PAGES = sorted(
    {*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("data/*.md"), *REPOSITORY.glob("benchmarks/*.md")}
)  # fmt: skip
LANGUAGES = {"sh", "console", "python", "json", "yaml", "csv", "text"}
# needs an account, an engine, a cluster, a browser or the network; that their options are right is for their makers to say
FOREIGN = {"git", "cd", "docker", "sbatch", "tensorboard", "mlflow", "wandb", "jupyter"}
TOOLS = {"ruff", "pyright", "lint-imports", "pytest"}
SHORT = [
    "trainer.max_steps=2",
    "trainer.steps_per_epoch=2",
    "trainer.validations=1",
    "data.workers=0",
    "plan.batch=2",
]
OF_NNUNET = {"labels": {"background": 0, "liver": 1, "kidneys": 2, "vessel": 3}}  # as the phantom's
PHANTOM = ["data.phantom.train=6", "data.phantom.test=2"]


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"

    def commands(self) -> list[list[str]]:
        """The words of each command; of `console`, of those behind a `$`."""
        text = self.text.replace("\\\n", " ")
        text = text.replace("$SLURM_JOB_ID", "1")
        text = text.replace("$SLURM_ARRAY_TASK_ID", "1").replace("$SLURM_ARRAY_TASK_COUNT", "8")
        lines = text.splitlines()
        if self.language == "console":
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        words = [word for line in lines for word in [*shlex.split(line, comments=True), "&&"]]
        found: list[list[str]] = [[]]
        for word in words:
            if word in ("&&", ";"):
                found.append([])
            else:
                found[-1].append(word)
        return [command for command in found if command]


def blocks(page: Path) -> Iterator[Block]:
    opened: tuple[int, str, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        fence = re.match(r"\s*(```+|~~~+)\s*(\S*)", line)
        if fence and opened is None:
            opened, lines = (number, fence[2], fence[1]), []
        elif fence and opened and fence[1] == opened[2]:
            yield Block(page, opened[0], opened[1], included("\n".join(lines) + "\n"))
            opened = None
        else:
            lines.append(line)
    assert opened is None, f"{page}: the block of line {opened} never ends"


def included(text: str) -> str:
    """Return the text of a block, or of the file that it includes."""
    snippet = re.fullmatch(r'--8<-- "(.+)"\n', text)
    return (REPOSITORY / snippet[1]).read_text() if snippet else text


BLOCKS = [block for page in PAGES for block in blocks(page)]
SHELL = [block for block in BLOCKS if block.language in ("sh", "console")]


@pytest.fixture
def _names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at before anything starts: the folder of a run, and that of a sweep."""
    run, sweep = tmp_path / "runs/NAME/DATE_TIME", tmp_path / "SWEEP"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints/last.ckpt").touch()
    (run / "config.yaml").touch()
    (tmp_path / "RUN").symlink_to(run)
    sweep.mkdir()
    (sweep / "multirun.yaml").write_text(
        "hydra: {overrides: {task: ['seed=0,1'], hydra: [hydra.mode=MULTIRUN]}}"
    )
    (tmp_path / "docs").symlink_to(REPOSITORY / "docs")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_says_what_it_is(block: Block) -> None:
    assert block.language in LANGUAGES, (
        f"{block}: name its language, one of {', '.join(sorted(LANGUAGES))}"
    )
    if block.language == "text":
        first = {line.split()[0] for line in block.text.splitlines() if line.split()}
        assert not first & {
            "$",
            "python",
            "pip",
            "make",
            "segpipe-train",
            "segpipe-predict",
            "sbatch",
            "docker",
        }
    if block.language == "json":
        json.loads(block.text)
    if block.language == "yaml":
        yaml.safe_load(block.text)


@pytest.mark.usefixtures("_names")
@pytest.mark.parametrize("block", SHELL, ids=str)
def test_a_command_is_as_its_program_wants_it(block: Block) -> None:
    for command in block.commands():
        if block.language == "console":  # which shows a mistake, and what is said of it
            with pytest.raises(ConfigError) as caught:
                inspect_cases(command)
            assert f": {caught.value}\n" in block.text
        else:
            inspect_cases(command)


def inspect_cases(command: list[str]) -> None:
    """Checks one command without running it.

    Raises:
        ConfigError: as the command would.
    """
    from segpipe.card import Card
    from segpipe.config.checkpoint_tools import ImportNNUNet
    from segpipe.config.compare import Compare
    from segpipe.config.evaluate import Evaluate
    from segpipe.config.probe import Report
    from segpipe.export import Export
    from segpipe.probe.__main__ import COMMANDS

    match command:
        case [("torchrun" | "srun"), *words] if "train.py" in words:
            given = words[words.index("train.py") + 1 :]
            check("train", Train, command_line(quoted(given, Train)))
        case ["python", "train.py", *given] | ["segpipe-train", *given]:
            if "--help" not in given:
                check("train", Train, command_line(quoted(given, Train)))
        case ["python", "predict.py", *given] | ["segpipe-predict", *given]:
            if "--help" not in given:
                check("predict", Predict, quoted(given, Predict))
        case ["python", "-m", "segpipe.probe", name, *given] if name in COMMANDS:
            if "--help" not in given:
                check(name, COMMANDS[name][0], given)
        case ["python", "-m", "segpipe.evaluate", *given]:
            check("evaluate", Evaluate, quoted(given, Evaluate))
        case ["python", "-m", "segpipe.study", "compare", *given]:
            systems = [word for word in given if "=" not in word]
            words = [f"systems=[{','.join(systems)}]", *given[len(systems) :]]
            check("compare", Compare, quoted(words, Compare))
        case ["python", "-m", "segpipe.study", *given]:
            folders = [word for word in given if "=" not in word]
            which = f"runs=[{','.join(folders)}]" if len(folders) > 1 else f"sweep={folders[0]}"
            check("report", Report, [which, *(word for word in given if "=" in word)])
        case ["python", "-m", "segpipe.card", *given]:
            check("card", Card, given)
        case ["python", "-m", "segpipe.export", *given]:
            check("export", Export, given)
        case ["python", "-m", "segpipe.import_nnunet", *given]:
            check("import_nnunet", ImportNNUNet, given)
        case ["python", file, *_] if file.startswith("benchmarks/"):
            assert (REPOSITORY / file).is_file(), file
        case ["python", "-m", "venv", ".venv"] | [".", ".venv/bin/activate"]:
            pass
        case ["pip", "install", *given]:
            examine_install(given)
        case ["make", target, *_]:
            assert re.search(rf"^{target}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE), (
                target
            )
        case ["python" | ".venv/bin/python", "-m", tool, *given] | [tool, *given] if tool in TOOLS:
            assert all(
                (REPOSITORY / word).exists()
                for word in given
                if word.startswith(("tests", "segpipe"))
            )
        case [program, *_] if program in FOREIGN:
            pass
        case _:
            pytest.fail(f"{shlex.join(command)}: no test knows this program")


def examine_install(given: list[str]) -> None:
    for option, word in zip(given, [*given[1:], ""], strict=True):
        if option == "--group":
            assert word in PROJECT["dependency-groups"], word
        if option == "--constraint":
            assert (REPOSITORY / word).is_file(), word
        for extra in re.findall(r"^segpipe\[(\w+)\]", option):
            assert extra in PROJECT["project"]["optional-dependencies"], extra


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "python"], ids=str
)
def test_python_can_import_what_it_names(block: Block) -> None:
    parsed = ast.parse(block.text, str(block))
    imports = [one for one in parsed.body if isinstance(one, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module(imports, []), str(block), "exec"), {})


def shortened(given: list[str]) -> list[str]:
    """The same training on the phantom, with a budget of two steps."""
    if "--help" in given or any(word.startswith("resume=") for word in given):
        return given
    layout = next(
        (word.removeprefix("data=") for word in given if word.startswith("data=")), "phantom"
    )
    words = [re.sub(r"^(data\.root)=\S*", rf"\1={layout}", word) for word in given]
    words = [re.sub(r"^trainer\.devices=\d+", "trainer.devices=2", word) for word in words]
    words = [
        re.sub(r"^(hydra\.(run|sweep)\.dir)=", rf"\1={uuid.uuid4().hex}/", word) for word in words
    ]
    single = [
        word
        for word in quoted(words, Train)
        if "=" in word and not word.startswith(("-", "hydra.")) and "," not in word
    ]
    with hydra_on_conf():
        dims = compose("train", overrides=single).model.dims
    asked = any(word.startswith("plan.patch=") for word in given)
    patch = [] if asked else [f"plan.patch={[32] * dims}".replace(" ", "")]
    return [*words, *SHORT, *patch, *(PHANTOM if layout.startswith("phantom") else [])]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the names of the docs are there: datasets in each layout, scans, a run, a sweep."""
    folder = tmp_path_factory.mktemp("world")
    tiny = ["model.channels=[4,8]", *SHORT, *PHANTOM, "plan.patch=[32,32,32]", "data.fraction=0.4"]
    call([sys.executable, REPOSITORY / "train.py", *tiny, "hydra.run.dir=RUN"], folder)
    sweep = ["-m", "seed=0,1,2,3,4", "data.fold=0", "hydra.sweep.dir=SWEEP"]
    call([sys.executable, REPOSITORY / "train.py", *sweep, *tiny], folder)
    lay_out(folder)
    write_results(folder / "RESULTS", folds=("0", "1"), dataset=OF_NNUNET)
    (folder / "runs/NAME").mkdir(parents=True)
    (folder / "docs").symlink_to(REPOSITORY / "docs")
    for name in ("runs/folds", "runs/skips"):
        (folder / name).symlink_to(folder / "SWEEP")
    (folder / "runs/NAME/DATE_TIME").symlink_to(folder / "RUN")
    shutil.copy(folder / "RUN/checkpoints/best.ckpt", folder / "best.ckpt")
    shutil.copy(folder / "RUN/split.json", folder / "SPLIT.json")
    call(
        [sys.executable, "-m", "segpipe.export", "checkpoint=best.ckpt", "output=network.onnx"],
        folder,
    )
    return folder


def lay_out(folder: Path) -> None:
    """The phantom in each layout, and as scans and labels to predict."""
    drawn = folder / "data/phantom"
    about = json.loads((drawn / "dataset.json").read_text())
    shutil.copytree(drawn, folder / "decathlon")
    for name, images, labels in (
        ("nnunet", "imagesTr", "labelsTr"),
        ("folder", "images", "labels"),
    ):
        shutil.copytree(drawn / "imagesTr", folder / name / images)
        shutil.copytree(drawn / "labelsTr", folder / name / labels)
    for file in (folder / "nnunet/imagesTr").iterdir():
        file.rename(file.with_name(file.name.replace(".nii.gz", "_0000.nii.gz")))
    plain = {
        "channel_names": {"0": "MRI"},
        "labels": {name: int(number) for number, name in about["labels"].items()},
    }
    (folder / "nnunet/dataset.json").write_text(
        json.dumps({**plain, "numTraining": 6, "file_ending": ".nii.gz"})
    )
    (folder / "table").mkdir()
    cases = [file.name for file in sorted((drawn / "imagesTr").iterdir())]
    rows = [
        f"{one[:-7]},../data/phantom/imagesTr/{one},../data/phantom/labelsTr/{one}" for one in cases
    ]
    (folder / "table/cases.csv").write_text("\n".join(["case,image,label", *rows]) + "\n")
    for one in cases:
        case = one.removesuffix(".nii.gz").replace("_", "")
        for layout, image, label in (
            ("bids", f"sub-{case}/anat/sub-{case}_T1w", f"derivatives/d/sub-{case}/{case}_dseg"),
            ("pattern", f"{case}/anat/T1", f"{case}/anat/seg"),
        ):
            for part, target in (("imagesTr", image), ("labelsTr", label)):
                file = folder / layout / f"{target}.nii.gz"
                file.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(drawn / part / one, file)
    (folder / "SCANS").symlink_to(drawn / "imagesTs")
    shutil.copytree(drawn / "labelsTs", folder / "LABELS")
    (folder / "scans").mkdir()
    scans = sorted((drawn / "imagesTs").iterdir())
    as_t1 = scans[0].name.replace(".nii.gz", "_T1.nii.gz")
    shutil.copy(scans[0], folder / "scans" / as_t1)
    shutil.copy(drawn / "labelsTs" / scans[0].name, folder / "LABELS" / as_t1)
    shutil.copy(scans[0], folder / "scan.nii.gz")
    (folder / "scans.csv").write_text("image\n" + "".join(f"{scan}\n" for scan in scans))


def call(command: list[str | Path], folder: Path) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, (
        f"{shlex.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    )
    return done.stdout + done.stderr


def point_to_the_run(world: Path) -> None:
    (world / "runs/latest").unlink(missing_ok=True)
    (world / "runs/latest").symlink_to(world / "RUN")
    for name in ("MASKS", "NEW_DIR", "folder_fixed"):
        shutil.rmtree(world / name, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for block in SHELL if block.language == "sh"], ids=str)
def test_a_command_runs(block: Block, world: Path) -> None:
    point_to_the_run(world)
    for command in block.commands():
        match command:
            case _ if "hydra/launcher=slurm" in command:
                pass  # needs a cluster
            case _ if any(word.startswith(("watch=", "engine=ray")) for word in command):
                pass  # never ends; needs a cluster
            case ["python", "train.py", *given] | ["segpipe-train", *given]:
                call([sys.executable, REPOSITORY / "train.py", *shortened(given)], world)
            case ["python", "predict.py", *given] | ["segpipe-predict", *given]:
                call([sys.executable, REPOSITORY / "predict.py", *given], world)
            case ["python", "-m", name, *given] if name.startswith("segpipe"):
                brief = [re.sub(r"^max_time=.*", "max_time=00:00:00:05", word) for word in given]
                call([sys.executable, "-m", name, *brief], world)


@pytest.mark.slow
@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "python"], ids=str
)
def test_python_runs(block: Block, world: Path) -> None:
    point_to_the_run(world)
    call([sys.executable, "-c", block.text], world)


@pytest.mark.skipif(
    find_spec("mkdocs") is None, reason="needs MkDocs: pip install --group docs, or make docs"
)
def test_the_docs_build_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "NO_MKDOCS_2_WARNING", "1"
    )  # Material's own notice of what will come after MkDocs
    printed = call(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path], REPOSITORY
    )
    assert "WARNING" not in printed
    for page, words in (("reference/config", "trainer.max_time"), ("reference/api", "mirror_axes")):
        assert words in (tmp_path / page / "index.html").read_text(encoding="utf-8")

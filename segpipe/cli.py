"""The commands: compose the config, check it, call one function, set the exit status."""

import io
import logging
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segpipe import extensions
from segpipe.config.compose import (
    CONF,
    Job,
    check,
    named_extensions,
    normalise,
    register_defaults,
    values_of,
)
from segpipe.config.help import page
from segpipe.config.predict import Predict
from segpipe.config.quoting import invocation, quoted
from segpipe.config.section import Section
from segpipe.config.train import Train
from segpipe.config.validation import validate
from segpipe.dealing import take_gpu
from segpipe.errors import SegpipeError
from segpipe.launchers import check_sweep, given_place, is_launched
from segpipe.reporting.formats import figures_as
from segpipe.signals import exit_status, handle_termination, interruption_behind
from segpipe.slurm import check_slurm, naming_lost_jobs, requeued
from segpipe.text import visible, visible_lines

if TYPE_CHECKING:
    from segpipe.ranks import Ranks

Run = Callable[[dict[str, Any], Path, list[str]], int]
log = logging.getLogger("segpipe")
HELP = {"--help", "-h"}
FAILURE = "failure.txt"  # in the folder of a run of a sweep: why it failed


def train() -> None:
    """Run `segpipe-train`: train one network, or one for each combination of a sweep."""
    from segpipe.job_check import check_trainings
    from segpipe.resume import command_line

    launch("train", Train, _train_one, invocation("train"), command_line, check_trainings)


def predict() -> None:
    """Run `segpipe-predict`: write a mask for each scan."""
    launch("predict", Predict, _predict_all, invocation("predict"))


def _train_one(values: dict[str, Any], folder: Path, overrides: list[str]) -> int:
    from segpipe.resume import resumed

    options = validate(Train, resumed(values, overrides))
    if options.verbose:
        from segpipe.terminal import say_more

        say_more()
    # torch, MONAI and Lightning take seconds to import: only after the check
    if options.mode == "doctor":
        from segpipe.doctor import diagnose

        return diagnose(options, folder, overrides)
    place = given_place(options.trainer)
    if place.rank > 0:
        from segpipe.training.launched import follow_launched

        return follow_launched(place, options.trainer.device)
    if place.size > 1:
        from segpipe.training.launched import leading

        with leading(place, options.trainer.device) as ranks:
            _train_first(options, folder, overrides, ranks)
    else:
        _train_first(options, folder, overrides)
    return 0


def _follow(words: list[str]) -> None:
    """Follow the first process of a launcher, and exit, where this is another one.

    Hydra is not asked: it would make a folder for the run of this process.
    """
    if not is_launched():
        return
    from segpipe.resume import resumed

    overrides = [word for word in words if not word.startswith(("-", "hydra.", "hydra/"))]
    options = validate(Train, resumed(values_of("train", words), overrides))
    place = given_place(options.trainer)
    if place.rank == 0:
        return
    if options.mode == "doctor":
        sys.exit(0)
    from segpipe.training.launched import follow_launched

    sys.exit(follow_launched(place, options.trainer.device))


def _train_first(options: Train, folder: Path, overrides: list[str], *launched: "Ranks") -> None:
    """Train as the first process, or the only one.

    Args:
        options: the options of the run.
        folder: the folder of the run.
        overrides: arguments of the command line.
        launched: the processes of a launcher, if there is one.
    """
    from segpipe.resume import check_done, is_done, resumable

    if options.mode == "crossval":
        from segpipe.crossval import cross_validate

        with figures_as(options.page.figures):
            cross_validate(options, folder, overrides, *launched)
        return
    if options.resume is None:
        options = options.model_copy(update={"resume": resumable(folder, overrides)})
        if is_done(folder):
            check_done(folder)
            log.info("%s is done already", folder)
            return
    from segpipe.lock import alone_in
    from segpipe.run import fit

    with alone_in(folder), figures_as(options.page.figures):
        fit(options, folder, overrides, *launched)


def _predict_all(values: dict[str, Any], _folder: Path, _overrides: list[str]) -> int:
    options = validate(Predict, values)
    if options.collect:
        from segpipe.reporting.collecting import collect as run
    else:
        from segpipe.batch import predict_batch as run
    from segpipe.prediction.remote_places import at_hand
    from segpipe.terminal import logged_to, say_more

    if options.verbose:
        say_more()

    with at_hand(options) as (local, places):
        assert local.output is not None
        with logged_to(local.output / "predict.log"), figures_as(local.page.figures):
            return run(local, places)


def launch(
    program: str,
    schema: type[Section],
    run: Run,
    command: str,
    completed: Callable[[list[str]], list[str]] = list,
    foresee: Callable[[list[Job]], None] = lambda jobs: None,
) -> None:
    """Run a command on the options of its command line, and exit with its status if not 0.

    Args:
        program: the name of its config, `conf/PROGRAM.yaml`.
        schema: the schema of its options.
        run: takes the composed values, the job's folder and the overrides; returns the status.
        command: the command as it is called, for the help.
        completed: takes the words that follow it, and returns those that are meant.
        foresee: checks all jobs before the first one starts.
    """
    handle_termination()
    _survive_encodings()
    try:
        if HELP & set(sys.argv[1:]):
            return _help(program, schema, command)
        sys.argv[1:] = normalise(_flags_first(completed(quoted(sys.argv[1:], schema))))
        foresee(check(program, schema, sys.argv[1:]))
        check_slurm(sys.argv[1:])
        if schema is Train and not {"-m", "--multirun", "--cfg", "-c"} & set(sys.argv[1:]):
            _follow(sys.argv[1:])
        _run_jobs(program, run)
    except SegpipeError as error:
        print(f"segpipe-{program}: {visible(error)}", file=sys.stderr)
        sys.exit(error.exit_status)
    except (KeyboardInterrupt, Exception) as error:
        interruption = interruption_behind(error)
        if interruption is None:
            raise
        print(f"segpipe-{program}: interrupted", file=sys.stderr)
        sys.exit(exit_status(interruption))


def _flags_first(words: list[str]) -> list[str]:
    """Return the words with `-m` before the overrides; Hydra's parser refuses it among them."""
    return sorted(words, key=lambda word: word not in ("-m", "--multirun"))


def _survive_encodings() -> None:
    """Let characters that the output's encoding lacks, as in cp1252, be spelt rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _help(program: str, schema: type[Section], command: str) -> None:
    """Print the help: of the other words of the command line, or all of it."""
    words = [word for word in sys.argv[1:] if word not in HELP]
    named = [word for word in words if word.startswith("extensions=")]
    extensions.load(named_extensions(program, quoted(named, schema)))
    about = [word for word in words if word not in named]
    print_page(page(program, command, schema, about))


def print_page(text: str) -> None:
    """Print a text that may be read only in part, as by `--help | head`."""
    try:
        print(visible_lines(text), flush=True)
    except BrokenPipeError:  # the reader has closed; Python would report it when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run_jobs(program: str, run: Run) -> None:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import DictConfig, OmegaConf

    def job(composed: DictConfig) -> None:
        info = HydraConfig.get()
        values: Any = OmegaConf.to_container(composed, resolve=True)
        extensions.load(values["extensions"])  # again in each process of a parallel sweep
        folder = Path(info.runtime.output_dir)
        # not resolved: a name may hold an escaped `${`
        overrides: Any = OmegaConf.to_container(info.overrides.task, resolve=False)
        if info.mode == RunMode.MULTIRUN:
            sweep = Path(info.sweep.dir)
            if program == "train" and "joblib" in str(info.launcher["_target_"]):
                take_gpu(sweep, values["trainer"])
            with requeued(), _shown(program, sweep, info.job.num, overrides):
                _run_isolated(lambda: of_sweep(values, folder, overrides), folder)
        else:
            _run_single(lambda: run(values, folder, overrides), program)

    def of_sweep(values: dict[str, Any], folder: Path, overrides: list[str]) -> int:
        check_sweep()
        return run(values, folder, overrides)

    register_defaults()
    # Hydra would print its own traceback and exit 1; errors must reach `launch`, which exits
    os.environ["HYDRA_FULL_ERROR"] = "1"
    with naming_lost_jobs(f"{invocation(program)} resume=SWEEP"):
        hydra.main(str(CONF), program, version_base="1.3")(job)()


def _run_single(run: Callable[[], int], program: str) -> None:
    """Do one run, and exit with its status if not 0."""
    try:
        status = run()
    except SegpipeError as error:
        log.error("segpipe-%s: %s", program, visible(error))
        status = error.exit_status
    if status:
        sys.exit(status)


def _shown(
    program: str, sweep: Path, number: int, overrides: list[str]
) -> AbstractContextManager[None]:
    """Return a context of one run of a sweep, in which its number is said and what is left."""
    if program != "train":
        return nullcontext()
    from segpipe.sweep_progress import shown

    return shown(sweep, number, overrides)


def _run_isolated(run: Callable[[], int], folder: Path) -> None:
    """Do a run of a sweep; if it fails, note why in its folder and let the others go on."""
    note = folder / FAILURE
    note.unlink(missing_ok=True)
    try:
        status = run()
        if status:
            note.write_text(f"ended with status {status}\n")
    except SegpipeError as error:
        log.error("%s: %s", folder, visible(error))
        note.write_text(f"{visible(error)}\n", encoding="utf-8")
    except Exception as error:  # whatever is wrong with this run, the others can still be done
        interruption = interruption_behind(error)
        if interruption is not None:
            raise interruption from None
        log.exception("%s failed", folder)
        note.write_text(f"{type(error).__name__}: {visible(error)}\n", encoding="utf-8")

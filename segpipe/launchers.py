"""The place of a process among those that train one network, as torchrun or srun has given it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from segpipe.config.train import TrainerOptions
from segpipe.errors import ConfigError

TORCHRUN_GIVES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
SRUN = "SLURM_STEP_NUM_TASKS"  # set by srun alone; a script of sbatch has only SLURM_NTASKS
HERE = "127.0.0.1"
FIRST_PORT = 15000  # of those at which jobs of SLURM meet


@dataclass(frozen=True)
class Place:
    """The place of a process among those that train one network together.

    Attributes:
        rank: its number; 0 is the first, which plans, writes all files and scores.
        size: number of the processes.
        local_rank: its number among those of its machine.
        sharing: number of the processes that share the cores which this one may use.
        address: the address of the first one's machine.
        port: the port at which the first one listens; 0 = any that is free.
        is_held: whether a launcher, such as torchrun, listens there already.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    sharing: int = 1
    address: str = HERE
    port: int = 0
    is_held: bool = False


def given_place(options: TrainerOptions, environment: Mapping[str, str] = os.environ) -> Place:
    """Return the place that torchrun or srun has given; the first of one where neither has.

    Tasks of srun are taken for runs of their own where one device of one node is asked for.

    Raises:
        ConfigError: if they started another number of processes than there are devices, or if
            several nodes are asked for and neither started this process.
    """
    devices = options.devices
    is_one = devices == 1 and options.nodes == 1
    place = _place_in(environment, is_of_srun=not is_one)
    if place.size == 1:
        if options.nodes > 1:
            raise ConfigError(
                f"trainer.nodes={options.nodes}: start it on every node, by srun or by torchrun "
                f"--nnodes={options.nodes} --nproc-per-node=DEVICES train.py ..."
            )
        return place
    wanted = place.size if devices == "all" else devices * options.nodes
    if wanted != place.size:
        raise ConfigError(
            f"trainer.devices={devices} trainer.nodes={options.nodes}: that is a process for each "
            f"of {wanted} devices, but {place.size} were started; let both be the same number"
        )
    return place


def is_launched(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether torchrun or srun has started this process beside others."""
    by_torchrun = all(name in environment for name in TORCHRUN_GIVES)
    return by_torchrun or int(environment.get(SRUN, "1")) > 1


def check_sweep(environment: Mapping[str, str] = os.environ) -> None:
    """Check that a run of a sweep may start the processes for its devices.

    Raises:
        ConfigError: if torchrun has started several already: each would begin the sweep.
    """
    started = all(name in environment for name in TORCHRUN_GIVES)
    if started and int(environment["WORLD_SIZE"]) > 1:
        raise ConfigError(
            "a sweep starts the processes of each run itself: start it by python train.py -m, "
            "without torchrun"
        )


def _place_in(environment: Mapping[str, str], is_of_srun: bool) -> Place:
    """Return the place that a launcher's variables say; the first of one where there are none.

    Args:
        environment: variables of this process.
        is_of_srun: whether tasks of srun belong together.
    """
    if all(name in environment for name in TORCHRUN_GIVES):
        return Place(
            int(environment["RANK"]),
            int(environment["WORLD_SIZE"]),
            int(environment["LOCAL_RANK"]),
            int(environment.get("LOCAL_WORLD_SIZE", "1")),
            environment["MASTER_ADDR"],
            int(environment["MASTER_PORT"]),
            is_held=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        )
    if is_of_srun and int(environment.get(SRUN, "1")) > 1:
        # takes seconds
        from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

        nodes = environment.get("SLURM_STEP_NODELIST") or environment["SLURM_NODELIST"]
        return Place(
            int(environment["SLURM_PROCID"]),
            int(environment[SRUN]),
            int(environment["SLURM_LOCALID"]),
            1,  # each task has cores of its own
            SLURMEnvironment.resolve_root_node_address(nodes),
            FIRST_PORT + int(environment["SLURM_JOB_ID"][-4:]),  # one that all nodes know
        )
    return Place()

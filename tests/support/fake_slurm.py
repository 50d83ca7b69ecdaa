"""SLURM's commands as scripts that run jobs on this machine: `sbatch`, `srun`, `scontrol`, `sacct`.

A job runs until it ends; where `scontrol requeue` was called meanwhile, or `Cluster.preempt`, it is
started again, as SLURM does it. `srun` starts all tasks of a job beside each other.
"""

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

COMMON = f"#!{sys.executable}\nimport os, re, subprocess, sys\nfrom pathlib import Path\n"
SBATCH = """
state = Path({state!r})
script = Path(sys.argv[1])
flags = dict(re.findall(r"^#SBATCH --([\\w-]+)=?(.*)$", script.read_text(), re.M))
number = 100 + len(list(state.glob("*.sbatch")))
(state / f"{{number}}.sbatch").write_text(script.read_text())
last = re.match(r"'?0-(\\d+)", flags.get("array", ""))
for index in range(int(last[1]) + 1) if last else [None]:
    tasks = int(flags.get("nodes", 1)) * int(flags.get("ntasks-per-node", 1))
    own = number if index is None else number * 1000 + index  # an array's jobs have numbers of their own
    env = {{"SLURM_JOB_ID": str(own), "SLURM_NTASKS": str(tasks), "SLURM_JOB_NUM_NODES": "1"}}
    env |= {{"SLURM_JOB_NODELIST": "localhost", "SLURM_NODELIST": "localhost", "SLURM_JOB_NAME": "train"}}
    name = str(number)
    if index is not None:
        env |= {{"SLURM_ARRAY_JOB_ID": str(number), "SLURM_ARRAY_TASK_ID": str(index)}}
        name = f"{{number}}_{{index}}"
    subprocess.Popen(
        [str(state.parent / "bin/job"), str(script), name],
        env=os.environ | env | {{"FAKE_JOB": name}},
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=(state / f"{{name}}.log").open("w"),
        stderr=subprocess.STDOUT,
    )
print("Submitted batch job", number)
"""
JOB = """
state = Path({state!r})
script, name = sys.argv[1:]
if {lost!r}:
    (state / f"{{name}}.state").write_text("NODE_FAIL")
    sys.exit()
starts = 0
while True:
    (state / f"{{name}}.state").write_text("RUNNING")
    env = os.environ | ({{"SLURM_RESTART_COUNT": str(starts)}} if starts else {{}})
    status = subprocess.run(["bash", script], env=env).returncode
    if not (state / f"{{name}}.requeue").exists():
        break
    (state / f"{{name}}.requeue").unlink()
    starts += 1
(state / f"{{name}}.state").write_text("FAILED" if status else "COMPLETED")
"""
SRUN = """
state = Path({state!r})
words = sys.argv[1:]
files = {{}}
while words[0].startswith("-"):
    word = words.pop(0)
    if word in ("--output", "--error"):
        files[word] = words.pop(0)
tasks = int(os.environ["SLURM_NTASKS"])
started = []
for task in range(tasks):
    env = {{"SLURM_PROCID": str(task), "SLURM_LOCALID": str(task), "SLURM_NODEID": "0"}}
    env |= {{"SLURM_STEP_NUM_TASKS": str(tasks), "SLURM_STEP_NODELIST": "localhost"}}
    names = {{}}
    for word, file in files.items():
        for mark, key in (("%A", "SLURM_ARRAY_JOB_ID"), ("%a", "SLURM_ARRAY_TASK_ID"), ("%j", "SLURM_JOB_ID")):
            file = file.replace(mark, os.environ.get(key, ""))
        names[word] = open(file.replace("%t", str(task)), "a")
    given = {{"stdout": names["--output"], "stderr": names["--error"]}}
    started.append(subprocess.Popen(words, env=os.environ | env, **given))
(state / f"{{os.environ['FAKE_JOB']}}.pids").write_text(" ".join(str(one.pid) for one in started))
sys.exit(max(abs(one.wait()) for one in started))
"""
SCONTROL = """
assert sys.argv[1] == "requeue"
Path({state!r}, sys.argv[2] + ".requeue").touch()
"""
SACCT = """
print("JobID|State|NodeList")
for file in Path({state!r}).glob("*.state"):
    print(f"{{file.stem}}|{{file.read_text()}}|localhost")
"""


@dataclass
class Cluster:
    """A cluster of this machine.

    Attributes:
        bin: folder of its commands.
        state: folder in which they note what they do.
    """

    bin: Path
    state: Path

    def pids(self, job: str) -> list[int]:
        """Return the processes of a job's tasks."""
        return list(map(int, (self.state / f"{job}.pids").read_text().split()))

    def warn(self, job: str) -> None:
        """Send the signal that comes some time before a job reaches its limit."""
        self._send(job, signal.SIGUSR2)

    def preempt(self, job: str) -> None:
        """Take the node from a job for another one, and queue it again."""
        (self.state / f"{job}.requeue").touch()
        self._send(job, signal.SIGTERM)

    def _send(self, job: str, number: int) -> None:
        for pid in self.pids(job):
            os.kill(pid, number)

    def wait_for_end(self, job: str) -> str:
        """Wait until a job has ended, and return its state."""
        file = self.state / f"{job}.state"
        while not file.exists() or file.read_text() in ("", "RUNNING"):
            time.sleep(0.05)
        return file.read_text()


def build(folder: Path, lost: bool = False) -> Cluster:
    """Write the commands of a cluster into a folder.

    Args:
        folder: of the cluster.
        lost: whether the nodes fail before a job starts.
    """
    cluster = Cluster(folder / "bin", folder / "state")
    cluster.bin.mkdir(parents=True)
    cluster.state.mkdir()
    scripts = {"sbatch": SBATCH, "job": JOB, "srun": SRUN, "scontrol": SCONTROL, "sacct": SACCT}
    for name, text in scripts.items():
        file = cluster.bin / name
        file.write_text(COMMON + text.format(state=str(cluster.state), lost=lost))
        file.chmod(0o755)
    return cluster

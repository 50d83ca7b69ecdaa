"""The memory of a container is what its control group allows, not what the machine has."""

from pathlib import Path

import pytest
import torch

from segpipe import control_groups, memory
from segpipe.device import usable_mib
from segpipe.errors import DataError
from segpipe.io.unpack import check_size
from segpipe.memory import available_bytes, total_bytes

MIB = 2**20


def group(folder: Path, version: int, limit: int | str, used: int, caches: int) -> None:
    """Write the files of a control group."""
    names = {1: memory.VERSION_1, 2: memory.VERSION_2}[version]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {caches}\n")


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(control_groups, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(control_groups, "OWN_GROUPS", tmp_path / "own")
    return tmp_path / "groups"


@pytest.mark.parametrize(
    ("version", "line", "shown"),
    [
        (2, "0::/pod/job", "pod/job"),
        (2, "0::/pod/job", "pod"),
        (2, "0::/", ""),
        (1, "4:memory:/docker/abc", "memory/docker/abc"),
        (1, "4:cpu,memory:/docker/abc", "memory"),
    ],
)
def test_a_container_has_what_its_group_allows(
    groups: Path, version: int, line: str, shown: str
) -> None:
    (groups.parent / "own").write_text(f"9:pids:/x\n{line}\n")
    before = total_bytes(), available_bytes()
    group(groups / shown, version, 300 * MIB, 120 * MIB, 20 * MIB)
    assert before[0] > 300 * MIB
    assert total_bytes() == 300 * MIB
    assert available_bytes() == 200 * MIB
    assert usable_mib(torch.device("cpu")) < 300
    with pytest.raises(DataError, match=f"and {200 * MIB} bytes of memory are free"):
        check_size(Path("scan.nii"), 250 * MIB, 250 * MIB, "none")


def test_the_narrowest_group_counts_and_one_without_a_limit_does_not(groups: Path) -> None:
    (groups.parent / "own").write_text("0::/pod/job/step\n")
    group(groups / "pod", 2, 500 * MIB, 0, 0)
    group(groups / "pod/job", 2, 200 * MIB, 300 * MIB, 0)
    group(groups / "pod/job/step", 2, "max", 0, 0)
    assert total_bytes() == 200 * MIB
    assert available_bytes() == 0, "more is in use than is allowed"


def test_without_groups_the_machine_counts(groups: Path) -> None:
    assert total_bytes() > 500 * MIB
    assert 0 < available_bytes() <= total_bytes()

"""A run that goes on does so on the cases, the split and the plan that it began with."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from support.commands import TINY, command

from segpipe import checkpoint
from segpipe.data.phantom import write_phantom
from segpipe.resume import is_done

RUN = "run"
MORE = f"resume={RUN} trainer.max_steps=12".split()


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset of files, and the run of a tiny network on it."""
    folder = tmp_path_factory.mktemp("begun")
    write_phantom(folder / "dataset", train=6, test=0)
    words = [word for word in TINY if "phantom" not in word]
    source = ["data=decathlon", "data.root=dataset"]
    where = f"hydra.run.dir={RUN}"
    done = command("train.py", *words, *source, where, folder=folder, pictures=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def home(begun: Path, tmp_path: Path) -> Path:
    """A copy of that folder, in which the dataset may be changed."""
    folder = tmp_path / "home"
    shutil.copytree(begun, folder)
    return folder


def split_of(home: Path) -> dict[str, list[str]]:
    content = json.loads((home / RUN / "split.json").read_text())
    return {side: content[side] for side in ("train", "val")}


def add_cases(root: Path, number: int) -> None:
    """Copy cases of a dataset under new names, with other voxels, and list them."""
    listing = root / "dataset.json"
    content = json.loads(listing.read_text())
    for index in range(number):
        entry = {}
        for kind, path in content["training"][index].items():
            name = path.replace("case_", "added_").replace("phantom_", "added_")
            assert name != path
            image = nib.load(root / path)
            voxels = np.asanyarray(image.dataobj)
            if kind == "image":
                voxels = voxels + 1
            nib.save(nib.Nifti1Image(voxels, image.affine), root / name)
            entry[kind] = name
        content["training"].append(entry)
    listing.write_text(json.dumps(content))


def test_cases_that_were_added_are_named_and_refused(home: Path) -> None:
    before = split_of(home)
    add_cases(home / "dataset", 4)
    done = command("train.py", *MORE, folder=home)
    assert done.returncode == 2
    assert "the dataset is not what it was when the run began: 4 new cases (" in done.stderr
    assert "resume_changed=true" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert split_of(home) == before

    done = command("train.py", *MORE, "resume_changed=true", folder=home, pictures=False)
    assert done.returncode == 0, done.stderr
    after = split_of(home)
    assert after["val"] == before["val"]
    assert after["train"][: len(before["train"])] == before["train"]
    assert len(after["train"]) == len(before["train"]) + 4
    last = torch.load(home / RUN / "checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 12


def test_a_case_that_was_replaced_under_its_name_is_named_and_refused(home: Path) -> None:
    name = split_of(home)["train"][0]
    file = home / f"dataset/imagesTr/{name}.nii.gz"
    _change_voxels(file)
    done = command("train.py", *MORE, folder=home)
    assert done.returncode == 2
    assert f"1 changed case ({name})" in done.stderr
    done = command("train.py", *MORE, "resume_changed=true", folder=home, pictures=False)
    assert done.returncode == 0, done.stderr


def _change_voxels(file: Path) -> None:
    image = nib.load(file)
    voxels = np.asanyarray(image.dataobj)[::-1]
    nib.save(nib.Nifti1Image(voxels, image.affine, image.header), file)


def test_a_moved_run_keeps_its_best_score_and_finds_its_dataset_elsewhere(home: Path) -> None:
    (home / "scratch").mkdir()
    shutil.move(home / RUN, home / "scratch/moved")
    shutil.move(home / "dataset", home / "scratch/dataset")
    best = home / "scratch/moved/checkpoints/best.ckpt"
    last = home / "scratch/moved/checkpoints/last.ckpt"
    _pretend_best_score(last, 0.999)
    before = best.read_bytes()
    arguments = ["resume=scratch/moved", "trainer.max_steps=12", "data.root=scratch/dataset"]
    done = command("train.py", *arguments, folder=home, pictures=False)
    assert done.returncode == 0, done.stderr
    assert best.read_bytes() == before, "no network of this run is better than the one pretended"
    assert checkpoint.load(last).step == 12
    assert "UserWarning" not in done.stderr
    assert "is not empty" not in done.stderr


def _pretend_best_score(file: Path, score: float) -> None:
    """Write a best Dice into a checkpoint that no network of the test reaches."""
    stored = torch.load(file, weights_only=True)
    changed = 0
    for name, state in stored["callbacks"].items():
        if "ModelCheckpoint" not in name and "RunCheckpoint" not in name:
            continue
        if state["monitor"] != "dice/mean":
            continue
        value = torch.tensor(score)
        state["best_model_score"] = value
        state["kth_value"] = value
        state["best_k_models"] = dict.fromkeys(state["best_k_models"], value)
        changed += 1
    assert changed == 1
    torch.save(stored, file)


def test_a_run_that_ended_after_its_scores_is_not_done(tmp_path: Path) -> None:
    """Post-processing and the predicted quality would be missing in its checkpoints."""
    for name in ("validation.csv", "curves.png"):
        (tmp_path / name).touch()
    (tmp_path / "config.yaml").write_text("schema: 2\n")
    assert not is_done(tmp_path), "it was killed before its page"
    (tmp_path / "report.json").write_text('{"stopped": "interrupted"}')
    assert not is_done(tmp_path)
    (tmp_path / "report.json").write_text('{"stopped": null}')
    assert is_done(tmp_path)
    (tmp_path / "report.json").unlink()
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    assert is_done(tmp_path), "0.1.0 knew runs by their pictures"

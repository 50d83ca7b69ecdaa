"""Masks of any tool against truths: matched, checked, scored as a run is, and never one for all."""

import csv
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import binary_erosion, distance_transform_edt
from support.commands import command
from support.pages import Reader

from segpipe.config.compose import defaults
from segpipe.config.evaluate import Evaluate
from segpipe.config.validation import validate
from segpipe.errors import ConfigError
from segpipe.evaluate.pairing import find_pairs, match_names, plain_name
from segpipe.evaluate.run import evaluate
from segpipe.intervals import Interval

SPACING_MM = (1.0, 1.5, 2.0)
LABELS = {"organ": 1, "tumour": 3, "all": [1, 3]}


def save(file: Path, ids: np.ndarray, spacing_mm: tuple[float, ...] = SPACING_MM) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(ids, np.diag([*spacing_mm, 1])), file)
    return file


def masks(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A random mask and a truth, of ids 0, 1 and 3."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((14, 13, 12), np.uint8)
    truth[3:10, 2:11, 3:9] = 1
    truth[4:7, 4:8, 4:7] = 3
    moved = np.roll(truth, rng.integers(-2, 3, 3), (0, 1, 2))
    return moved, truth


def folders(
    root: Path, names: list[str], mask: str = "{}.nii.gz", truth: str = "{}.nii.gz"
) -> Path:
    """Masks and truths of these cases, in folders `masks` and `truths`."""
    for seed, name in enumerate(names):
        prediction, labels = masks(seed)
        save(root / "masks" / mask.format(name), prediction)
        save(root / "truths" / truth.format(name), labels)
    return root


def options(root: Path, **given: Any) -> Evaluate:
    values = {"prediction": str(root / "masks"), "truth": str(root / "truths"), "overlays": False}
    values |= {"output": str(root / "out"), "workers": 1}
    return validate(Evaluate, defaults("evaluate") | values | given)


def run(root: Path, **given: Any) -> int:
    return evaluate(options(root, **given))


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def surface_distances(mask: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The distance in mm of each voxel at the surface of a mask to the surface of the other one."""
    edge = mask & ~binary_erosion(mask)
    other_edge = other & ~binary_erosion(other)
    return distance_transform_edt(~other_edge, SPACING_MM)[edge]


def test_every_figure_is_that_of_an_independent_computation(tmp_path: Path) -> None:
    folders(tmp_path, ["a", "b", "c"])
    assert run(tmp_path, labels=LABELS, overlays=True) == 0
    found = {(row["case"], row["label"]): row for row in rows(tmp_path / "out/scores.csv")}
    assert "tab:result" in (tmp_path / "out/tables.tex").read_text()
    assert len(found) == 9
    for seed, case in enumerate("abc"):
        prediction, truth = masks(seed)
        for label, ids in LABELS.items():
            own, other = np.isin(prediction, ids), np.isin(truth, ids)
            row = {
                name: float(text)
                for name, text in found[case, label].items()
                if name not in ("case", "label")
            }
            both = (own & other).sum()
            assert row["dice"] == pytest.approx(2 * both / (own.sum() + other.sum()))
            assert row["iou"] == pytest.approx(both / (own | other).sum())
            there, back = surface_distances(own, other), surface_distances(other, own)
            hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
            assert row["hd95_mm"] == pytest.approx(hd95, rel=1e-5)
            assert row["assd_mm"] == pytest.approx(np.concatenate([there, back]).mean(), rel=1e-5)
            assert row["volume_ml"] == pytest.approx(own.sum() * 3 / 1000)
            assert row["truth_ml"] == pytest.approx(other.sum() * 3 / 1000)


def test_page_json_and_tables_are_those_of_a_run(tmp_path: Path) -> None:
    folders(tmp_path, ["a", "b", "c"])
    assert run(tmp_path, overlays=True) == 0
    page = Reader(tmp_path / "out/report.html")
    assert page.problems == []
    assert page.outside == []
    assert sum(to.startswith("data:image/webp") for _, to in page.addresses) == 3 + 1
    stored = json.loads((tmp_path / "out/report.json").read_text())
    dice = [float(row["dice"]) for row in rows(tmp_path / "out/scores.csv")]
    mean = stored["summary"][-1]
    assert mean["dice"] == pytest.approx(np.mean(dice))
    assert mean["dice_low"] < mean["dice"] < mean["dice_high"]
    assert stored["verdict"]["mean_dice"] == pytest.approx(mean["dice"])
    shown = Interval(mean["dice"], mean["dice_low"], mean["dice_high"]).shown(3)
    assert shown in page.text
    assert {row["label"] for row in stored["scores"]} == {"1", "3"}, "without labels, every id"


@pytest.mark.parametrize(
    ("mask", "truth"),
    [("{}_seg.nii.gz", "{}.nii"), ("{}.nii.gz", "{}-label.nii.gz"), ("{}_pred_mask.nii.gz", "{}_0000.nii.gz")],
)  # fmt: skip
def test_names_match_without_their_usual_endings(tmp_path: Path, mask: str, truth: str) -> None:
    folders(tmp_path, ["case_1", "case_2"], mask, truth)
    found = find_pairs(options(tmp_path))
    assert [(pair.name, pair.prediction, pair.truth) for pair in found.pairs] == [
        (name, tmp_path / "masks" / mask.format(name), tmp_path / "truths" / truth.format(name))
        for name in ("case_1", "case_2")
    ]
    assert not found.without_prediction
    assert not found.without_truth


def test_names_that_could_mean_two_are_left_alone() -> None:
    assert plain_name("p_seg") == "p"
    assert plain_name("_seg") == "_seg"
    matched = match_names(["p_seg", "p_pred", "q"], ["p_gt", "q"])
    assert matched == [("p_gt", None, "p_gt"), ("p_pred", "p_pred", None), ("p_seg", "p_seg", None), ("q", "q", "q")]  # fmt: skip


def test_a_pattern_or_a_table_says_which_belong_together(tmp_path: Path) -> None:
    folders(tmp_path, ["a", "b"], "{}/deep/seg.nii.gz")
    pattern = f"{tmp_path}/masks/{{case}}/deep/s*.nii.gz"
    expected = find_pairs(options(tmp_path, prediction=pattern)).pairs
    assert [(pair.name, pair.truth) for pair in expected] == [
        (name, tmp_path / f"truths/{name}.nii.gz") for name in ("a", "b")
    ]
    table = tmp_path / "cases.csv"
    table.write_text(
        "Case,Mask,Truth,image\n"
        "a,masks/a/deep/seg.nii.gz,truths/a.nii.gz,a.nii\n"
        "b,masks/b/deep/seg.nii.gz,truths/b.nii.gz,\n"
    )
    found = find_pairs(options(tmp_path, prediction=str(table), truth=None)).pairs
    assert [(pair.prediction, pair.truth) for pair in found] == [
        (pair.prediction, pair.truth) for pair in expected
    ]
    assert [pair.image for pair in found] == [tmp_path / "a.nii", None]
    one, other = tmp_path / "masks/a/deep/seg.nii.gz", tmp_path / "truths/a.nii.gz"
    (pair,) = find_pairs(options(tmp_path, prediction=str(one), truth=str(other))).pairs
    assert (pair.prediction, pair.truth) == (one, other), "two files are a pair"


def test_what_is_missing_on_either_side_is_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folders(tmp_path, ["a", "b"])
    save(tmp_path / "masks/extra.nii.gz", masks(0)[0])
    save(tmp_path / "truths/lost.nii.gz", masks(0)[1])
    assert run(tmp_path) == 0
    assert "1 truth without a mask: not in the means" in caplog.text
    assert "1 mask without a truth, not scored: extra" in caplog.text
    stored = json.loads((tmp_path / "out/report.json").read_text())
    assert (stored["without_prediction"], stored["without_truth"]) == (["lost"], ["extra"])
    assert run(tmp_path, strict=True) == 3
    assert run(tmp_path, missing="empty") == 0
    lost = [row for row in rows(tmp_path / "out/scores.csv") if row["case"] == "lost"]
    assert [(row["dice"], row["volume_ml"]) for row in lost] == [("0.0", "0.0")] * 2


def test_a_case_that_does_not_fit_is_refused_in_a_line_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folders(tmp_path, ["good", "moved", "small", "broken", "shares", "twice"])
    prediction, _ = masks(0)
    save(tmp_path / "masks/moved.nii.gz", prediction, (1.0, 1.5, 2.4))
    save(tmp_path / "masks/small.nii.gz", prediction[1:])
    (tmp_path / "masks/broken.nii.gz").write_bytes(b"no gzip")
    save(tmp_path / "masks/shares.nii.gz", prediction.astype(np.float32) / 7)
    save(tmp_path / "masks/twice.nii", prediction)
    assert run(tmp_path) == 3
    refused = {row["case"]: row["reason"] for row in rows(tmp_path / "out/cases.csv") if row["status"] == "refused"}  # fmt: skip
    assert refused.keys() == {"moved", "small", "broken", "shares", "twice"}
    assert "lies up to 4.40 mm from" in refused["moved"]
    assert "has the shape (13, 13, 12), but good" not in refused["small"]
    assert "has the shape (13, 13, 12)" in refused["small"]
    assert "not whole" in refused["shares"]
    assert "2 files of this name" in refused["twice"]
    assert all("\n" not in reason for reason in refused.values())
    assert {row["case"] for row in rows(tmp_path / "out/scores.csv")} == {"good"}
    assert caplog.text.count("refused: ") == 5


def test_ids_that_are_not_scored_are_named_and_an_ignored_id_is_left_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prediction, truth = masks(0)
    prediction[0, 0, :5] = 7
    wrong = (prediction == 1) & (truth != 1)
    truth[wrong] = 9
    save(tmp_path / "masks/a.nii.gz", prediction)
    save(tmp_path / "truths/a.nii.gz", truth)
    assert run(tmp_path, labels={"organ": 1}, ignore=9) == 0
    assert "the mask holds 3 (" in caplog.text
    assert "7 (5 voxels), which labels does not name: not scored" in caplog.text
    (row,) = rows(tmp_path / "out/scores.csv")
    common = ((prediction == 1) & (truth == 1)).sum()
    expected = 2 * common / (common + (truth == 1).sum())  # no false positive is left
    assert float(row["dice"]) == pytest.approx(expected)


def test_labels_come_from_a_dataset_json_beside_the_truths(tmp_path: Path) -> None:
    folders(tmp_path, ["a"])
    declared = {"labels": {"background": 0, "organ": 1, "whole": [1, 3]}}
    (tmp_path / "dataset.json").write_text(json.dumps(declared))
    assert run(tmp_path) == 0
    assert [row["label"] for row in rows(tmp_path / "out/scores.csv")] == ["organ", "whole"]


def test_a_label_that_only_some_cases_have_is_a_row_of_all(tmp_path: Path) -> None:
    folders(tmp_path, ["a", "b"])
    for side in ("masks", "truths"):
        save(tmp_path / side / "b.nii.gz", (masks(1)[0] == 1).astype(np.uint8))
    assert run(tmp_path) == 0
    found = {(row["case"], row["label"]): row for row in rows(tmp_path / "out/scores.csv")}
    assert len(found) == 4
    assert found["b", "3"]["dice"] == "nan"
    assert found["b", "3"]["truth_ml"] == "0.0"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"truth": None}, "truth is missing"),
        ({"prediction": "nowhere"}, "prediction=nowhere: no such file or folder"),
        ({"output": "truths"}, "holds masks, truths or scans; choose another folder"),
        ({"prediction": "others"}, "no mask has the name of a truth: masks x; truths a"),
        ({"prediction": "empty"}, "holds no label maps"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], message: str
) -> None:
    folders(tmp_path, ["a"])
    save(tmp_path / "others/x.nii.gz", masks(0)[0])
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, **given)


def test_names_of_a_table_stay_inside_the_output(tmp_path: Path) -> None:
    folders(tmp_path, ["a", "b"])
    table = tmp_path / "cases.csv"
    table.write_text(
        "case,prediction,truth\n../../a,masks/a.nii.gz,truths/a.nii.gz\n"
        "<b>,masks/b.nii.gz,truths/b.nii.gz\n"
    )
    assert run(tmp_path, prediction=str(table), truth=None, overlays=True) == 3
    assert {row["case"] for row in rows(tmp_path / "out/scores.csv")} == {"<b>"}
    assert "<b>" not in (tmp_path / "out/report.html").read_text().replace("<b>{{", "")
    assert not (tmp_path.parent / "a.png").exists()


def test_the_command_takes_keys_and_refuses_wrong_ones(tmp_path: Path) -> None:
    folders(tmp_path, ["a"])
    words = ["prediction=masks", "truth=truths", "output=out", "overlays=false"]
    done = command("segpipe.evaluate", *words, "labels={organ:1,tumour:3}", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "mean Dice" in done.stdout + done.stderr
    wrong = command("segpipe.evaluate", *words, "labels={organ:[0,1]}", folder=tmp_path)
    assert wrong.returncode == 2
    assert "organ needs ids other than 0" in wrong.stderr
    assert len(wrong.stderr.strip().splitlines()) == 1


def test_masks_of_nnunet_are_scored_as_numpy_scores_them(tmp_path: Path, real_data: Path) -> None:
    truths = real_data / "Task04_Hippocampus/labelsTr"
    given = {"prediction": str(real_data / "nnunet/expected_3d_fullres"), "truth": str(truths)}
    assert run(tmp_path, **given) == 0
    found = {(row["case"], row["label"]): float(row["dice"]) for row in rows(tmp_path / "out/scores.csv")}  # fmt: skip
    assert len(found) == 6
    for (case, label), dice in found.items():
        number = {"Anterior": 1, "Posterior": 2}[label]
        own, other = (
            np.asarray(nib.load(folder / f"{case}.nii.gz").dataobj) == number
            for folder in (Path(given["prediction"]), truths)
        )
        assert dice == pytest.approx(2 * (own & other).sum() / (own.sum() + other.sum()))


KILLER = """
import os
from segpipe.metrics import metric
from segpipe.registry import METRICS

@METRICS.register("killer", help="ends its process")
@metric(title="Killer")
def killer(pair):
    if pair.true_voxels == 27:
        os._exit(9)
    return 1.0
"""


@pytest.mark.slow
def test_processes_beside_each_other_give_the_same_and_a_killed_one_loses_its_case_alone(
    tmp_path: Path,
) -> None:
    folders(tmp_path, ["a", "b", "c", "d"])
    assert run(tmp_path) == 0
    expected = (tmp_path / "out/scores.csv").read_text()
    assert run(tmp_path, workers=2) == 0
    assert (tmp_path / "out/scores.csv").read_text() == expected
    tiny = np.zeros((14, 13, 12), np.uint8)
    tiny[:3, :3, :3] = 1
    save(tmp_path / "truths/b.nii.gz", tiny)
    (tmp_path / "killer.py").write_text(KILLER)
    words = ["prediction=masks", "truth=truths", "output=out", "workers=2", "overlays=false"]
    done = command("segpipe.evaluate", *words, "extensions=[killer.py]", folder=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "the process that scored it was killed" in done.stdout + done.stderr
    assert {row["case"] for row in rows(tmp_path / "out/scores.csv")} == {"a", "c", "d"}

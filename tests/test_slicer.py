"""The module for 3D Slicer, with stand-ins for Slicer's modules."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import nibabel as nib
import numpy as np
import pytest
from support.checkpoints import write_checkpoint
from support.commands import REPOSITORY, command

from segpipe import Predictor

AFFINE = np.diag([-1.0, -1, 2, 1])


class Base:
    """Stands for the classes that Slicer's module, panel and logic are derived from."""

    def __init__(self, *_: Any) -> None:
        self.layout = MagicMock()

    def setup(self) -> None:
        pass


class Segment:
    def __init__(self, value: int) -> None:
        self.value = value
        self.name = f"Segment_{value}"

    def GetLabelValue(self) -> int:  # noqa: N802
        return self.value

    def GetName(self) -> str:  # noqa: N802
        return self.name

    def SetName(self, name: str) -> None:  # noqa: N802
        self.name = name


@contextmanager
def shown(*_: Any, **__: Any) -> Iterator[None]:
    yield


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    slicer: Any = MagicMock()
    slicer.loaded = []

    def load(path: str) -> np.ndarray:
        slicer.loaded.append(np.asanyarray(nib.load(path).dataobj))
        return slicer.loaded[-1]

    def import_labels(labels: np.ndarray, node: Any) -> None:
        segments = [Segment(int(value)) for value in np.unique(labels)[1:]]
        node.GetSegmentation().GetNumberOfSegments.return_value = len(segments)
        node.GetSegmentation().GetNthSegment.side_effect = segments.__getitem__
        node.segments = segments

    slicer.util.exportNode.side_effect = lambda node, path: nib.save(node.image, path)
    slicer.util.loadLabelVolume.side_effect = load
    slicer.util.startupEnvironment.return_value = dict(os.environ)
    slicer.util.tryWithErrorDisplay.side_effect = shown
    segmentations = slicer.modules.segmentations.logic.return_value
    segmentations.ImportLabelmapToSegmentationNode.side_effect = import_labels
    classes: Any = ModuleType("slicer.ScriptedLoadableModule")
    for kind in ("", "Widget", "Logic"):
        setattr(classes, f"ScriptedLoadableModule{kind}", Base)
    stand_ins = {"slicer": slicer, "slicer.ScriptedLoadableModule": classes}
    for name, stand_in in {**stand_ins, "qt": MagicMock(), "ctk": MagicMock()}.items():
        monkeypatch.setitem(sys.modules, name, stand_in)
    file = REPOSITORY / "docs/slicer/SegpipePredict.py"
    spec = importlib.util.spec_from_file_location("SegpipePredict", file)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)

    def run(arguments: list[str], cwd: Path, **_: Any) -> subprocess.CompletedProcess[str]:
        assert arguments[0] == "segpipe-predict"
        return command("predict.py", *arguments[1:], folder=cwd)

    monkeypatch.setattr(loaded.subprocess, "run", run)
    return loaded


def volume() -> Any:
    voxels = np.random.default_rng(0).integers(0, 900, (20, 16, 8)).astype(np.int16)
    node: Any = MagicMock()
    node.image = nib.Nifti1Image(voxels, AFFINE)
    return node


def test_a_volume_becomes_a_segmentation_with_names(tmp_path: Path, module: ModuleType) -> None:
    file = write_checkpoint(tmp_path / "best.ckpt")
    scan = volume()
    node = module.SegpipePredictLogic().segment(scan, str(file))
    expected = Predictor.load(file)(scan.image)
    assert expected.any()
    assert np.array_equal(module.slicer.loaded[0], expected)
    assert [segment.name for segment in node.segments] == ["organ"]
    node.SetReferenceImageGeometryParameterFromVolumeNode.assert_called_once_with(scan)


def test_what_the_program_says_is_what_slicer_shows(tmp_path: Path, module: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="no such checkpoint"):
        module.SegpipePredictLogic().segment(volume(), str(tmp_path / "none.ckpt"))
    with pytest.raises(ValueError, match="choose a volume and a checkpoint"):
        module.SegpipePredictLogic().segment(None, "best.ckpt")


def test_the_panel_hands_on_what_was_chosen(module: ModuleType, monkeypatch: Any) -> None:
    given: list[Any] = []
    logic = module.SegpipePredictLogic
    monkeypatch.setattr(logic, "segment", lambda _self, *arguments: given.append(arguments))
    module.SegpipePredict(MagicMock())
    panel = module.SegpipePredictWidget()
    panel.setup()
    panel.button.connect.assert_called_once_with("clicked()", panel.segment)
    panel.checkpoint.currentPath = "best.ckpt"
    panel.program.currentPath = "/opt/segpipe-predict"
    panel.segment()
    assert given == [(panel.volume.currentNode(), "best.ckpt", "/opt/segpipe-predict")]

"""Segment a volume in 3D Slicer by a network of segpipe; one file, installed by copying.

The network runs in a process of its own, by the `segpipe-predict` of another Python: nothing is
installed into Slicer's.
"""

import json
import subprocess
import tempfile
from pathlib import Path

import ctk
import qt
import slicer
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleWidget,
)

SETTINGS = "SegpipePredict"  # under which Slicer keeps what was chosen last


class SegpipePredict(ScriptedLoadableModule):
    """The module, as Slicer lists it."""

    def __init__(self, parent):
        super().__init__(parent)
        parent.title = "segpipe"
        parent.categories = ["Segmentation"]
        parent.contributors = ["segpipe"]
        parent.helpText = "Segments a volume by a network that was trained with segpipe."


class SegpipePredictWidget(ScriptedLoadableModuleWidget):
    """The panel of the module: what is segmented, by which network, and a button."""

    def setup(self):
        """Build the panel."""
        super().setup()
        form = qt.QFormLayout()
        self.volume = slicer.qMRMLNodeComboBox()
        self.volume.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self.volume.setMRMLScene(slicer.mrmlScene)
        self.checkpoint = ctk.ctkPathLineEdit()
        self.program = ctk.ctkPathLineEdit()
        self.checkpoint.currentPath = qt.QSettings().value(f"{SETTINGS}/checkpoint") or ""
        self.program.currentPath = qt.QSettings().value(f"{SETTINGS}/program") or "segpipe-predict"
        form.addRow("Volume", self.volume)
        form.addRow("Checkpoint or run", self.checkpoint)
        form.addRow("segpipe-predict", self.program)
        self.button = qt.QPushButton("Segment")
        self.button.connect("clicked()", self.segment)
        form.addRow(self.button)
        self.layout.addLayout(form)
        self.layout.addStretch(1)

    def segment(self):
        """Segment the chosen volume; what goes wrong is shown."""
        qt.QSettings().setValue(f"{SETTINGS}/checkpoint", self.checkpoint.currentPath)
        qt.QSettings().setValue(f"{SETTINGS}/program", self.program.currentPath)
        logic = SegpipePredictLogic()
        with slicer.util.tryWithErrorDisplay("segpipe has failed.", waitCursor=True):
            logic.segment(
                self.volume.currentNode(), self.checkpoint.currentPath, self.program.currentPath
            )


class SegpipePredictLogic(ScriptedLoadableModuleLogic):
    """What the button does."""

    def segment(self, volume, checkpoint, program="segpipe-predict"):
        """Segment a volume and return the new segmentation node.

        Args:
            volume: node of a scalar volume.
            checkpoint: a run's folder, a checkpoint file, or `hf://ORG/NAME@COMMIT`.
            program: path of `segpipe-predict`.

        Raises:
            RuntimeError: with the program's own words, if it fails.
            ValueError: if there is no volume or no checkpoint.
        """
        if volume is None or not checkpoint:
            raise ValueError("choose a volume and a checkpoint")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            scan = folder / "scan.nii.gz"
            slicer.util.exportNode(volume, str(scan))
            self._predict(scan, folder / "out", checkpoint, program)
            (record,) = json.loads((folder / "out/manifest.json").read_text())["scans"]
            names = dict(zip(record["ids"], record["labels"], strict=True))
            labels = slicer.util.loadLabelVolume(str(folder / "out/scan.nii.gz"))
            return self._show(labels, volume, names)

    def _predict(self, scan, output, checkpoint, program):
        """Run segpipe-predict, in the environment that Slicer was started from."""
        options = [f"checkpoint={checkpoint}", f"input={scan}", f"output={output}"]
        done = subprocess.run(
            [program, *options, "overlays=false"],
            env=slicer.util.startupEnvironment(),
            cwd=scan.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError((done.stderr or done.stdout).strip()[-2000:])

    def _show(self, labels, volume, names):
        """Return a segmentation node of a label volume, with the names of the labels."""
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        node.SetName(f"{volume.GetName()} segpipe")
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labels, node)
        slicer.mrmlScene.RemoveNode(labels)
        segmentation = node.GetSegmentation()
        for index in range(segmentation.GetNumberOfSegments()):
            segment = segmentation.GetNthSegment(index)
            segment.SetName(names.get(segment.GetLabelValue(), segment.GetName()))
        node.CreateClosedSurfaceRepresentation()
        return node

"""What feeds the network: scans that are read ahead, and validation cases that are read once."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.batches import NAMES, options, write_scans
from support.plans import case, plan
from torch import nn

from segpipe.batch import predict_batch
from segpipe.device import count_cores
from segpipe.engines import worker
from segpipe.metrics import dice_per_target
from segpipe.prediction import prefetch
from segpipe.prediction.predictor import Predictor
from segpipe.prediction.prefetch import count_helpers, one_core, prefetched
from segpipe.training import validation
from segpipe.training.validation import Validation, ValidationScans

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize("ahead", [1, 3])
def test_so_many_are_read_ahead_at_once_and_come_in_order(ahead: int) -> None:
    begun: list[int] = []
    together = threading.Barrier(ahead, timeout=20)  # passes only where so many are at work

    def read(number: int) -> int:
        begun.append(number)
        if number < ahead:
            together.wait()
        return number * number

    found = []
    with one_core(ahead) as pool:
        for number, square in enumerate(prefetched(pool, read, range(8), ahead)):
            assert len(begun) <= number + 1 + ahead
            found.append(square)
    assert found == [number * number for number in range(8)]


@pytest.mark.parametrize(
    ("device", "cores", "gib", "helpers"),
    [
        (CPU, 64, 500, 1),
        (CUDA, 64, 500, 4),
        (CUDA, 4, 500, 2),
        (CUDA, 1, 500, 1),
        (CUDA, 64, 20, 2),
    ],
)
def test_helpers_follow_device_cores_and_memory(
    monkeypatch: pytest.MonkeyPatch, device: torch.device, cores: int, gib: float, helpers: int
) -> None:
    monkeypatch.setattr(prefetch, "count_cores", lambda: cores)
    monkeypatch.setattr(prefetch, "usable_mib", lambda _device: 1024 * gib)
    assert count_helpers(device) == helpers
    assert count_cores() >= 1


def test_a_batch_reads_and_writes_with_all_helpers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first scan is computed, three more are read: else they would wait without end."""
    begun = write_scans(tmp_path)
    monkeypatch.setattr(worker, "count_helpers", lambda _device: 3)
    three = threading.Barrier(3, timeout=60)
    prepared = worker.prepare_scan
    names: list[str] = []

    def together(images: Sequence[Path], *more: Any, **options: Any) -> Any:
        names.append(images[0].name)
        if len(names) <= 3:
            three.wait()
        return prepared(images, *more, **options)

    monkeypatch.setattr(worker, "prepare_scan", together)
    assert predict_batch(options(begun)) == 0
    assert len(names) == len(NAMES)


@pytest.mark.parametrize(("most_mib", "reads"), [(1024.0, 1), (0.0, 2)])
def test_validation_cases_are_read_once_where_they_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_mib: float, reads: int
) -> None:
    planned = plan("plan.patch=[8,8,8]")
    cases = [case(tmp_path, seed) for seed in range(2)]
    read: list[str] = []
    read_labels = validation.read_labels
    monkeypatch.setattr(
        validation,
        "read_labels",
        lambda one, *more: (read.append(one.name), read_labels(one, *more))[1],
    )
    torch.manual_seed(0)
    predictor = Predictor(nn.Conv3d(1, len(planned.labels), 3, padding=1), planned, CPU)
    scans = ValidationScans(planned, most_mib)
    names: list[str] = []
    rows: list[np.ndarray] = []
    for _ in range(2):
        one = Validation(predictor, scans)
        for each in cases:
            one.measure(each)
        names = one.names
        rows = one.finish()
    assert sorted(read) == sorted([each.name for each in cases] * reads)
    assert names == [each.name for each in cases]
    expected = predictor.predict(cases[1].images)
    truth = read_labels(cases[1], planned, expected.grid).numpy()[0]
    assert np.array_equal(rows[1], dice_per_target(expected.labels, truth, planned.targets))

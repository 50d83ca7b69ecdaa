"""Windows of air are skipped, and nothing but air is lost."""

from pathlib import Path

import pytest
import torch
from support.plans import plan
from torch import Tensor, nn

from segpipe.data.phantom import write_phantom
from segpipe.data.prepare import prepare_scan
from segpipe.errors import ConfigError
from segpipe.plan import Plan
from segpipe.prediction.empty_windows import SkipEmptyWindows, should_skip_air
from segpipe.prediction.predictor import Predictor

CPU = torch.device("cpu")


def made(low: float = -150.0, regions: bool = False) -> Plan:
    labels = {"background": 0, "soft": 1, "dense": 2}
    sets = plan(
        "plan.patch=[12,12,12]", "plan.spacing=[1.5,1.5,1.5]", "plan.normalise=ct", labels=labels
    )
    both = {"soft": [1, 2], "dense": [2]} if regions else None
    return sets.model_copy(update={"foreground": [(low, 300.0, 100.0, 50.0)], "regions": both})


class BySignal(nn.Module):
    """Labels by intensity, but for noise of the place in the window, as a trained network does."""

    def __init__(self, regions: bool) -> None:
        super().__init__()
        self.regions, self.seen = regions, 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        soft, dense = 4 * (x + 1), 4 * (x - 1)
        return (
            torch.cat([soft, dense], 1)
            if self.regions
            else torch.cat([torch.zeros_like(x), soft, soft + dense], 1)
        )


@pytest.mark.parametrize("regions", [False, True])
def test_masks_of_the_phantom_are_the_same_with_fewer_windows(
    tmp_path: Path, regions: bool
) -> None:
    root = write_phantom(tmp_path / "phantom", modality="CT", train=1, test=1)
    scan = prepare_scan([next((root / "imagesTs").iterdir())], made())
    networks = BySignal(regions), BySignal(regions)
    every, fewer = (
        Predictor(network, made(regions=regions), CPU, skip_air=skip).segment(scan)
        for network, skip in zip(networks, (False, "auto"), strict=True)
    )
    assert (every.labels == fewer.labels).all()
    assert {0, 1, 2} <= set(every.labels.ravel().tolist())
    assert every.skipped == 0
    assert networks[0].seen == networks[1].seen + fewer.skipped
    assert fewer.skipped > 0.1 * networks[0].seen


def test_air_is_skipped_only_where_it_is_known_to_be_background() -> None:
    assert should_skip_air("auto", made())
    assert not should_skip_air(False, made())
    assert not should_skip_air("auto", made(low=-980))  # a label lies in air
    assert should_skip_air(True, made(low=-980))
    for asked in ("auto", False):
        assert not should_skip_air(asked, plan())
    with pytest.raises(
        ConfigError,
        match="skip_air=true needs Hounsfield units, but the network's channels are normalised by z",
    ):
        should_skip_air(True, plan())


@pytest.mark.parametrize("exclusive", [True, False])
def test_the_network_is_not_asked_about_windows_of_air(exclusive: bool) -> None:
    given: list[Tensor] = []

    def network(x: Tensor) -> Tensor:
        given.append(x)
        return x.repeat(1, 3, 1, 1)

    asked = SkipEmptyWindows(network, 3, exclusive)
    patches = torch.rand(4, 2, 5, 6)
    patches[:, 1] = 0
    patches[1, 1, 2, 3] = patches[3, 1, 4, 5] = 1  # one voxel is enough
    logits = asked(patches)
    assert torch.equal(given[0], patches[[1, 3], :1])
    assert torch.equal(logits[[1, 3]], patches[[1, 3], :1].repeat(1, 3, 1, 1))
    chances = (
        torch.softmax(logits[[0, 2]], 1)[:, 1:] if exclusive else torch.sigmoid(logits[[0, 2]])
    )
    assert chances.max() < 1e-8
    assert (asked.windows, asked.skipped) == (4, 2)
    patches[:, 1] = 0
    asked(patches)
    assert len(given) == 1

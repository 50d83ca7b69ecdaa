"""The network of a run: matched where requested, built, initialised and described."""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from segpipe.config.model import AnyModel, Model
from segpipe.files import write_json
from segpipe.nets.build import build, init_weights
from segpipe.nets.describe import Stage, describe
from segpipe.nets.match import Match, match
from segpipe.plan import Plan

log = logging.getLogger("segpipe")


@dataclass(frozen=True)
class RunNetwork:
    """The network of a run, with its size and cost before training.

    Attributes:
        module: the network itself.
        model: its options, with the channels that matching found.
        stages: its stages, with their cost for one patch.
        matched: the result of matching; None where none was requested.
    """

    module: nn.Module
    model: AnyModel
    stages: list[Stage]
    matched: Match | None

    @property
    def parameters(self) -> int:
        """Number of weights, frozen ones too."""
        return sum(weight.numel() for weight in self.module.parameters())

    @property
    def multiply_adds(self) -> int:
        """Number of multiply-adds for one patch."""
        return sum(stage.multiply_adds for stage in self.stages)

    @property
    def title(self) -> str:
        """The network's size in one line."""
        return f"{self.parameters:,} parameters, {self.multiply_adds:,} multiply-adds a patch"

    def write(self, file: Path) -> None:
        """Write size, cost and stages as JSON.

        Raises:
            DataError: if the file cannot be written.
        """
        matched = None
        if self.matched is not None:
            matched = {
                "what": self.matched.what,
                "reference": self.matched.reference,
                "reached": self.matched.reached,
            }
        facts = {
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "saved_mib": sum(stage.saved_mib for stage in self.stages),
            "match": matched,
            "stages": [asdict(stage) for stage in self.stages],
        }
        write_json(file, facts)


def make_network(model: AnyModel, plan: Plan, seed: int) -> RunNetwork:
    """Build the network that these options and this plan describe.

    Raises:
        ConfigError: if it cannot be built, or not be matched.
    """
    shape = (len(plan.channels), plan.outputs, plan.strides, plan.kernels)
    matched = None
    if isinstance(model, Model) and model.match != "none":
        matched = match(model, *shape, plan.network_patch)
        model = matched.model
        log.info(
            "matched %s: channels %s, %s of %s (%+.2f %%)",
            matched.what,
            ", ".join(map(str, matched.model.widths)),
            f"{matched.reached:,}",
            f"{matched.reference:,}",
            100 * matched.deviation,
        )
        if not matched.is_close:
            log.warning(
                "matched %s: no channels come nearer than %+.1f %%; wider model.channels would",
                matched.what,
                100 * matched.deviation,
            )
    module = build(model, *shape)
    if isinstance(model, Model):  # MONAI's networks initialise themselves
        init_weights(module, seed)
    network = RunNetwork(module, model, describe(model, *shape, plan.network_patch), matched)
    log.info("network: %s", network.title)
    return network

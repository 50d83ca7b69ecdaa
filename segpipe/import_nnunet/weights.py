"""nnU-Net's weights under the names, and with the axes, that they have in a U-Net of segpipe."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from segpipe.errors import ConfigError
from segpipe.import_nnunet.results import Layers
from segpipe.text import clipped

Pair = tuple[str, str]  # the name of a layer here, and in nnU-Net


@dataclass(frozen=True)
class Names:
    """The names of the layers of a `PlainConvUNet`, or of a `ResidualEncoderUNet`.

    Attributes:
        layers: its arguments.
    """

    layers: Layers

    def __iter__(self) -> Iterator[Pair]:
        """Yield all layers that have weights."""
        for level in range(self.layers.n_stages):
            ours = f"downs.{level - 1}.1" if level else "stem"
            if self.layers.n_blocks_per_stage is None:
                count = (self.layers.n_conv_per_stage or [])[level]
                yield from _units(f"{ours}.0", f"encoder.stages.{level}.0.convs", count)
            else:
                yield from self._residual_stage(ours, level)
        yield from self._decoder()

    def _residual_stage(self, ours: str, level: int) -> Iterator[Pair]:
        blocks = (self.layers.n_blocks_per_stage or [])[level]
        channels = self.layers.features_per_stage
        if level == 0:
            yield from _units(ours, "encoder.stem.convs", 1)
        for number in range(blocks):
            block = f"{ours}.{number if level else number + 1}"
            theirs = f"encoder.stages.{level}.blocks.{number}"
            yield from _unit(f"{block}.body.0", f"{theirs}.conv1")
            yield from _unit(f"{block}.body.1", f"{theirs}.conv2")
            if number == 0 and level and channels[level] != channels[level - 1]:
                # behind a pooling, where the stage strides
                after = int(set(self.layers.strides[level]) != {1})
                yield f"{block}.shortcut.{after}", f"{theirs}.skip.{after}.conv"
                yield f"{block}.shortcut.{after + 1}", f"{theirs}.skip.{after}.norm"

    def _decoder(self) -> Iterator[Pair]:
        """Yield the layers of the decoder; nnU-Net counts from the coarsest stage."""
        for level in range(self.layers.n_stages - 1):
            theirs = self.layers.n_stages - 2 - level
            count = self.layers.n_conv_per_stage_decoder[theirs]
            yield from _units(f"decoder_stages.{level}.0", f"decoder.stages.{theirs}.convs", count)
            yield f"ups.{level}", f"decoder.transpconvs.{theirs}"
            yield f"heads.{level}", f"decoder.seg_layers.{theirs}"


def _units(ours: str, theirs: str, count: int) -> Iterator[Pair]:
    for number in range(count):
        yield from _unit(f"{ours}.{number}", f"{theirs}.{number}")


def _unit(ours: str, theirs: str) -> Iterator[Pair]:
    """Yield the convolution and the norm of a unit."""
    yield f"{ours}.0", f"{theirs}.conv"
    yield f"{ours}.1", f"{theirs}.norm"


def renamed(
    file: Path, weights: Mapping[str, Tensor], layers: Layers, order: Sequence[int]
) -> dict[str, Tensor]:
    """Return nnU-Net's weights as a U-Net of segpipe has them.

    Args:
        file: the file that they come from, for messages.
        weights: the weights by nnU-Net's names.
        layers: the layers of the network.
        order: nnU-Net's axis for each axis of the network here.

    Raises:
        ConfigError: if one is left over; one that is missing shows when the network is filled.
    """
    found = {}
    left = dict(weights)
    for ours, theirs in Names(layers):
        for part in ("weight", "bias"):
            weight = left.pop(f"{theirs}.{part}", None)
            if weight is None:
                continue
            if weight.ndim == len(order) + 2:
                weight = weight.permute(0, 1, *(2 + axis for axis in order)).contiguous()
            found[f"{ours}.{part}"] = weight
    for name in left:
        raise ConfigError(f"{file}: holds the weights {clipped(name)}, for which there is no place")
    return found

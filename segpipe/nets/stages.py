"""The stages of a network, and what hooks record of each in one forward pass."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.hooks import RemovableHandle

from segpipe.nets.receptive_field import ReceptiveField
from segpipe.nets.unet import UNet

# parts of a U-Net that run beside the longest path through it
SIDE_PATHS = {"shortcut", "skips", "heads"}


def stage_parts(network: nn.Module) -> dict[str, dict[str, nn.Module]]:
    """Return the modules of each stage by their path, in the order in which they run."""
    if not isinstance(network, UNet):
        return {path: {path: module} for path, module in _children(network, "")}
    parts: dict[str, dict[str, nn.Module]] = {"encoder 0": {"stem": network.stem}}
    for i, down in enumerate(network.downs):
        parts[f"encoder {i + 1}"] = {f"downs.{i}": down}
    for i in reversed(range(len(network.downs))):
        parts[f"decoder {i}"] = {
            f"ups.{i}": network.ups[i],
            f"skips.{i}": network.skips[i],
            f"decoder_stages.{i}": network.decoder_stages[i],
        }
    for i, head in enumerate(network.heads):
        parts[f"head {i}"] = {f"heads.{i}": head}
    return parts


def _children(network: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield a foreign network's children, and those of its lists of modules, which never run."""
    for name, module in network.named_children():
        if isinstance(module, nn.ModuleList):
            yield from _children(module, f"{prefix}{name}.")
        else:
            yield prefix + name, module


class Recorder:
    """Records of each stage its output, its saved bytes and its receptive field.

    Args:
        network: a `UNet`, or a foreign network, whose receptive fields are not known.
        parts: the parts as `stage_parts` gives them.
        dims: axes of the network's images.

    Attributes:
        outputs: the last output of each stage that ran.
        saved_bytes: what each stage keeps for the backward pass.
        fields: the receptive field of each stage of a U-Net but its heads.
    """

    def __init__(
        self, network: nn.Module, parts: dict[str, dict[str, nn.Module]], dims: int
    ) -> None:
        self.network = network
        self.parts = parts
        self.outputs: dict[str, Tensor] = {}
        self.saved_bytes: dict[str, int] = {}
        self.fields: dict[str, tuple[int, ...] | None] = {}
        self._running = ""
        self._counted = {weight.untyped_storage()._cdata for weight in network.parameters()}
        self._field = ReceptiveField(dims)

    def run(self, image: Tensor) -> None:
        """Run the network once on an image `(B, C, *spatial)` and record it."""
        handles: list[RemovableHandle] = []
        for stage, modules in self.parts.items():
            for module in modules.values():
                handles += self._watch(stage, module)
        for path, layer in self.network.named_modules():
            if SIDE_PATHS.isdisjoint(path.split(".")):
                handles.append(layer.register_forward_hook(self._passes))
        with saved_tensors_hooks(self._saves, lambda tensor: tensor):
            self.network(image)
        for handle in handles:
            handle.remove()

    def _watch(self, stage: str, module: nn.Module) -> list[RemovableHandle]:
        def enters(_module: nn.Module, _inputs: Any) -> None:
            self._running = stage

        def leaves(_module: nn.Module, _inputs: Any, output: object) -> None:
            if isinstance(output, Tensor):
                self.outputs[stage] = output
            if isinstance(self.network, UNet) and not stage.startswith("head"):
                self.fields[stage] = self._field.field

        return [module.register_forward_pre_hook(enters), module.register_forward_hook(leaves)]

    def _passes(self, layer: nn.Module, _inputs: Any, _output: Any) -> None:
        self._field.passes(layer)

    def _saves(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._counted:
            self._counted.add(storage._cdata)
            before = self.saved_bytes.get(self._running, 0)
            self.saved_bytes[self._running] = before + storage.nbytes()
        return tensor

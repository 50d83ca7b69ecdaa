"""The shape that random changes of intensity share: a probability, and what becomes of an image."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from monai.transforms.transform import MapTransform, RandomizableTransform
from torch import Tensor


class RandImageChange(RandomizableTransform, MapTransform):
    """Changes `image` now and then, and nothing else; `change` says how.

    Args:
        prob: probability of any change.
    """

    def __init__(self, prob: float) -> None:
        MapTransform.__init__(self, "image")
        RandomizableTransform.__init__(self, prob)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the patch, with another image or as it is."""
        self.randomize(None)
        if not self._do_transform:
            return dict(data)
        return {**data, "image": self.change(data["image"])}

    @abstractmethod
    def change(self, image: Tensor) -> Tensor:
        """Return the changed image, shape `(c, x, y, z)`; what is random is drawn from `self.R`."""

"""segpipe: medical image segmentation in which every skip connection is a switch."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segpipe.prediction.predictor import Predictor

__version__ = "0.2.0"
__all__ = ["Predictor"]


def __getattr__(name: str) -> Any:
    """Import the predictor, and torch with it, on first use."""
    if name == "Predictor":
        from segpipe.prediction.predictor import Predictor

        return Predictor
    raise AttributeError(f"module 'segpipe' has no attribute {name!r}")

"""Keys that have another name now; typed, they say so, and stored files are read by it."""

RENAMED = {
    "optim.dice": "loss.dice",
    "optim.cross_entropy": "loss.cross_entropy",
    "trainer.workers": "data.workers",
    "study.reference": "comparison.reference",
    "study.overlays": "comparison.overlays",
    "model.describe": "mode=describe",
    "windows": "batch_size",
}

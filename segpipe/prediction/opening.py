"""The predictor that the options of `predict.py` ask for."""

from typing import Any

from segpipe import checkpoint
from segpipe.accelerator import place, tune_process
from segpipe.config.predict import Predict
from segpipe.device import choose_device, choose_format
from segpipe.files import digest
from segpipe.prediction.predictor import Predictor

# options on which the written files depend, beside the weights and the number format
NETWORK_OPTIONS = ("overlap", "mirror_axes", "overlays", "save", "skip_air", "backend")
CLEANING_OPTIONS = ("labels", "keep_largest", "min_volume_ml")


def open_predictor(options: Predict) -> Predictor:
    """Return the predictor of the checkpoints that the options name."""
    assert options.checkpoint is not None
    on_cpu = options.backend == "openvino" and options.device == "auto"
    device = choose_device("cpu" if on_cpu else options.device)
    tune_process(device)
    number_format = choose_format(options.precision, device)
    trained = checkpoint.load_ensemble(options.checkpoint, options.mirror_axes)
    return Predictor(
        place(trained.network, device),
        trained.plan.model_copy(update={"nan": options.nan}),
        device,
        number_format,
        overlap=options.overlap,
        batch_size=options.batch_size,
        save=options.save,
        folder=options.output,
        skip_air=options.skip_air,
        backend=options.backend,
        compiled=options.compile,
    )


def mask_settings(options: Predict, predictor: Predictor) -> list[Any]:
    """Return plain values on which a mask depends, beside its scan."""
    assert options.checkpoint is not None
    weights = digest(list(map(checkpoint.find, options.checkpoint)))
    names = {*NETWORK_OPTIONS, *CLEANING_OPTIONS}
    if options.nan != "refuse":  # so the masks of earlier versions stay as they are
        names.add("nan")
    return [weights, predictor.number_format, options.model_dump(mode="json", include=names)]

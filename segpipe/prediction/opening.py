"""The predictor that the options of `predict.py` ask for."""

import logging
from typing import Any

from segpipe.accelerator import place, tune_process
from segpipe.config.predict import Predict
from segpipe.config.scoring import USUAL, Scoring
from segpipe.device import choose_device, choose_format
from segpipe.ensembles import find_all, load_ensemble
from segpipe.files import digest
from segpipe.io.dicom_stacks import ROUNDED_MM, TOLERANCE
from segpipe.postprocess import PostProcess
from segpipe.prediction.dicom_outputs import DICOM_FILES, DicomDetails, dicom_details
from segpipe.prediction.postprocessing import requested
from segpipe.prediction.predictor import Predictor

log = logging.getLogger("segpipe")
# options on which the written files depend, beside the weights and the number format
NETWORK_OPTIONS = ("overlap", "mirror_axes", "overlays", "save", "skip_air", "backend")
CLEANING_OPTIONS = ("labels", "keep_largest", "min_volume_ml")


def open_predictor(options: Predict) -> tuple[Predictor, DicomDetails | None]:
    """Return the predictor of the checkpoints that the options name, and what DICOM files say.

    Raises:
        ConfigError: if a checkpoint or an option cannot be used.
    """
    assert options.checkpoint is not None
    TOLERANCE.mm = options.slice_tolerance
    on_cpu = options.backend == "openvino" and options.device == "auto"
    device = choose_device("cpu" if on_cpu else options.device)
    tune_process(device)
    number_format = choose_format(options.precision, device)
    trained = load_ensemble(options.checkpoint, options.mirror_axes)
    details = dicom_details(options, trained)
    chosen = trained.postprocess if options.postprocess == "auto" else PostProcess()
    if chosen != PostProcess():
        log.info("post-processing of the checkpoint: %s (postprocess=none: without)", chosen)
    predictor = Predictor(
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
        postprocess=requested(options, chosen, trained.plan.labels),
        quality=trained.quality if options.quality else (),
    )
    return predictor, details


def mask_settings(options: Predict, predictor: Predictor) -> list[Any]:
    """Return plain values on which a mask depends, beside its scan."""
    assert options.checkpoint is not None
    labels = predictor.plan.labels
    weights = digest(find_all(options.checkpoint))
    names = {*NETWORK_OPTIONS, *CLEANING_OPTIONS}
    if options.nan != "refuse":  # so the masks of earlier versions stay as they are
        names.add("nan")
    if options.slice_tolerance != ROUNDED_MM:
        names.add("slice_tolerance")
    if set(DICOM_FILES) & set(options.save):
        names |= {"seg_type", "codes"}
    settings = [weights, predictor.number_format, options.model_dump(mode="json", include=names)]
    unset = options.model_copy(update={"thresholds": None, "temperature": None})
    typed = requested(unset, PostProcess(), labels)
    if predictor.postprocess != typed:
        stored = predictor.postprocess.model_dump(mode="json")
        if predictor.postprocess.temperature == 1:  # so the masks of earlier versions stay
            del stored["temperature"]
        settings.append(stored)
    return settings


def scoring_settings(scoring: Scoring) -> list[Any]:
    """Return plain values on which the scores of a scan depend, beside its mask and its truth.

    There are none where all is as usual, so that the scores of earlier versions stay.
    """
    names = set(Scoring.model_fields)
    chosen = scoring.model_dump(mode="json", include=names)
    return [] if chosen == USUAL.model_dump(mode="json") else [chosen]

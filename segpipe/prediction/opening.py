"""The predictor that the options of `predict.py` ask for."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from segpipe.accelerator import place, tune_process
from segpipe.checkpoint import Trained
from segpipe.config.predict import Predict
from segpipe.config.scoring import USUAL, Scoring
from segpipe.device import choose_device
from segpipe.ensembles import find_all, load_ensemble
from segpipe.files import digest
from segpipe.io.dicom_stacks import ROUNDED_MM, TOLERANCE
from segpipe.postprocess import PostProcess
from segpipe.prediction.dicom_outputs import DICOM_FILES, DicomDetails, dicom_details
from segpipe.prediction.inference_plan import format_for
from segpipe.prediction.merged import MergedPredictor, merged_labels, with_label_ids
from segpipe.prediction.postprocessing import check_thresholds, requested, thresholds_of
from segpipe.prediction.predictor import Predictor
from segpipe.units import UNITS

log = logging.getLogger("segpipe")
# options on which the written files depend, beside the weights and the number format
NETWORK_OPTIONS = ("overlap", "mirror_axes", "overlays", "save", "skip_air", "backend")
CLEANING_OPTIONS = ("labels", "keep_largest", "min_volume_ml")


def open_predictor(
    options: Predict,
) -> tuple[Predictor | MergedPredictor, DicomDetails | None]:
    """Return the predictor of the checkpoints that the options name, and what DICOM files say.

    Raises:
        ConfigError: if a checkpoint or an option cannot be used.
    """
    TOLERANCE.mm = options.slice_tolerance
    on_cpu = options.backend == "openvino" and options.device == "auto"
    device = choose_device("cpu" if on_cpu else options.device)
    tune_process(device)
    networks = {}
    for name, files in options.networks.items():
        networks[name] = load_ensemble(files, options.mirror_axes)
    trained = next(iter(networks.values()))
    if len(networks) > 1:
        trained = _merged(networks)
    plan = with_label_ids(trained.plan, options.label_ids or {})
    trained = replace(trained, plan=plan)
    details = dicom_details(options, trained)
    chosen = trained.postprocess if options.postprocess == "auto" else PostProcess()
    if chosen != PostProcess():
        line = chosen.line(UNITS[plan.unit])
        log.info("post-processing of the checkpoint: %s (postprocess=none: without)", line)
    postprocess = requested(options, chosen, plan.labels)
    if len(networks) == 1:
        return _predictor(options, trained, postprocess, device), details
    check_thresholds([network.plan for network in networks.values()], postprocess)
    parts = {}
    for name, network in networks.items():
        own = PostProcess(thresholds=thresholds_of(network.plan, postprocess))
        parts[name] = _predictor(options, replace(network, quality=()), own, device)
    return MergedPredictor(parts, plan, postprocess), details


def _merged(networks: Mapping[str, Trained]) -> Trained:
    """Return the first of several networks, with the labels and post-processing of all."""
    plans = [network.plan for network in networks.values()]
    labels = merged_labels(plans)
    both = {"labels": labels, "regions": None, "paint": None, "ignore": None}
    chosen = PostProcess.union([network.postprocess for network in networks.values()])
    first = next(iter(networks.values()))
    plan = plans[0].model_copy(update=both)
    return replace(first, plan=plan, postprocess=chosen, quality=())


def _predictor(
    options: Predict, trained: Trained, postprocess: PostProcess, device: torch.device
) -> Predictor:
    """Return the predictor of one network."""
    return Predictor(
        place(trained.network, device),
        trained.plan.model_copy(update={"nan": options.nan}),
        device,
        format_for(trained.plan, options.precision, device),
        overlap=options.overlap,
        batch_size=options.batch_size,
        save=options.save,
        folder=options.output,
        skip_air=options.skip_air,
        backend=options.backend,
        compiled=options.compile,
        postprocess=postprocess,
        quality=trained.quality if options.quality else (),
        seen=trained.seen,
    )


def mask_settings(options: Predict, predictor: Predictor | MergedPredictor) -> list[Any]:
    """Return plain values on which a mask depends, beside its scan."""
    labels = predictor.plan.labels
    weights = digest(find_all(options.checkpoint_paths))
    names = {*NETWORK_OPTIONS, *CLEANING_OPTIONS}
    if options.nan != "refuse":  # so the masks of earlier versions stay as they are
        names.add("nan")
    if options.slice_tolerance != ROUNDED_MM:
        names.add("slice_tolerance")
    if set(DICOM_FILES) & set(options.save):
        names |= {"seg_type", "codes"}
    if options.label_ids is not None:
        names.add("label_ids")
    settings: list[Any] = [
        weights,
        predictor.number_format,
        options.model_dump(mode="json", include=names),
    ]
    if len(options.networks) > 1:  # grouping and order decide what is painted
        settings.append([digest(find_all(files)) for files in options.networks.values()])
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

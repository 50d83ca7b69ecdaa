"""The charts of a run's page, drawn from its record; None where it has not come so far."""

from segpipe.planning.fingerprint import CaseFacts, Facts, Intensities
from segpipe.reporting.agreement import VOLUMES_CAPTION, draw_reliability, draw_volumes
from segpipe.reporting.fingerprint import draw_fingerprint
from segpipe.reporting.page import Picture, embed
from segpipe.reporting.plots import BoxPanel, draw_curves
from segpipe.reporting.run_record import FACTS, RunRecord
from segpipe.reporting.score_tables import embed_boxes, score_boxes

WIDTH = 1100  # pixels of a picture inside the page


def network(run: RunRecord) -> Picture | None:
    """Return the drawing of the network."""
    file = run.folder / "network.png"
    return embed(file, "the network, its stages and skips", WIDTH) if file.is_file() else None


def fingerprint(run: RunRecord) -> Picture | None:
    """Draw sizes, spacings, labels and intensities of the cases."""
    stored = run.json(FACTS)
    if stored is None:
        return None
    cases = [CaseFacts(**case) for case in stored["cases"]]
    channels = [Intensities(**channel) for channel in stored["intensities"]]
    file = run.folder / "fingerprint.png"
    draw_fingerprint(Facts(cases, channels), file, run.units)
    return embed(file, "size, spacing, labels and intensities of the cases", WIDTH)


def curves(run: RunRecord) -> Picture | None:
    """Draw loss, learning rate and Dice over the steps."""
    file = run.folder / "curves.png"
    if not run.metrics:
        return None
    draw_curves(run.folder / "metrics.csv", file, run.loss_name)
    return embed(file, "loss, learning rate and Dice per label over the steps", WIDTH)


def volumes(run: RunRecord) -> Picture | None:
    """Draw predicted against true volumes."""
    file = run.folder / "volumes.png"
    if not draw_volumes(run.scores, file, run.units):
        return None
    return embed(file, "predicted against true volumes of each label", WIDTH, VOLUMES_CAPTION)


def reliability(run: RunRecord) -> Picture | None:
    """Draw how often predictions are right, by their probability."""
    calibration = run.postprocess.get("calibration")
    if not calibration:
        return None
    file = run.folder / "reliability.png"
    draw_reliability(calibration, file)
    caption = (
        "Reliability of voxels in question, those with 1 % of foreground or more. The temperature "
        f"{calibration['temperature']:.3g} is stored for saved probabilities; the curve with a "
        "temperature is of cases on which that was not learnt."
    )
    return embed(file, "share of right voxels against their probability", WIDTH, caption)


def boxes(run: RunRecord) -> Picture | None:
    """Return a plot of the summary's metrics; of Dice alone where the run was only validated."""
    file = run.folder / "boxes.png"
    if run.scores:
        return score_boxes(run.scores, run.units, file)
    if not run.last:
        return None
    values: dict[str, list[float]] = {}
    for case in run.last:
        values.setdefault(case.label, []).append(case.dice)
    return embed_boxes([BoxPanel("Dice", values, is_share=True)], file)

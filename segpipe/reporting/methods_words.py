"""The words and citations for what a config or a plan names."""

from collections.abc import Mapping, Sequence

NORMALISED = {
    "zscore": "to mean 0 and standard deviation 1 of each scan",
    "zscore_nonzero": "to mean 0 and standard deviation 1 of the voxels that are not 0",
    "ct": "by clipping to the 0.5 and 99.5 percentiles of labelled voxels of the training cases, "
    "and by their mean and standard deviation",
    "rescale": "to the range from 0 to 1 of each scan",
    "rgb": "by division by 255",
    "none": "in no way",
}
LONG_SKIPS = {
    "none": "no long skip connections",
    "add": "long skip connections by addition",
    "concat": "long skip connections by concatenation",
    "gate": "long skip connections by attention gates [@oktay2018attention] and concatenation",
}
SHORT_SKIPS = {
    "none": "",
    "residual": "residual blocks [@he2016residual]",
    "residual_d": "residual blocks [@he2016residual] with average pooling in the shortcut",
    "dense": "dense blocks [@huang2017dense]",
}
LOSSES = {
    "dice": "soft Dice [@milletari2016vnet]",
    "cross_entropy": "cross-entropy",
    "focal": "focal loss [@lin2017focal]",
    "boundary": "boundary loss [@kervadec2019boundary]",
    "cldice": "clDice [@shit2021cldice]",
    "top_k": "cross-entropy of the hardest voxels [@wu2016bridging]",
    "tversky": "Tversky loss [@salehi2017tversky]",
    "generalised_dice": "generalised Dice [@sudre2017generalised]",
}
OPTIMISERS = {
    "adamw": "AdamW [@loshchilov2019adamw]",
    "sgd": "stochastic gradient descent with Nesterov momentum 0.99",
}
SCHEDULES = {"cosine": "cosine decay", "poly": "polynomial decay", "constant": "no decay"}
METRICS = {
    "dice": "Dice [@dice1945measures]",
    "iou": "intersection over union",
    "hd95_mm": "95th percentile Hausdorff distance [@huttenlocher1993hausdorff]",
    "assd_mm": "average symmetric surface distance",
    "nsd": "normalised surface Dice [@nikolov2021surface]",
    "cldice": "clDice [@shit2021cldice]",
    "object_pq": "panoptic quality of objects [@kirillov2019panoptic]",
}
ACTIVATIONS = {"leaky_relu": "leaky ReLU", "relu": "ReLU", "prelu": "PReLU", "elu": "ELU"}
TIMES = "\N{MULTIPLICATION SIGN}"


def words_of(known: Mapping[str, str], name: str) -> str:
    """Return the words for a name; of an extension's own, the name itself."""
    return known.get(name, name.replace("_", " "))


def distinct(known: Mapping[str, str], names: str | Sequence[str]) -> list[str]:
    """Return the words for each name that occurs, once; names without words are left out."""
    listed = [names] if isinstance(names, str) else list(names)
    words = [words_of(known, name) for name in dict.fromkeys(listed)]
    return [one for one in words if one]


def listing(words: Sequence[str]) -> str:
    """Return words as `a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def product(sizes: Sequence[object]) -> str:
    """Return sizes as `40 x 56 x 40`, with the sign of multiplication."""
    return f" {TIMES} ".join(str(size) for size in sizes)

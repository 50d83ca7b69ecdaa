"""How the intensities of each channel are brought to a common scale."""

from collections.abc import Sequence

from segpipe.config.train import Normalise, Train
from segpipe.errors import ConfigError
from segpipe.planning.decision import GIVEN, Decision

# a channel with more zeros than this was cut out of its background, as brains are
CUT_OUT_ZERO_FRACTION = 0.25
HOUNSFIELD = ("CT", "HU")  # first words of the names of channels in Hounsfield units
# names of channels by which nnU-Net's dataset.json asks for a normalisation
NAMED: dict[str, Normalise] = {
    "nonorm": "none",
    "rescale_to_0_1": "rescale",
    "rgb_to_0_1": "rgb",
}


def decide_normalise(
    options: Train, channels: list[str], zero_fraction: Sequence[float]
) -> Decision[list[Normalise]]:
    """Return per channel how its intensities are brought to a common scale.

    Raises:
        ConfigError: if there are more or fewer given entries than channels.
    """
    given = options.plan.normalise
    if given is not None:
        if len(given) not in (1, len(channels)):
            raise ConfigError(
                f"plan.normalise has {len(given)} entries, but there are {len(channels)} channels: "
                "give each one"
            )
        rules = given * len(channels) if len(given) == 1 else given
        return Decision(rules, f"intensities {', '.join(rules)}", GIVEN)
    rules = []
    facts = []
    for channel, fraction in zip(channels, zero_fraction, strict=True):
        rules.append(_rule(channel, fraction))
        facts.append(f"{channel} ({100 * fraction:.0f} % are 0)")
    why = f"channels are {', '.join(facts)}"
    return Decision(rules, f"intensities {', '.join(rules)}", why)


def _rule(channel: str, zero_fraction: float) -> Normalise:
    """Return the normalisation of a channel, by its name and its fraction of zeros."""
    named = NAMED.get(channel.casefold())
    if named is not None:
        return named
    if channel.split(" ")[0].upper() in HOUNSFIELD:
        return "ct"
    return "zscore_nonzero" if zero_fraction > CUT_OUT_ZERO_FRACTION else "zscore"

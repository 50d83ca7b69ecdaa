"""Each loss term: its gradient by finite differences, and its value by hand."""

from dataclasses import replace

import pytest
import torch
from monai.losses.cldice import soft_skel
from support.config import composed
from support.plans import fingerprint
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from segpipe.config.compose import check, choice_names
from segpipe.config.train import Loss, Train
from segpipe.config.validation import validate
from segpipe.errors import ConfigError
from segpipe.plan import Plan
from segpipe.planning.rules import make_plan
from segpipe.registry import LOSSES
from segpipe.stored import read_config
from segpipe.training.loss import LossInput, SegmentationLoss, TermOptions
from segpipe.training.loss.centreline import centre_line

LABELS = {"background": 0, "organ": 1, "vessel": 2}
REGIONS = "data.regions={both:[1,2],vessel:[2]}"


def plan(*overrides: str) -> Plan:
    options = composed(*overrides)
    return make_plan(options, fingerprint((1, 1, 1), (64, 64, 64)), ["MRI"], LABELS, "cpu")


def of_labels(logits: Tensor, label: Tensor, options: TermOptions | None = None) -> LossInput:
    """Return the input of a term for labels that exclude one another, all voxels annotated."""
    truth = one_hot(label, logits.shape[1]).movedim(-1, 1).to(logits.dtype)
    probabilities = torch.softmax(logits, 1)
    return LossInput(logits, probabilities, truth, label, None, True, options or TermOptions())


def of_regions(logits: Tensor, truth: Tensor, options: TermOptions | None = None) -> LossInput:
    """Return the input of a term for regions."""
    label = torch.zeros_like(truth[:, 0]).long()
    probabilities = torch.sigmoid(logits)
    return LossInput(logits, probabilities, truth, label, None, False, options or TermOptions())


def certain(mask: Tensor) -> LossInput:
    """Return the input of a network that is sure of `mask[0]` where `mask[1]` is the truth."""
    predicted = mask[:1].float()[None]
    truth = mask[1:].float()[None]
    label = torch.zeros_like(truth[:, 0]).long()
    return LossInput(torch.logit(predicted, 1e-6), predicted, truth, label, None, False)


@pytest.mark.parametrize("size", [(5, 6), (4, 5, 3)])
@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("name", LOSSES.names())
def test_the_gradient_is_that_of_finite_differences(
    name: str, exclusive: bool, size: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(1)
    shape = (2, 3, *size)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    label = torch.randint(0, 3, (2, *size), generator=generator)
    truth = torch.randint(0, 2, shape, generator=generator).double()
    options = TermOptions(class_weights=[0.5, 1.0, 3.0], cldice_steps=2)

    def term(values: Tensor) -> Tensor:
        if exclusive:
            return LOSSES[name](of_labels(values, label, options))
        return LOSSES[name](of_regions(values, truth, options))

    term(logits).backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() > 0
    assert torch.autograd.gradcheck(term, (logits,), atol=1e-6)


def test_weighted_cross_entropy_is_pytorchs() -> None:
    logits = torch.randn(2, 3, 4, 5)
    label = torch.randint(0, 3, (2, 4, 5))
    weights = [0.5, 1.0, 4.0]
    batch = of_labels(logits, label, TermOptions(class_weights=weights))
    expected = cross_entropy(logits, label, torch.tensor(weights))
    assert float(LOSSES["cross_entropy"](batch)) == pytest.approx(float(expected), rel=1e-5)


def test_a_region_counts_as_much_as_its_weight() -> None:
    logits = torch.randn(2, 2, 4, 5)
    truth = torch.randint(0, 2, (2, 2, 4, 5)).float()
    means = of_regions(logits, truth).entropies.mean((0, 2, 3))
    batch = of_regions(logits, truth, TermOptions(class_weights=[1.0, 3.0]))
    expected = (means[0] + 3 * means[1]) / 4
    assert float(LOSSES["cross_entropy"](batch)) == pytest.approx(float(expected), rel=1e-5)


def test_focal_loss_with_gamma_0_is_cross_entropy() -> None:
    batch = of_labels(torch.randn(1, 3, 6), torch.tensor([[0, 1, 2, 0, 1, 2]]))
    flat = of_labels(batch.logits, batch.label, TermOptions(focal_gamma=0.0))
    assert float(LOSSES["focal"](flat)) == pytest.approx(float(LOSSES["cross_entropy"](batch)))


def test_tversky_counts_misses_and_false_alarms_as_told() -> None:
    predicted = torch.tensor([1, 1, 1, 0, 0, 0, 0, 0])
    truth = torch.tensor([1, 0, 0, 1, 1, 1, 0, 0])  # 1 hit, 2 false alarms, 3 misses
    expected = 1 - 1 / (1 + 0.3 * 2 + 0.7 * 3)
    assert float(LOSSES["tversky"](certain(torch.stack([predicted, truth])))) == pytest.approx(
        expected, rel=1e-4
    )


def test_generalised_dice_weighs_labels_by_their_size() -> None:
    """The weights of 1 and 9 voxels are 1 and 1/81 (Sudre 2017, equation 1)."""
    label = torch.tensor([[1, 0, 0, 0, 0, 0, 0, 0, 0, 0]])
    probability = torch.tensor([0.5, *[0.2] * 9])
    logits = torch.log(torch.stack([1 - probability, probability]))[None]
    rare = (0.5, 1 + 0.5 + 9 * 0.2)  # intersection, sum of both
    common = (9 * 0.8, 9 + 0.5 + 9 * 0.8)
    expected = 1 - 2 * (rare[0] + common[0] / 81) / (rare[1] + common[1] / 81)
    found = float(LOSSES["generalised_dice"](of_labels(logits, label)))
    assert found == pytest.approx(expected, rel=1e-5)


def test_generalised_dice_of_a_large_patch_is_not_smoothed_away() -> None:
    label = torch.zeros(1, 100, 100, 20, dtype=torch.long)
    label[:, 50:] = 1
    logits = torch.zeros(1, 2, 100, 100, 20)  # 0.5 everywhere: Dice 0.5
    assert float(LOSSES["generalised_dice"](of_labels(logits, label))) == pytest.approx(0.5, 1e-4)


def test_top_k_is_the_mean_of_the_largest_entropies() -> None:
    logits = torch.randn(2, 3, 5, 4)
    label = torch.randint(0, 3, (2, 5, 4))
    batch = of_labels(logits, label, TermOptions(top_k_share=0.25))
    entropies = cross_entropy(logits, label, reduction="none").flatten()
    expected = entropies.sort(descending=True).values[:10].mean()
    assert float(LOSSES["top_k"](batch)) == pytest.approx(float(expected), rel=1e-5)


def test_boundary_loss_is_the_signed_distance_of_what_is_predicted() -> None:
    """Along a line 1 is inside with -1, 0, -1 ... and the voxel two steps outside counts 2."""
    truth = torch.tensor([0, 0, 0, 1, 1, 1, 0, 0])
    inside = torch.tensor([0, 0, 0, 1, 1, 1, 0, 0])
    far = torch.tensor([0, 1, 0, 0, 0, 0, 0, 0])
    assert float(LOSSES["boundary"](certain(torch.stack([inside, truth])))) == -1 / 8
    assert float(LOSSES["boundary"](certain(torch.stack([far, truth])))) == 2 / 8


def test_boundary_loss_measures_along_thick_slices_too() -> None:
    truth = torch.zeros(5, 5)
    truth[2, 2] = 1
    across = torch.zeros(5, 5)
    across[0, 2] = 1
    batch = certain(torch.stack([across, truth]))
    thick = replace(batch, spacing=(4.0, 1.0))
    assert float(LOSSES["boundary"](batch)) == pytest.approx(2 / 25)
    assert float(LOSSES["boundary"](thick)) == pytest.approx(8 / 25)


def test_the_loss_hands_on_the_spacing_of_each_resolution() -> None:
    seen = []

    @LOSSES.register("spy", help="what a term is told")
    def spy(batch: LossInput) -> Tensor:
        seen.append(batch.spacing)
        return batch.logits.mean()

    try:
        made = plan().model_copy(update={"spacing_mm": [1.0, 1.0, 4.0]})
        outputs = [torch.randn(1, 3, 8, 8, 4), torch.randn(1, 3, 4, 4, 4)]
        SegmentationLoss(made, {"spy": 1.0})(outputs, torch.zeros(1, 1, 8, 8, 4).byte())
    finally:
        del LOSSES.added["spy"]
        del LOSSES.values["spy"]
    assert seen == [[1.0, 1.0, 4.0], [1.0, 1.0, 2.0]]


@pytest.mark.parametrize("size", [(12, 14), (7, 8, 9)])
def test_the_centre_line_is_monais(size: tuple[int, ...]) -> None:
    tube = torch.rand(2, 3, *size)
    assert torch.equal(centre_line(tube, 3), soft_skel(tube, 3))


def test_cldice_sees_a_tear_that_dice_hardly_sees() -> None:
    """A bar three wide, of which a ninth is missing: at its end it is shorter, else it is torn."""
    truth = torch.zeros(9, 31)
    truth[3:6, 2:29] = 1
    thin = truth.clone()
    thin[3, :] = 0
    torn = truth.clone()
    torn[:, 14:17] = 0
    losses = {}
    for name, mask in {"whole": truth, "thin": thin, "torn": torn}.items():
        losses[name] = float(LOSSES["cldice"](certain(torch.stack([mask, truth]))))
    assert losses["whole"] == pytest.approx(0, abs=1e-6)
    assert losses["torn"] == pytest.approx(1 - 2 * 1 * (25 / 28) / (1 + 25 / 28), abs=0.02)
    assert losses["thin"] < losses["torn"]


def test_cldice_compares_only_the_labels_that_it_is_told() -> None:
    options = composed("loss.cldice_labels=[vessel]").loss
    logits = torch.randn(1, 3, 8, 8, 8)
    label = torch.randint(0, 3, (1, 1, 8, 8, 8))
    loss = SegmentationLoss(plan(), {"cldice": 1.0}, options)
    before = float(loss(logits, label))
    assert loss.options.cldice_channels == [2]
    label[label == 1] = 0  # of the organ
    assert float(loss(logits, label)) == pytest.approx(before)


@pytest.mark.parametrize("key", ["class_weights={vesel:2}", "cldice_labels=[vesel]"])
@pytest.mark.parametrize("more", [[], [REGIONS]])
def test_a_name_that_the_network_does_not_know_is_one_line(key: str, more: list[str]) -> None:
    options = composed(f"loss.{key}").loss
    with pytest.raises(ConfigError, match=r"loss\.\w+: vesel is none of .* Did you mean 'vessel'"):
        SegmentationLoss(plan(*more), options.weights, options)


def test_a_term_without_meaning_under_an_ignore_label_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"loss\.cldice needs every voxel .* set loss\.cldice=0"):
        SegmentationLoss(plan("data.ignore_label=9"), {"cldice": 1.0})


@pytest.mark.parametrize("choice", choice_names("loss"))
@pytest.mark.parametrize("more", [[], [REGIONS]])
def test_each_preset_is_a_loss_that_falls(choice: str, more: list[str]) -> None:
    made = plan(*more)
    options = composed(f"loss={choice}").loss
    loss = SegmentationLoss(made, options.weights, options)
    label = torch.zeros(1, 1, 8, 8, 8, dtype=torch.uint8)
    label[:, :, 2:6, 2:6, 1:] = 1
    label[:, :, 3:5, 3:5, 2:] = 2
    logits = torch.zeros(1, made.outputs, 8, 8, 8, requires_grad=True)
    first = loss(logits, label)
    (gradient,) = torch.autograd.grad(first, logits)
    assert loss(logits - 10 * gradient, label).item() < first.item()


def test_wrong_values_of_the_options_are_one_line() -> None:
    for word in ("loss.top_k_share=0", "loss.cldice_steps=0", "loss.class_weights={vessel:0}"):
        with pytest.raises(ConfigError, match=word.split("=")[0]):
            check("train", Train, [word])


def test_options_that_are_not_given_are_those_of_the_papers() -> None:
    assert TermOptions.of(composed().loss, plan()) == TermOptions()


def test_a_config_from_before_the_options_means_what_it_meant() -> None:
    stored = read_config("config.yaml", {"loss": {"dice": 1, "focal": 0.5}})
    options = validate(Loss, stored["loss"])
    assert options.weights == {"dice": 1, "focal": 0.5}
    assert TermOptions.of(options, plan()) == TermOptions()

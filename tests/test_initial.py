"""A run may start from trained weights: what of them is used, and what is said of it."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.commands import TINY, command
from support.config import composed
from support.plans import fingerprint
from torch import Tensor, nn

from segpipe import checkpoint
from segpipe.checkpoint import KEY, NETWORK, TrainedOn, metadata
from segpipe.config.initial import pinned
from segpipe.ensembles import write_ensemble
from segpipe.errors import ConfigError
from segpipe.files import digest
from segpipe.nets.build import build, init_weights
from segpipe.nets.transfer import Ends, find_ends, transfer
from segpipe.plan import Plan
from segpipe.planning.inherited import Origin, inherit_plan, match_channels, warn_of_changes
from segpipe.planning.rules import make_plan
from segpipe.postprocess import PostProcess
from segpipe.training.initial import find_member, match_outputs
from segpipe.training.initial_model import check_plan_keys, with_own
from segpipe.training.optim import make_optimizer, set_learning_rate

ORGANS = {"background": 0, "kidneys": 4, "liver": 2}
LABELS = {"background": 0, "liver": 1, "tumour": 2}
NEW_LABELS = {"background": 0, "vessel": 3, "liver": 7}
SIZES = ([[2, 2]], [[3, 3], [3, 3]])  # strides and kernels of a 2D network of two levels
SMALL = ("model=unet2d", "model.channels=[4,6]")
BATCH = 2


def moved(
    match: Ends, *overrides: str, old: tuple[int, int] = (2, 3)
) -> tuple[nn.Module, nn.Module, dict[str, str]]:
    """An old network, a new one with its weights, and what became of each weight.

    Args:
        match: how channels and outputs go on.
        overrides: of the network.
        old: channels and outputs of the old one.
    """
    model = composed(*SMALL, *overrides).model
    before = build(model, *old, *SIZES)
    init_weights(before, seed=1)
    after = build(model, len(match.channels), len(match.outputs), *SIZES)
    init_weights(after, seed=2)
    shape = (len(match.channels), len(match.outputs), *SIZES)
    states = transfer(after, before.state_dict(), find_ends(model, shape), match)
    return before.eval(), after.eval(), {name: str(state) for name, state in states.items()}


@torch.no_grad()
def logits(network: nn.Module, image: Tensor) -> Tensor:
    return network(image)


def image(channels: int) -> Tensor:
    return torch.randn(BATCH, channels, 16, 16, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("model.short_skips=residual", "model.norm=batch"),
        ("model.order=pre", "model.block=bottleneck"),
        ("model.short_skips=dense", "model.growth_rate=3"),
    ],
    ids=lambda words: " ".join(words) or "plain",
)
def test_the_same_channels_and_labels_take_every_weight(overrides: tuple[str, ...]) -> None:
    before, after, states = moved(Ends([0, 1], [0, 1, 2], 2, 3), *overrides)
    assert set(states.values()) == {"loaded"}
    assert torch.equal(logits(before, image(2)), logits(after, image(2)))


def test_labels_keep_their_rows_by_name_and_others_are_new() -> None:
    before, after, states = moved(Ends([0, 1], [0, None, 1], 2, 3))
    old = logits(before, image(2))
    new = logits(after, image(2))
    assert torch.equal(new[:, 0], old[:, 0])
    assert torch.allclose(new[:, 2], old[:, 1])
    assert not torch.allclose(new[:, 1], old[:, 2])
    heads = {name: state for name, state in states.items() if name.startswith("heads.")}
    assert set(heads.values()) == {"adapted"}
    assert {state for name, state in states.items() if name not in heads} == {"loaded"}
    model = composed(*SMALL).model
    fresh = build(model, 2, 3, *SIZES)
    init_weights(fresh, seed=2)
    head = after.get_parameter("heads.0.weight")
    assert torch.equal(head[1], fresh.get_parameter("heads.0.weight")[1])


def test_no_known_label_means_a_new_head() -> None:
    _, _, states = moved(Ends([0, 1], [None, None], 2, 3))
    assert {state for name, state in states.items() if name.startswith("heads.")} == {"new"}


@pytest.mark.parametrize("order", ["post", "pre"])
def test_channels_go_by_their_names(order: str) -> None:
    before, after, _ = moved(Ends([1, 0], [0, 1, 2], 2, 3), f"model.order={order}")
    assert torch.allclose(
        logits(before, image(2)), logits(after, image(2).flip(1)), rtol=1e-4, atol=1e-5
    )


def test_other_channels_take_the_mean_of_all_filters() -> None:
    """So that two copies of an image give what that image gave, with the one filter or with two."""
    before, after, states = moved(Ends([None, None], [0, 1, 2], 1, 3), old=(1, 3))
    alone = image(1)
    assert torch.allclose(
        logits(before, alone), logits(after, alone.repeat(1, 2, 1, 1)), rtol=1e-4, atol=1e-5
    )
    adapted = [name for name, state in states.items() if state == "adapted"]
    assert adapted
    assert all(name.startswith("stem.") for name in adapted)

    before, after, _ = moved(Ends([None], [0, 1, 2], 2, 3))
    assert torch.allclose(
        logits(before, alone.repeat(1, 2, 1, 1)), logits(after, alone), rtol=1e-4, atol=1e-5
    )


def test_a_network_of_monai_goes_on_too() -> None:
    arguments = "model.arguments={channels:[4,8],strides:[2],num_res_units:1}"
    words = ("model=monai", "model.dims=2", "model.network=UNet", "model.levels=2", arguments)
    model = composed(*words).model
    before = build(model, 1, 2, *SIZES)
    after = build(model, 2, 2, *SIZES)
    match = Ends([0, None], [0, 1], 1, 2)
    states = transfer(after, before.state_dict(), find_ends(model, (2, 2, *SIZES)), match)
    adapted = [name for name, state in states.items() if state == "adapted"]
    assert [name.split(".")[1] for name in adapted] == ["0"] * len(adapted)
    assert len(adapted) == 2, "the first convolution, and the one around it"
    assert {*states.values()} == {"loaded", "adapted"}


def test_a_layer_that_sees_the_image_beside_other_features_starts_anew() -> None:
    ends: dict[str, dict[int, Any]] = {"weight": {1: "channels"}, "bias": {}}
    states = transfer(
        nn.Linear(6, 4), nn.Linear(5, 4).state_dict(), ends, Ends([0, None], [], 1, 0)
    )
    assert states == {"weight": "new", "bias": "loaded"}


def test_weights_of_heads_that_are_not_there_are_left() -> None:
    deep = composed(*SMALL, "model.channels=[4,6,8]", "model.deep_supervision=true").model
    flat = deep.model_copy(update={"deep_supervision": False})
    sizes = ([[2, 2]] * 2, [[3, 3]] * 3)
    states = transfer(
        build(flat, 1, 2, *sizes),
        build(deep, 1, 2, *sizes).state_dict(),
        find_ends(flat, (1, 2, *sizes)),
        Ends([0], [0, 1], 1, 2),
    )
    left = {name for name, state in states.items() if state == "left"}
    assert left == {"heads.1.weight", "heads.1.bias"}


def plan_of(*overrides: str, channels: tuple[str, ...] = ("T1",), spacing: float = 1.0) -> Plan:
    options = composed("model.channels=[4,8]", *overrides)
    facts = fingerprint((spacing, spacing, spacing), (40, 40, 40))
    return make_plan(options, _of_channels(facts, len(channels)), list(channels), LABELS, "cpu")


def _of_channels(facts: Any, number: int) -> Any:
    return replace(
        facts, zero_fraction=facts.zero_fraction * number, foreground=facts.foreground * number
    )


def origin(plan: Plan, channels: dict[str, str] | None = None) -> Origin:
    return Origin("runs/a", plan, "network unet, 3D", channels or {})


def test_channels_are_matched_by_given_name_then_by_name_then_in_their_order() -> None:
    known = origin(plan_of(channels=("T1", "T2")))
    assert match_channels(["t2", "T1"], known) == [1, 0]
    assert match_channels(["T1", "FLAIR"], known) == [0, None]
    assert match_channels(["A", "B"], known) == [0, 1]
    assert match_channels(["A", "B", "C"], known) == [None, None, None]
    given = origin(known.plan, {"FLAIR": "T2"})
    assert match_channels(["FLAIR", "T1"], given) == [1, 0]


@pytest.mark.parametrize(
    ("channels", "said"),
    [
        ({"FLAR": "T2"}, "init.channels: 'FLAR' is no channel of the dataset (FLAIR)"),
        ({"FLAIR": "T3"}, "init.channels: 'T3' is no channel of runs/a (T1, T2)"),
    ],
)
def test_a_channel_that_is_not_there_is_said(channels: dict[str, str], said: str) -> None:
    known = origin(plan_of(channels=("T1", "T2")), channels)
    with pytest.raises(ConfigError) as caught:
        match_channels(["FLAIR"], known)
    assert said in str(caught.value)


def inherited(known: Origin, *overrides: str, channels: tuple[str, ...] = ("T1",)) -> Plan:
    options = composed("model.channels=[4,8]", "init.checkpoint=runs/a", *overrides)
    facts = _of_channels(fingerprint((0.5, 0.5, 3.0), (90, 80, 20)), len(channels))
    plan = inherit_plan(known, options, facts, list(channels), NEW_LABELS)
    warn_of_changes(known, options, plan)
    return plan


def test_a_plan_is_inherited_and_says_so() -> None:
    known = origin(plan_of("plan.normalise=[ct]", "plan.patch=[32,32,16]"))
    plan = inherited(known)
    for key in ("spacing_mm", "patch", "batch", "strides", "kernels", "normalise", "foreground"):
        assert getattr(plan, key) == getattr(known.plan, key), key
    assert plan.labels == NEW_LABELS
    reasons = "\n".join(plan.reasons)
    for entry in ("network unet, 3D", "spacing 1x1x1 mm", "patch 32x32x16", "intensities ct"):
        assert f"{entry}: that of runs/a (init)" in reasons


def test_a_channel_that_the_checkpoint_has_not_gets_a_normalisation_of_its_own() -> None:
    known = origin(plan_of("plan.normalise=[rescale]"))
    plan = inherited(known, channels=("T1", "T2"))
    assert plan.normalise == ["rescale", "zscore"]
    assert plan.foreground[0] == known.plan.foreground[0]


def test_given_entries_go_over_the_checkpoints_with_a_caution(
    caplog: pytest.LogCaptureFixture,
) -> None:
    known = origin(plan_of())
    plan = inherited(known, "plan.spacing=[2,2,2]", "plan.patch=[16,16,16]", "plan.batch=3")
    assert plan.spacing_mm == [2, 2, 2]
    assert plan.patch == [16, 16, 16]
    assert plan.batch == 3
    assert "spacing 2x2x2 mm: given" in plan.reasons
    said = "init: spacing_mm is [2.0, 2.0, 2.0], but the weights of runs/a were trained with [1.0,"
    assert said in caplog.text


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("plan.strides=[[2,2,1]]", "plan.strides is [[2, 2, 1]], but the weights of runs/a are"),
        ("plan.kernels=[[3,3,1],[3,3,3]]", "plan.kernels is"),
        ("plan.patch=[17,16,16]", "plan.patch entry 0 is 17, but the network of runs/a needs a"),
        ("plan.patch=[16,16]", "plan.patch has 2 entries, but the network of runs/a is 3D: give 3"),
        ("data.slice_axis=1", "data.slice_axis is for 2D networks, but that of runs/a is 3D"),
    ],
)
def test_entries_that_cannot_be_the_networks_are_refused(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        inherited(origin(plan_of()), override)
    assert said in str(caught.value)


@pytest.mark.parametrize("key", ["plan.ceiling", "plan.short_ceiling"])
def test_a_ceiling_is_of_no_use_where_the_spacing_is_given(key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} is for a derived spacing"):
        check_plan_keys(["seed=1", f"{key}=1"])


def test_the_network_is_the_checkpoints(caplog: pytest.LogCaptureFixture) -> None:
    kept = composed("model=unet2d", "model.channels=[4,8]").model
    usual = composed().model
    assert with_own(kept, usual, ["data.root=x"], "runs/a") == kept
    assert not caplog.messages
    preset = composed("model=unet2d").model
    assert with_own(kept, preset, ["model=unet2d"], "runs/a") == kept
    assert "not of the preset: channels [4,8]" in caplog.text
    own = composed("model.dropout=0.2").model
    assert with_own(kept, own, ["model.dropout=0.2"], "runs/a").model_dump()["dropout"] == 0.2


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("model.channels=[4,16]", "model.channels is [4,16], but the weights of runs/a are for"),
        ("model.long_skips=add", "model.long_skips is add, but the weights of runs/a are for con"),
        ("model=unet2d", "model.dims is 2, but the weights of runs/a are for 3"),
    ],
)
@pytest.mark.parametrize("is_typed", [True, False], ids=["typed", "from a file"])
def test_a_network_that_is_given_and_differs_is_refused(
    word: str, said: str, is_typed: bool
) -> None:
    kept = composed("model.channels=[4,8]").model
    with pytest.raises(ConfigError) as caught:
        with_own(kept, composed(word).model, [word] if is_typed else [], "runs/a")
    assert said in str(caught.value)


def test_labels_are_matched_by_name_and_never_with_regions() -> None:
    old = plan_of()
    new = old.model_copy(update={"labels": NEW_LABELS})
    assert match_outputs(new, old) == [0, None, 1]
    regions = old.model_copy(update={"regions": {"liver": [1, 2], "core": [2]}})
    assert match_outputs(regions, old) == [None, None]
    assert match_outputs(regions, regions) == [0, 1]


def test_loaded_weights_have_their_share_of_the_learning_rate() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    options = composed().optim
    network[0].get_parameter("bias").requires_grad_(False)
    made = make_optimizer(network, options, ["0.weight", "0.bias"], 0.1)
    set_learning_rate(made, 0.5)
    rates = {}
    for group in made.param_groups:
        for weight in group["params"]:
            rates[weight] = (group["lr"], group["weight_decay"])
    assert rates == {
        network[0].weight: (0.05, options.weight_decay),
        network[1].weight: (0.5, options.weight_decay),
        network[1].bias: (0.5, 0.0),
    }


def test_a_link_is_replaced_by_what_it_points_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs/a b").mkdir(parents=True)
    Path("runs/latest").symlink_to("a b")
    assert pinned(["seed=1", "init.checkpoint=runs/latest"]) == [
        "seed=1",
        "init.checkpoint='runs/a b'",
    ]
    assert pinned(["init.checkpoint=null,runs/latest"]) == ["init.checkpoint=null,'runs/a b'"]
    with pytest.raises(ConfigError, match="init=runs/b: no such run or checkpoint"):
        pinned(["init.checkpoint=null,runs/b"])


def stored(file: Path, dice: float = 0.5) -> Path:
    """A checkpoint of a 2D network that was never trained, with a Dice."""
    options = composed(*SMALL, "plan.patch=[32,32]", "plan.batch=2")
    plan = make_plan(options, fingerprint((1.0, 1.0, 1.0), (64, 64, 1)), ["MRI"], ORGANS, "cpu")
    network = build(options.model, 1, plan.outputs, plan.strides, plan.kernels)
    init_weights(network, seed=5)
    weights = {NETWORK + name: weight for name, weight in network.state_dict().items()}
    config = options.model_dump(mode="json")
    about = metadata(config, plan, TrainedOn("other scans", "", 4, 2), {"liver": dice})
    file.parent.mkdir(parents=True)
    torch.save({"state_dict": weights, KEY: about, "global_step": 3}, file)
    return file


def test_of_a_cross_validation_the_best_fold_is_taken(tmp_path: Path) -> None:
    names = ["fold_0", "fold_1", "fold_2"]
    for name, dice in zip(names, (0.5, 0.8, float("nan")), strict=True):
        stored(tmp_path / name / "checkpoints/best.ckpt", dice)
    write_ensemble(tmp_path, names, PostProcess())
    assert find_member(tmp_path) == tmp_path / "fold_1/checkpoints/best.ckpt"


def test_a_sweep_is_not_one_network(tmp_path: Path) -> None:
    (tmp_path / "multirun.yaml").touch()
    with pytest.raises(ConfigError, match="is a sweep: name one of its runs"):
        find_member(tmp_path)


SOURCE = "source run"  # with a blank
ON_IMAGES = ["data=phantom2d", *(word for word in TINY if word.startswith(("data.", "trainer.")))]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network, and a run that starts from it with its encoder frozen."""
    folder = tmp_path_factory.mktemp("home")
    stored(folder / SOURCE / "checkpoints/best.ckpt")
    words = [f"init={SOURCE}", "init.freeze=encoder", "init.lr_scale=0.1", "hydra.run.dir=tuned"]
    done = command("train.py", *ON_IMAGES, *words, folder=folder)
    assert done.returncode == 0, done.stderr
    (folder / "said.txt").write_text(done.stdout + done.stderr)
    return folder


def _check_frozen(source: nn.Module, tuned: nn.Module) -> None:
    """The encoder is as it was, and the decoder is not."""
    before = source.state_dict()
    for name, weight in tuned.state_dict().items():
        if name.startswith(("stem.", "downs.")):
            assert torch.equal(weight, before[name]), name
    decoder = [name for name in before if name.startswith("decoder_stages.")]
    assert not any(torch.equal(tuned.state_dict()[name], before[name]) for name in decoder)


def test_a_run_starts_from_another_and_keeps_what_is_frozen(home: Path) -> None:
    source = checkpoint.load(home / SOURCE)
    last = checkpoint.load(home / "tuned/checkpoints/last.ckpt")
    _check_frozen(source.network, last.network)
    assert last.plan.spacing_mm == source.plan.spacing_mm
    assert last.config["model"]["channels"] == [4, 6]
    file = home / SOURCE / "checkpoints/best.ckpt"
    assert last.initial is not None
    assert last.initial.content == digest([file])
    assert last.initial.data == "other scans"
    said = (home / "said.txt").read_text()
    assert f"that of {SOURCE} (init)" in said
    assert "liver kept" in said
    assert "vessel new" in said
    page = (home / "tuned/report.html").read_text()
    assert f"the weights of {SOURCE}/checkpoints/best.ckpt, 3 steps on other scans" in page
    assert json.loads((home / "tuned/report.json").read_text())["initial"]["states"]


def test_a_card_names_the_source(home: Path) -> None:
    done = command("segpipe.card", "checkpoint=tuned", folder=home)
    assert f"{SOURCE}/checkpoints/best.ckpt (step 3, other scans, hash " in done.stdout


def test_a_run_that_goes_on_needs_its_source_no_more(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "tuned", tmp_path / "tuned")
    words = ["resume=tuned", "trainer.max_steps=9", f"data.root={home}/data/phantom2d"]
    done = command("train.py", *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    last = checkpoint.load(tmp_path / "tuned/checkpoints/last.ckpt")
    assert last.step == 9
    assert last.initial is not None
    _check_frozen(checkpoint.load(home / SOURCE).network, last.network)
    saved = torch.load(tmp_path / "tuned/checkpoints/last.ckpt", weights_only=True)
    groups = saved["optimizer_states"][0]["param_groups"]
    assert [group["lr_scale"] for group in groups] == [1, 1, 0.1, 0.1]


def test_a_sweep_compares_with_random_weights(home: Path) -> None:
    (home / "runs").mkdir()
    (home / "runs/latest").symlink_to(home / SOURCE)
    words = ["-m", "init=null,runs/latest", *SMALL, "hydra.sweep.dir=runs/sweep"]
    done = command("train.py", *ON_IMAGES, *words, "trainer.max_steps=2", folder=home)
    assert done.returncode == 0, done.stderr
    with (home / "runs/sweep/study.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["label"] == "mean"]
    assert [row["variant"] for row in rows] == [
        "init.checkpoint=null",
        f"init.checkpoint='{SOURCE}'",
    ]
    assert not rows[0]["dice_difference"]
    assert rows[1]["dice_difference"]
    record = json.loads((home / "runs/sweep/1/initial.json").read_text())
    assert record["source"]["path"] == f"{SOURCE}/checkpoints/best.ckpt"


def test_cases_that_have_trained_the_weights_are_no_test_of_them(home: Path) -> None:
    split = json.loads((home / "tuned/split.json").read_text())
    trained = split["train"][0]
    sides = {"train": split["val"], "val": split["train"]}
    (home / "SPLIT.json").write_text(json.dumps(sides))
    words = ["init=tuned", "mode=describe", "data.split=SPLIT.json", "hydra.run.dir=swapped"]
    done = command("train.py", *ON_IMAGES, *words, folder=home)
    assert done.returncode == 0, done.stderr
    number = len(split["train"])
    assert f"init: {number} of {number} cases that validate have trained the weights" in done.stdout
    assert f", as {trained}: their scores are too good" in done.stdout


def test_other_labels_are_described_before_any_training(home: Path) -> None:
    words = ["mode=describe", "data.regions={organ:[1,2,3]}", "hydra.run.dir=described"]
    done = command("train.py", *ON_IMAGES, f"init={SOURCE}", *words, folder=home)
    assert done.returncode == 0, done.stderr
    assert "organ new" in done.stdout
    rows = json.loads((home / "described/initial.json").read_text())["rows"]
    assert [row[2] for row in rows if row[0] == "new"] == ["head"]
    assert [row[2] for row in rows if row[0] == "loaded"] == ["encoder, decoder"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([f"init={SOURCE}", "model.channels=[4,16]"], "model.channels is [4,16], but the weights"),
        (["init=nowhere"], "init=nowhere: no such run or checkpoint"),
        (["init.freeze=encoder"], "init.freeze is for weights that are loaded: give init=RUN"),
        (["init=said.txt"], "said.txt: is not a checkpoint"),
    ],
)
def test_what_cannot_be_is_one_line(home: Path, words: list[str], said: str) -> None:
    done = command("train.py", *ON_IMAGES, *words, "hydra.run.dir=refused", folder=home)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (home / "refused/checkpoints").exists()

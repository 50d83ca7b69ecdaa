"""Every key is checked before anything starts, and every mistake is one line."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from support.config import composed

from segpipe.config.compose import CONF, check
from segpipe.config.help import USAGE, choices, page
from segpipe.config.model import per_level
from segpipe.config.predict import Predict
from segpipe.config.train import Train
from segpipe.config.validation import keys
from segpipe.errors import ConfigError
from segpipe.text import nearest

GROUPS = [
    f"{folder.name}={file.stem}"
    for folder in sorted(CONF.iterdir())
    if folder.is_dir()
    for file in sorted(folder.glob("[!_]*.yaml"))
]


@pytest.mark.parametrize("choice", GROUPS)
def test_every_file_in_conf_composes(choice: str) -> None:
    config = composed(choice, *(["data.root=."] if choice.startswith("data=") else []))
    assert config.name


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            "model.long_skip=none",
            "model.long_skip is not a key. Did you mean 'model.long_skips'? (--help lists all)",
        ),
        ("+new.key=1", "new.key is not a key. (--help lists all)"),
        ("+optim.learning_rate=1", "optim.learning_rate is not a key. (--help lists all)"),
        (
            "trainer.max_tim=1",
            "trainer.max_tim is not a key. Did you mean 'trainer.max_time'? (--help lists all)",
        ),
        ("modle=unet2d", "modle is not a key. Did you mean 'model'? (--help lists all)"),
        (
            "model.long_skips=cat",
            "model.long_skips is 'cat', which is none of 'none', 'add', 'concat' or 'gate'. Did you mean 'concat'?",
        ),
        ("data.layout=bidz", "data.layout is 'bidz', which is none of "),
        ("optim.lr=-1", "optim.lr is -1: input should be greater than 0"),
        ("optim.lr=fast", "optim.lr is 'fast': input should be a valid number"),
        ("seed=1.5", "seed is 1.5: input should be a valid integer"),
        (
            "trainer.max_time=5m",
            "trainer.max_time: must read DD:HH:MM:SS (days, hours, minutes, seconds), got '5m'",
        ),
        ("data=decathlon", "data.root is missing: name the dataset's folder, as in data.root=DIR"),
        ("plan.patch=[32,32]", "plan.patch has 2 entries, but model.dims is 3: give 3"),
        (
            "model=unet4d",
            "model=unet4d is none of attention_unet_2018, deep_encoder_decoder",
        ),
        ("~seed", "~seed: a key cannot be taken away; set it to null where its help allows that"),
        (
            "loss.dice=0 loss.cross_entropy=0",
            "the loss has no term: raise one of loss.{dice, cross_entropy, focal, ",
        ),
        ("optim.dice=1", "optim.dice has a new name: loss.dice"),
        ("trainer.workers=2", "trainer.workers has a new name: data.workers"),
        ("study.reference=a", "study.reference has a new name: comparison.reference"),
        ("model.describe=true", "model.describe has a new name: mode=describe"),
        ("loss.focl=1", "loss.focl is not a key. Did you mean 'loss.focal'? (--help lists all)"),
        ("loss.focal=-1", "loss.focal is -1: input should be greater than or equal to 0"),
        ("augment.noise=2", "augment.noise is 2: input should be less than or equal to 1"),
        ("seed=0,1", "seed=0,1: several values are a sweep, a run for each: add -m"),
        ("study=depht", "study=depht is none of depth, "),
        ("--multrun seed=0", "--multrun is not an option (--help lists all keys)"),
        (
            "data=folder data.root=. data.phantom.train=3",
            "data.phantom.train is a key, but not of the chosen data: take it away, or choose",
        ),
        ("resume=nowhere", "resume: nowhere is not the folder of a run: it holds no config.yaml"),
    ],
)
def test_a_mistake_is_one_line(override: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check("train", Train, override.split())
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


def test_a_skip_list_of_the_wrong_length_says_what_fits() -> None:
    with pytest.raises(
        ConfigError, match=r"model.long_skips has 2 entries; model.channels has 4 levels, so give 3"
    ):
        check("train", Train, ["model.long_skips=[add,none]", "model.channels=[4,8,16,32]"])


def test_every_job_of_a_sweep_is_checked_before_the_first_starts() -> None:
    check("train", Train, ["-m", "model.long_skips=none,add,concat", "seed=0,1"])
    with pytest.raises(ConfigError, match="'ad', which is none of"):
        check("train", Train, ["-m", "model.long_skips=none,ad", "seed=0,1"])


def test_one_skip_stands_for_every_level() -> None:
    values = [
        composed("model.channels=[4,8,16]", f"model.long_skips={skip}").model
        for skip in ("add", "[add]", "[add,add]")
    ]
    assert [per_level(model.long_skips, 2) for model in values] == [["add", "add"]] * 3


def test_the_config_survives_its_own_yaml() -> None:
    options = composed("trainer.max_time=01:02:03:04", "data.labels={background:0,nucleus:255}")
    assert options.trainer.max_time == timedelta(days=1, hours=2, minutes=3, seconds=4)
    assert Train.model_validate(options.model_dump(mode="json")) == options


def test_hours_can_be_written_without_days() -> None:
    assert composed("trainer.max_time=00:10:00").trainer.max_time == timedelta(minutes=10)


@pytest.mark.parametrize(("program", "schema"), [("train", Train), ("predict", Predict)])
def test_help_has_every_key_with_its_line(
    program: str, schema: type[Train] | type[Predict]
) -> None:
    text = page(program, f"python {program}.py", schema)
    squeezed = " ".join(text.split())
    for key, field in keys(schema):
        assert re.search(rf"^  {re.escape(key)}=\S*  \[", text, re.MULTILINE), key
        assert field.description, key
        assert " ".join(field.description.split()) in squeezed, key


def test_every_command_has_its_usage() -> None:
    assert set(USAGE) == {file.stem for file in CONF.glob("[!_]*.yaml")}


def shown(*about: str) -> str:
    return page("train", "python train.py", Train, about)


@pytest.mark.parametrize(
    "group", sorted(folder.name for folder in CONF.iterdir() if folder.is_dir())
)
def test_help_has_every_choice_with_its_line(group: str) -> None:
    text = shown()
    for choice in choices(group):
        assert choice.line, f"conf/{group}/{choice.name}.yaml begins with no comment"
        assert re.search(rf"^  [* ] {choice.name} +{re.escape(choice.line)}$", text, re.MULTILINE)


def test_help_answers_which_values_a_key_can_take() -> None:
    answer = shown("model.long_skips").splitlines()
    assert (
        answer[0]
        == "  model.long_skips=concat  [none|add|concat|gate or list of none|add|concat|gate]"
    )
    assert "      model=encoder_decoder sets none" in answer
    assert shown("model.long_skips=none") == shown("model.long_skips")


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("plan.spacing", "  plan.spacing=null  [list (3) of number > 0 or null, mm]"),
        ("plan.patch", "  plan.patch=null  [list (2 to 3) of integer > 0 or null, voxels]"),
        ("optim.ema", "  optim.ema=null  [number > 0 and < 1 or null]"),
        ("augment.rotate_deg", "  augment.rotate_deg=30  [number >= 0 and <= 180, degrees]"),
        ("trainer.max_time", "  trainer.max_time=null  [DD:HH:MM:SS or null]"),
        ("model.arguments", "  model.arguments=(model=monai)  [map of text to anything or null]"),
        ("optim", "  * adamw  AdamW (Loshchilov 2019) under a cosine."),
        ("optim", "  optim.lr=0.008  [number > 0]"),
        ("model=unet2d", "      model.dims=2"),
        ("+study=long_skips", "      model.long_skips=none,add,concat,gate"),
        ("warm", "  optim.warmup=0.05  [number >= 0 and < 1]"),
    ],
)
def test_help_of_a_key_a_group_a_choice_or_a_word(word: str, line: str) -> None:
    assert line in shown(word).splitlines()


def test_help_of_what_there_is_not_is_one_line() -> None:
    with pytest.raises(
        ConfigError,
        match=r"^--help model.long_skp: is no key and no group. Did you mean 'model.long",
    ):
        shown("model.long_skp")


def test_no_default_lives_in_python() -> None:
    assert not [
        key for schema in (Train, Predict) for key, field in keys(schema) if not field.is_required()
    ]


def test_values_of_a_map_can_be_set_one_by_one() -> None:
    check(
        "train",
        Train,
        ["data=folder", "data.root=.", "+data.labels.background=0", "+data.labels.cell=7"],
    )


@pytest.mark.parametrize("missing", ["checkpoint", "input", "output"])
def test_predict_says_what_is_missing(missing: str) -> None:
    given = [f"{key}=x" for key in ("checkpoint", "input", "output") if key != missing]
    with pytest.raises(ConfigError, match=f"^{missing} is missing"):
        check("predict", Predict, given)


def test_nearest_looks_at_the_last_word_too() -> None:
    assert (
        nearest("long_skips", ["model.long_skips", "seed"]) == " Did you mean 'model.long_skips'?"
    )
    assert nearest("zebra", ["model.long_skips", "seed"]) == ""


def test_conf_is_found_in_the_checkout() -> None:
    assert Path(__file__).parents[1] / "conf" == CONF


def test_a_study_starts_its_own_sweep_with_and_without_a_plus() -> None:
    for word in ("study=long_skips", "+study=long_skips"):
        check("train", Train, [word])
        with pytest.raises(ConfigError, match="seed is 1.5"):
            check("train", Train, [word, "seed=0,1.5"])


def test_a_study_sets_what_its_variants_are_compared_with() -> None:
    options = composed("study=per_level")
    assert options.comparison.reference == "model.long_skips=[concat,concat,concat]"
    assert options.trainer.max_steps == 400


def test_a_registered_loss_term_is_a_key() -> None:
    check("train", Train, ["loss.focal=1"])
    assert composed("loss.focal=0.5").loss.weights == {"dice": 1, "cross_entropy": 1, "focal": 0.5}
    assert composed("loss.dice=0").loss.weights == {"cross_entropy": 1}


def test_no_file_to_build_on_is_offered_as_a_choice() -> None:
    with pytest.raises(ConfigError) as caught:
        check("train", Train, ["data=nowhere"])
    assert "_" not in str(caught.value).replace("phantom_ct", "")


def test_a_config_folder_that_is_missing_is_one_line() -> None:
    with pytest.raises(ConfigError, match="^--config-dir nowhere: no such folder$"):
        check("train", Train, ["--config-dir", "nowhere"])

"""Settings: presets, changes on top of them, and what is refused."""

import dataclasses
import json
from pathlib import Path

import pytest

from attengait.errors import ParameterError
from attengait.model.config import ModelConfig, ModelOptions
from attengait.model.run_folder import RUNTIME_SETTINGS
from attengait.sampling.rules import ClipRules
from attengait.training.config import (
    ALIASES,
    RunSettings,
    TrainingConfig,
    differences,
    load_preset,
    make_config,
    parse_assignments,
    preset_names,
    setting_names,
    settings_of,
)

KEYS = """
train_subjects exclude_subjects validation_subjects known_subjects channels subjects_per_batch clips_per_subject
replicas clip_frames train_views train_walks min_frames repeat_short frame_order balance blocks_per_stage num_classes
classifiers attention_softmax attention_dropout spatial_reduction size embedding_size epochs
epochs_without_cross_entropy learning_rate warmup_epochs triplets margin adaptive_margin soft_margin
normalise_embeddings cross_entropy_weight label_smoothing l2_penalty mixup_probability cutmix_probability optimiser
momentum weight_decay schedule max_gradient_norm accumulate_steps recompute_frames ema_decay vary_clip_frames
flip_probability affine_probability affine_degrees affine_scale affine_shift_px erase_probability device cache
check_frames precision deterministic cuda_graphs init seed checkpoint_every_steps log_every_steps stop_after_steps
validate_every_steps early_stopping_validations keep_checkpoints loggers profile_steps
""".split()  # noqa: SIM905
OLD_RECORD = Path(__file__).parents[1] / "data" / "run-0.1.0" / "config.json"


def test_the_keys_of_settings_are_these() -> None:
    """Presets, scripts and the folders of runs hold these keys: none may go or change its meaning."""
    assert setting_names() == KEYS
    assert list(settings_of(TrainingConfig())) == KEYS


def test_each_key_belongs_to_one_group() -> None:
    config = TrainingConfig()
    groups = [config.data, config.data.rules, config.model, config.optimiser, config.update, config.augment, config.run]
    names = [field.name for group in groups for field in dataclasses.fields(group)]
    assert sorted(names) == sorted([*KEYS, "rules"])


def test_settings_recorded_by_version_0_1_0_are_read_and_are_the_same_run() -> None:
    recorded = json.loads(OLD_RECORD.read_text())["config"]
    config = make_config(recorded)
    assert (config.model.size, config.run.precision, config.optimiser.learning_rate) == ("tiny", "bf16", 0.005)
    written = json.loads(json.dumps(settings_of(config)))
    assert {key: written[key] for key in recorded} == recorded
    # What it did not know is as it was without it.
    defaults = json.loads(json.dumps(settings_of(make_config({}))))
    assert {key: written[key] for key in KEYS if key not in recorded} == {
        key: defaults[key] for key in KEYS if key not in recorded
    }
    assert differences(config, make_config(written)) == []


def test_what_a_resumed_run_may_change_is_about_the_run() -> None:
    assert {field.name for field in dataclasses.fields(RunSettings)} > RUNTIME_SETTINGS


def test_options_of_the_model_reach_the_network() -> None:
    words = ["blocks_per_stage=4", "num_classes=9", "attention_softmax=false", "attention_dropout=0.5"]
    words += ["classifiers=shared", "embedding_size=24"]
    config = make_config(parse_assignments([*words, "spatial_reduction=mean", "size=tiny"]))
    network = config.model.network(channels=2, num_subjects=7)
    assert network == ModelConfig.of_size(
        "tiny",
        channels=2,
        blocks_per_stage=4,
        num_classes=9,
        classifiers="shared",
        embedding_size=24,
        attention_softmax=False,
        attention_dropout=0.5,
        spatial_reduction="mean",
    )
    assert len(dataclasses.fields(ModelOptions)) == 6  # all of them differ from their defaults here


def test_a_network_has_a_class_for_each_training_subject_unless_told() -> None:
    assert make_config({}).model.network(channels=3, num_subjects=7).num_classes == 7
    with pytest.raises(ParameterError, match="num_classes is 6, but must be 0 or at least 7"):
        make_config({"num_classes": 6}).model.network(channels=3, num_subjects=7)


@pytest.mark.parametrize("name", ["casia-b", "demo", "grew", "oumvlp"])
def test_every_preset_is_a_valid_config(name: str) -> None:
    assert name in preset_names()
    make_config(load_preset(name))


def test_casia_b_preset_is_the_published_recipe() -> None:
    config = make_config(load_preset("casia-b"))
    data, model, optimiser = config.data, config.model, config.optimiser
    assert data.train_subjects == ("001-074",)
    assert data.exclude_subjects == ("005",)
    assert (model.num_classes, model.size, model.blocks_per_stage) == (74, "small", 2)
    assert (data.subjects_per_batch, data.clips_per_subject, data.clip_frames) == (8, 8, 30)
    assert (optimiser.epochs, optimiser.epochs_without_cross_entropy, optimiser.warmup_epochs) == (8000, 1000, 20)
    assert (optimiser.learning_rate, optimiser.margin, optimiser.l2_penalty) == (5e-4, 0.2, 1e-5)


def test_assignments_are_read_as_the_settings_type() -> None:
    settings = parse_assignments(
        ["seed=3", "learning_rate=1e-3", "soft_margin=true", "size=tiny", "train_subjects=001-004, 007"]
    )
    assert settings == {
        "seed": 3,
        "learning_rate": 1e-3,
        "soft_margin": True,
        "size": "tiny",
        "train_subjects": ("001-004", "007"),
    }


def test_settings_of_sampling_make_the_rules_of_the_plan() -> None:
    assert TrainingConfig().data.rules == ClipRules()
    words = ["train_views=0-90,180", "train_walks=nm,bg-01", "min_frames=20", "repeat_short=true"]
    config = make_config(parse_assignments([*words, "frame_order=shuffled", "balance=views"]))
    assert config.data.rules == ClipRules(
        train_views=("0-90", "180"),
        train_walks=("nm", "bg-01"),
        min_frames=20,
        repeat_short=True,
        frame_order="shuffled",
        balance="views",
    )
    assert make_config(settings_of(config)) == config


def test_settings_recorded_before_there_were_such_of_sampling_are_those_of_now() -> None:
    config = make_config({"size": "tiny"})
    names = {field.name for field in dataclasses.fields(ClipRules)}
    older = {key: value for key, value in settings_of(config).items() if key not in names}
    assert len(older) == len(settings_of(config)) - 6
    assert differences(make_config(older), config) == []


def test_settings_survive_a_round_trip() -> None:
    config = make_config({"size": "tiny", "exclude_subjects": ["005"]})
    assert make_config(settings_of(config)) == config


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("learning_rat=1", "did you mean 'learning_rate'?"),
        ("seed", "--set is 'seed', but must be KEY=VALUE"),
        ("seed=1.5", "whole number"),
        ("soft_margin=1", "true or false"),
        ("size=huge", "tiny, small, medium, large"),
        ("subjects_per_batch=1", "at least 2"),
        ("clip_frames=15", "at least 16"),
        ("learning_rate=nan", "a positive number"),
        ("mixup_probability=1.5", "from 0 to 1"),
        ("attention_dropout=1", "below 1"),
        ("precision=fp8", "precision is 'fp8', but must be one of auto, fp32, tf32, bf16, fp16"),
        ("spatial_reduction=max", "both, mean"),
        ("epochs=0", "epochs is 0, but must be at least 1"),
        ("margin=-1", "margin is -1.0, but must be at least 0"),
        ("min_frames=-1", "min_frames is -1, but must be at least 0"),
        ("frame_order=random", "consecutive, subset, shuffled"),
        ("balance=subjects", "none, walks, views"),
        ("repeat_short=yes", "true or false"),
        ("validate_every_steps=-1", "validate_every_steps is -1, but must be at least 0"),
        ("validate_every_steps=5", "validation_subjects is '', but must be some of the training subjects"),
        ("early_stopping_validations=2", "must be 0 where validate_every_steps is 0"),
        ("keep_checkpoints=0", "keep_checkpoints is 0, but must be at least 1"),
        ("profile_steps=-1", "profile_steps is -1, but must be at least 0"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(word: str, part: str) -> None:
    with pytest.raises(ParameterError) as caught:
        make_config(parse_assignments([word]))
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


def test_the_last_value_of_a_key_counts_and_is_said_and_a_list_has_no_empty_piece(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert parse_assignments(["seed=1", "epochs=2", "seed=1"]) == {"seed": 1, "epochs": 2}
    assert not caplog.text
    assert parse_assignments(["seed=1", "epochs=2", "seed=3"]) == {"seed": 3, "epochs": 2}
    assert "seed is set more than once: 3, the last one, counts" in caplog.text
    for text in (",,", "001,,002", "001,"):
        with pytest.raises(ParameterError, match=f"^train_subjects is '{text}', but must be without an empty piece"):
            parse_assignments([f"train_subjects={text}"])
    assert parse_assignments(["exclude_subjects="]) == {"exclude_subjects": ()}


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("lr", "'learning_rate'"),
        ("LR", "'learning_rate'"),
        ("p", "'subjects_per_batch'"),
        ("k", "'clips_per_subject'"),
        ("bs", "'subjects_per_batch' and 'clips_per_subject'"),
        ("batch_size", "'subjects_per_batch' and 'clips_per_subject'"),
        ("wd", "'l2_penalty' and 'weight_decay'"),
        ("optimizer", "'optimiser'"),
        ("epoch", "'epochs'"),
        ("patience", "'early_stopping_validations'"),
        ("normalize_embeddings", "'normalise_embeddings'"),
    ],
)
def test_the_key_that_is_meant_is_suggested_and_not_taken(key: str, meant: str) -> None:
    with pytest.raises(ParameterError) as caught:
        parse_assignments([f"{key}=1"])
    assert str(caught.value) == (
        f"setting is '{key}', but must be one of those that --show-settings prints (did you mean {meant}?)"
    )


@pytest.mark.parametrize("key", ["xyzzy", "", "q"])
def test_a_key_like_nothing_gets_no_suggestion_but_the_way_to_all_keys(key: str) -> None:
    with pytest.raises(ParameterError) as caught:
        parse_assignments([f"{key}=1"])
    assert str(caught.value) == f"setting is '{key}', but must be one of those that --show-settings prints"


def test_every_suggested_key_is_a_setting_and_no_setting_is_an_alias() -> None:
    assert {key for keys in ALIASES.values() for key in keys} <= set(KEYS)
    assert not set(ALIASES) & set(KEYS)


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ParameterError, match="casia-b, demo, grew, oumvlp"):
        load_preset("casia")


def test_a_setting_of_the_wrong_type_in_a_file_is_refused() -> None:
    with pytest.raises(ParameterError, match="seed is '1', but must be a whole number"):
        make_config({"seed": "1"})


def test_differences_name_both_values_and_ignore_how_long_a_run_lasts() -> None:
    before = TrainingConfig()
    after = make_config({"learning_rate": 1.0, "stop_after_steps": 7})
    assert differences(before, after) == ["learning_rate: 0.0005, now 1.0"]

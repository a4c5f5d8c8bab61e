"""Settings: presets, changes on top of them, and what is refused."""

import dataclasses

import pytest

from attengait.errors import ParameterError
from attengait.sampling.rules import ClipRules
from attengait.training.config import (
    TrainingConfig,
    differences,
    load_preset,
    make_config,
    parse_assignments,
    preset_names,
    settings_of,
)


@pytest.mark.parametrize("name", ["casia-b", "demo", "grew", "oumvlp"])
def test_every_preset_is_a_valid_config(name: str) -> None:
    assert name in preset_names()
    make_config(load_preset(name))


def test_casia_b_preset_is_the_published_recipe() -> None:
    config = make_config(load_preset("casia-b"))
    assert config.train_subjects == ("001-074",)
    assert config.exclude_subjects == ("005",)
    assert (config.num_classes, config.size, config.blocks_per_stage) == (74, "small", 2)
    assert (config.subjects_per_batch, config.clips_per_subject, config.clip_frames) == (8, 8, 30)
    assert (config.epochs, config.epochs_without_cross_entropy, config.warmup_epochs) == (8000, 1000, 20)
    assert (config.learning_rate, config.margin, config.l2_penalty) == (5e-4, 0.2, 1e-5)


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
    assert TrainingConfig().clip_rules == ClipRules()
    words = ["train_views=0-90,180", "train_walks=nm,bg-01", "min_frames=20", "repeat_short=true"]
    config = make_config(parse_assignments([*words, "frame_order=shuffled", "balance=views"]))
    assert config.clip_rules == ClipRules(
        train_views=("0-90", "180"),
        train_walks=("nm", "bg-01"),
        min_frames=20,
        repeat_short=True,
        frame_order="shuffled",
        balance="views",
    )
    assert make_config(settings_of(config)) == config


def test_settings_recorded_before_there_were_such_of_sampling_are_those_of_now() -> None:
    config = TrainingConfig(size="tiny")
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
        ("learning_rat=1", "the nearest is 'learning_rate'"),
        ("seed", "key=value"),
        ("seed=1.5", "whole number"),
        ("soft_margin=1", "true or false"),
        ("size=huge", "tiny, small, medium, large"),
        ("subjects_per_batch=1", "2 or more"),
        ("clip_frames=15", "16 or more"),
        ("learning_rate=nan", "a positive number"),
        ("mixup_probability=1.5", "between 0 and 1"),
        ("attention_dropout=1", "below 1"),
        ("precision=fp8", "auto, fp32, bf16, fp16"),
        ("spatial_reduction=max", "both or mean"),
        ("epochs=0", "1 or more"),
        ("margin=-1", "0 or more"),
        ("min_frames=-1", "0 or more"),
        ("frame_order=random", "consecutive, subset, shuffled"),
        ("balance=subjects", "none, walks, views"),
        ("repeat_short=yes", "true or false"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(word: str, part: str) -> None:
    with pytest.raises(ParameterError) as caught:
        make_config(parse_assignments([word]))
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ParameterError, match="casia-b, demo, grew, oumvlp"):
        load_preset("casia")


def test_a_setting_of_the_wrong_type_in_a_file_is_refused() -> None:
    with pytest.raises(ParameterError, match="seed: got '1'"):
        make_config({"seed": "1"})


def test_differences_name_both_values_and_ignore_how_long_a_run_lasts() -> None:
    before = TrainingConfig()
    after = dataclasses.replace(before, learning_rate=1.0, stop_after_steps=7)
    assert differences(before, after) == ["learning_rate: 0.0005, now 1.0"]

"""Settings from a TOML file: their order, and what is wrong with which line."""

from pathlib import Path

import pytest

from attengait.errors import AttenGaitError, ParameterError
from attengait.pipelines.train import choose_settings
from attengait.training.config_file import read_settings


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "own.toml"
    path.write_text(text)
    return path


def test_a_file_goes_before_the_preset_and_set_before_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, 'seed = 3\nepochs = 7\ntrain_subjects = ["001-010"]\n')
    config = choose_settings(tmp_path / "run", preset="casia-b", settings={"seed": 5}, config_file=path)
    assert (config.run.seed, config.optimiser.epochs, config.optimiser.warmup_epochs) == (5, 7, 20)
    assert config.data.train_subjects == ("001-010",)
    assert config.data.known_subjects == ()  # they went with the preset's subjects


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "seed = 1\n\nlearnin_rate = 1.0\n",
            r"own\.toml, line 3: setting is 'learnin_rate', but must be .*learning_rate",
        ),
        ('"seed" = "x"\n', r"own\.toml, line 1: seed is 'x', but must be a whole number"),
        ("[model]\nsize = 'tiny'\n", r"own\.toml, line 1: setting is 'model'.*settings stand in no table"),
    ],
)
def test_a_wrong_setting_names_the_file_and_the_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        read_settings(write(tmp_path, text))


def test_a_file_that_is_no_toml_or_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(AttenGaitError, match=r"own\.toml is not TOML: .*line 1"):
        read_settings(write(tmp_path, "seed: 1\n"))
    with pytest.raises(AttenGaitError, match=r"nowhere\.toml cannot be read: No such file"):
        read_settings(tmp_path / "nowhere.toml")

"""Settings: layers in order, and errors that name the key."""

import pytest
from conftest import RELEASE_YAML, YAML

from configs.defaults import ConfigError, differences, get_config, thresholds


def test_layers_in_order(tmp_path):
    (tmp_path / "base.yaml").write_text("SEED: 1\nTRAIN: {EPOCHS: 7, BASE_LR: 1e-3}\n")
    (tmp_path / "top.yaml").write_text("BASE: base.yaml\nSEED: 2\n")
    config = get_config(tmp_path / "top.yaml", ["PRINT_FREQ", "3"])
    assert (config.TRAIN.EPOCHS, config.TRAIN.BASE_LR) == (7, 1e-3)  # from BASE, 1e-3 as a number
    assert (config.SEED, config.PRINT_FREQ) == (2, 3)
    assert set(differences(config)) == {"SEED", "TRAIN.EPOCHS", "TRAIN.BASE_LR", "PRINT_FREQ"}


def test_the_known_yaml_states_the_defaults():
    assert set(differences(get_config(YAML))) == {"PRINT_FREQ", "TAG"}


def test_the_release_conventions():
    config = get_config(RELEASE_YAML)
    assert config.TEST.CHANNELS == "bgr"
    assert config.SCORE.NO_PERSON == 1.0
    assert thresholds(config) == {
        "human": 0.4545454545454546,
        "face": 0.30303030303030304,
        "hand": 0.3232,
    }


ERRORS = [
    (["NO.SUCH", "1"], "NO.SUCH: no such setting"),
    (["TRAIN.EPOCH", "1"], "TRAIN.EPOCH: no such setting"),
    (["TRAIN.EPOCHS", "many"], "TRAIN.EPOCHS: expected int, got 'many'"),
    (["TRAIN.BASE_LR", "fast"], "TRAIN.BASE_LR: expected a number"),
    (["TEST.CROP", "3"], "TEST.CROP: expected bool, got 3"),
    (["TRAIN", "3"], "TRAIN: expected a group"),
    (["TEST.CHANNELS", "hsv"], "TEST.CHANNELS: expected one of"),
    (["DATA.ABNORMAL_LABEL", "2"], "DATA.ABNORMAL_LABEL: expected one of"),
    (["SCORE.NO_PERSON", "yes"], "SCORE.NO_PERSON: expected null or a number"),
    (["AMP_OPT_LEVEL", "O1"], "AMP_OPT_LEVEL: this setting means nothing here"),
    (["LOSS.FOCAL", "True"], "LOSS.FOCAL: this setting means nothing here .*cross-entropy"),
    (["SEED"], "expected KEY VALUE pairs"),
]


@pytest.mark.parametrize(("opts", "message"), ERRORS)
def test_errors_name_the_key(opts, message):
    with pytest.raises(ConfigError, match=message):
        get_config(None, opts)


BAD_FILES = [
    ("- 1\n", "expected keys and values, got list"),
    ("a: [", "is not YAML"),
    ("BASE: a.yaml\n", "leads back"),
    ("MODEL: {SWIN: {DEPTHS: [2]}}\n", "MODEL.SWIN.DEPTHS: this setting means nothing"),
    ("SEED: x\n", r"a\.yaml: SEED: expected int"),
]


@pytest.mark.parametrize(("text", "message"), BAD_FILES)
def test_bad_files(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        get_config(tmp_path / "a.yaml")


def test_a_missing_file():
    with pytest.raises(ConfigError, match="--cfg: cannot read"):
        get_config("/nowhere.yaml")


def test_the_settings_are_frozen():
    with pytest.raises(AttributeError):
        get_config().SEED = 1


def test_null_and_numbers_for_no_person():
    assert get_config().SCORE.NO_PERSON is None
    assert get_config(None, ["SCORE.NO_PERSON", "1"]).SCORE.NO_PERSON == 1.0

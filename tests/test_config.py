"""Settings: layers in order, and errors that name the key."""

import ast

import pytest
from conftest import RELEASE_YAML, ROOT, YAML

from human_anomaly.configs.defaults import (
    DEFAULTS,
    PARTS,
    ConfigError,
    differences,
    flatten,
    get_config,
    thresholds,
)


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
    (["MODEL.VIT.USE_MEAN_POOLING", "False"], "POOLING: expected True: nothing else is built"),
    (["SCORE.NO_PERSON", "yes"], "SCORE.NO_PERSON: expected null or a number"),
    (["AMP_OPT_LEVEL", "O1"], "AMP_OPT_LEVEL: this setting has no effect here"),
    (["LOSS.FOCAL", "True"], "LOSS.FOCAL: this setting has no effect here .*cross-entropy"),
    (["SEED"], "expected KEY VALUE pairs"),
    (["SEED", "["], "--opts: SEED: not YAML"),
    (["SEED", "2024-02-31"], "--opts: SEED: not YAML: day is out of range"),
    (["SEED", "1" * 5000], "--opts: SEED: not YAML: Exceeds the limit"),
    (["SEED", "[" * 3000], "--opts: SEED: not YAML: maximum recursion"),
    (["SEED", "9" * 30], "SEED: expected 0 to 2147483647"),
    (["SEED", "!!python/object:os.system x"], "SEED: not YAML"),
    (["TRAIN.BASE_LR", "1" + "0" * 400], "TRAIN.BASE_LR: expected a number"),
    (["TRAIN.BASE_LR", ".inf"], "TRAIN.BASE_LR: expected 0 to"),
    (["TRAIN.OPTIMIZER.BETAS", "[0.9, x]"], "BETAS: expected a number, got 'x'"),
    (["TRAIN.OPTIMIZER.BETAS", "[0.9]"], "BETAS: expected 2 numbers"),
    (["TRAIN.OPTIMIZER.BETAS", "&a [*a, *a]"], "BETAS: expected a number"),
    (["SCORE.THRESHOLDS.HAND", ".nan"], "HAND: expected 0 to 1, got nan"),
    (["SCORE.THRESHOLDS.HAND", "-0.1"], "HAND: expected 0 to 1, got -0.1"),
    (["SCORE.THRESHOLDS.HAND", "1.5"], "HAND: expected 0 to 1, got 1.5"),
    (["SCORE.NO_PERSON", ".nan"], "NO_PERSON: expected 0 to 1, got nan"),
    (["MODEL.VIT.PATCH_SIZE", "0"], "PATCH_SIZE: expected 1 to 4096, got 0"),
    (["MODEL.VIT.PATCH_SIZE", "15"], "IMG_SIZE: expected a multiple of MODEL.VIT.PATCH_SIZE"),
    (["MODEL.VIT.NUM_HEADS", "5"], "EMBED_DIM: expected a multiple of MODEL.VIT.NUM_HEADS"),
    (["BASE", "[a.yaml]"], "BASE: only a YAML file can name others"),
]


def read_names() -> set[str]:
    """Return the names in capitals that the code reads as attributes, as in config.TRAIN.EPOCHS."""
    files = [p for f in ("models", "data", "tools") for p in (ROOT / f).rglob("*.py")]
    trees = [ast.parse(path.read_text()) for path in (*files, *ROOT.glob("*.py"))]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return {n.attr for n in nodes if isinstance(n, ast.Attribute) and n.attr.isupper()}


def another(value):
    """Return a value of the same type that may well be a wish."""
    if isinstance(value, bool) or value is None:
        return not value
    return [] if isinstance(value, (list, tuple)) else value + type(value)(1)


def test_a_setting_that_nothing_reads_has_one_value():
    """Any other one would be ignored. TAG is a note for people, BASE names files."""
    names = read_names() | {"BASE", "TAG", *(part.upper() for part in PARTS)}
    ignored = {k: v for k, v in flatten(DEFAULTS) if k.split(".")[-1] not in names}
    assert set(ignored) >= {"MODEL.VIT.USE_MEAN_POOLING", "MODEL.TYPE", "TRAIN.OPTIMIZER.NAME"}
    for key, default in ignored.items():
        get_config(flags={key: default})
        with pytest.raises(ConfigError, match=key):
            get_config(flags={key: another(default)})


@pytest.mark.parametrize(("opts", "message"), ERRORS)
def test_errors_name_the_key(opts, message):
    with pytest.raises(ConfigError, match=message):
        get_config(None, opts)


BAD_FILES = [
    ("- 1\n", "expected keys and values, got list"),
    ("a: [", "not YAML"),
    ("BASE: a.yaml\n", "leads back"),
    ("MODEL: {SWIN: {DEPTHS: [2]}}\n", "MODEL.SWIN.DEPTHS: this setting has no effect"),
    ("SEED: x\n", r"a\.yaml: SEED: expected int"),
    ("&a\nTRAIN: *a", r"a\.yaml: TRAIN\.TRAIN.*: no such setting"),
    ("TRAIN: &a {EPOCHS: *a}", r"a\.yaml: TRAIN\.EPOCHS.*: no such setting"),
    ("BASE: [5]", r"a\.yaml: BASE: expected names of YAML files"),
    ('BASE: "a\\0b"', "--cfg: cannot read .*embedded null"),
    ("SEED: !!timestamp x", "not YAML"),
    ("SEED: !!bool x", "not YAML"),
    ("SEED: \udcff", "cannot read .*utf-8"),
]


@pytest.mark.parametrize(("text", "message"), BAD_FILES)
def test_bad_files(tmp_path, text, message):
    (tmp_path / "a.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
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

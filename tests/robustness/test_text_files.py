"""Settings and JSON lines of any content end in settings or rows, or in one line."""

import json

import pytest
import yaml

from human_anomaly.configs.defaults import DEFAULTS, ConfigError, get_config
from human_anomaly.data.cropping.crop_lists import STATE_FILE, read_split
from human_anomaly.data.cropping.label_page import read_probabilities
from human_anomaly.data.cropping.labels import read_json
from human_anomaly.data.dataset import find_abnormal_label, read_manifest
from human_anomaly.models.scoring.results import read_scores
from human_anomaly.models.weights import read_lock
from human_anomaly.tools.agreement import read_preferences
from human_anomaly.tools.vbench2.prompts import read_prompts
from human_anomaly.utils import UsageError

hypothesis = pytest.importorskip("hypothesis")
given, settings, st = hypothesis.given, hypothesis.settings, hypothesis.strategies

COMMON = {
    "deadline": None,
    "suppress_health_check": [hypothesis.HealthCheck.function_scoped_fixture],
    "derandomize": True,
}
FEW, MANY = settings(max_examples=50, **COMMON), settings(max_examples=300, **COMMON)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3),
    max_leaves=8,
)


def keys(tree: dict, prefix: str = "") -> list[str]:
    found = []
    for name, value in tree.items():
        found.append(prefix + name)
        found += keys(value, f"{prefix}{name}.") if isinstance(value, dict) else []
    return found


KEYS = st.sampled_from(keys(DEFAULTS)) | st.text(max_size=10)
TEXTS = st.text(max_size=30) | st.sampled_from(
    ["[", "{", "&a [*a]", ".nan", ".inf", "-1", "1e999", "2024-02-31", "!!bool x", "9" * 5000]
)


def is_one_line(error: Exception) -> bool:
    return "\n" not in str(error)


def check_opts(pairs):
    try:
        config = get_config(None, [word for pair in pairs for word in pair])
    except ConfigError as error:
        assert is_one_line(error)
    else:
        assert 0 <= config.SCORE.THRESHOLDS.HAND <= 1
        assert config.MODEL.VIT.PATCH_SIZE >= 1


def check_yaml(path, tree, text):
    for content in (yaml.safe_dump(tree).encode(), text):
        path.write_bytes(content)
        try:
            get_config(path)
        except ConfigError as error:
            assert is_one_line(error)


def check_jsonl(folder, rows, text):
    lines = "\n".join(json.dumps(row) for row in rows).encode()
    for content in (lines, lines + b"\n" + text):
        (folder / "hand.jsonl").write_bytes(content)
        try:
            read = read_manifest(folder / "hand.jsonl")
        except UsageError as error:
            assert is_one_line(error)
            assert "hand.jsonl" in str(error)
        else:
            assert len(read) >= 2


# A program that reads what others wrote, and the file's name.
READERS = [
    (read_json, "labels.json"),
    (read_scores, "scores.json"),
    (read_prompts, "prompts.json"),
    (read_preferences, "preferences.json"),
    (find_abnormal_label, "dataset.json"),
    (lambda path: read_split(path.parent), STATE_FILE),
    (lambda path: read_probabilities(path.parent), "p_abnormal.json"),
    (lambda path: read_lock(path.parent.parent), "pretrain/weights.lock.json"),
]


@pytest.mark.parametrize("content", ["[" * 100_000, "1" * 5000, '{"a": 1}x', "\ud800"])
@pytest.mark.parametrize(("read", "name"), READERS)
def test_json_that_cannot_be_read_is_one_line_with_its_file(tmp_path, read, name, content):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(UsageError, match=path.name) as error:
        read(path)
    assert is_one_line(error.value)


PAIRS = st.lists(st.tuples(KEYS, TEXTS | VALUES), max_size=3)
TREES = st.dictionaries(KEYS, VALUES, max_size=4)
ROWS = st.lists(VALUES | st.tuples(st.text(), st.integers(0, 1) | SCALARS, SCALARS), max_size=4)


@FEW
@given(PAIRS)
def test_options(pairs):
    check_opts(pairs)


@FEW
@given(TREES, st.binary(max_size=60))
def test_yaml(tmp_path, tree, text):
    check_yaml(tmp_path / "a.yaml", tree, text)


@FEW
@given(ROWS, st.binary(max_size=60))
def test_json_lines(tmp_path, rows, text):
    check_jsonl(tmp_path, rows, text)


@pytest.mark.slow
@MANY
@given(PAIRS)
def test_many_options(pairs):
    check_opts(pairs)


@pytest.mark.slow
@MANY
@given(TREES, st.binary(max_size=60))
def test_many_yaml(tmp_path, tree, text):
    check_yaml(tmp_path / "a.yaml", tree, text)


@pytest.mark.slow
@MANY
@given(ROWS, st.binary(max_size=60))
def test_many_json_lines(tmp_path, rows, text):
    check_jsonl(tmp_path, rows, text)

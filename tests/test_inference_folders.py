"""Which folder results go to, and what may join or replace what it holds."""

import shutil
from pathlib import Path

import pytest
from inference_runs import run

from human_anomaly import inference
from human_anomaly.models.checkpoint import CheckpointError
from human_anomaly.utils import UsageError, read_jsonl


@pytest.fixture
def same_name(short, tmp_path) -> Path:
    """A folder of another model's video with the name of one that is scored already."""
    shutil.copytree(short / "hand_fused", tmp_path / "other" / "normal_1")
    return tmp_path / "other" / "normal_1"


@pytest.fixture
def one_scored(short, tmp_path) -> Path:
    assert run(tmp_path / "one", "--video", short / "normal_1")[0] == 0
    return tmp_path / "one"


def test_results_of_other_inputs_are_not_replaced(one_scored, short, same_name):
    before = (one_scored / "scores.json").read_bytes()
    with pytest.raises(UsageError, match="other inputs") as error:
        run(one_scored, "--video", same_name)
    assert str(short / "normal_1") in str(error.value) and str(same_name) in str(error.value)
    assert (one_scored / "scores.json").read_bytes() == before
    status, scores = run(one_scored, "--video", short / "normal_1", short / "hand_fused")
    assert status == 0 and len(scores["videos"]) == 2  # more inputs replace nothing


def test_other_inputs_can_be_added(one_scored, short, same_name):
    first = (one_scored / "normal_1.frames.jsonl").read_bytes()
    status, scores = run(one_scored, "--video", same_name, "--add")
    assert status == 0
    rows = {row["video_path"]: row for row in scores["videos"]}
    assert set(rows) == {str(short / "normal_1"), str(same_name)}
    files = [row["frames_file"] for row in scores["videos"]]
    assert len(set(files)) == 2 and files[0] == "normal_1.frames.jsonl"
    assert (one_scored / files[0]).read_bytes() == first
    counts = [len(read_jsonl(one_scored / row["frames_file"])) for row in scores["videos"]]
    assert counts == [3, 5] == [row["frames"] for row in scores["videos"]]
    stamp = (one_scored / files[1]).stat().st_mtime_ns
    status, again = run(one_scored, "--video", same_name, "--add")  # known again by its path
    assert again == scores and (one_scored / files[1]).stat().st_mtime_ns == stamp


def test_overwriting_deletes_the_results_of_others(one_scored, short, same_name):
    status, scores = run(one_scored, "--video", short / "hand_fused", "--overwrite")
    assert status == 0 and len(scores["videos"]) == 1
    assert not (one_scored / "normal_1.frames.jsonl").exists()


def test_a_start_that_fails_pins_no_settings(short, tmp_path):
    opts = ("--opts", "MODEL.VIT.DEPTH", "4")  # not the shape of the weights
    with pytest.raises(CheckpointError):
        run(tmp_path / "out", "--video", short / "normal_1", *opts)
    assert not (tmp_path / "out").exists()
    assert run(tmp_path / "out", "--video", short / "normal_1")[0] == 0


DEFAULT_FOLDERS = [
    (["clips"], "results/clips"),
    (["clips/"], "results/clips"),
    (["clips/a.mp4"], "results/a"),
    (["clips/*.mp4"], "results/clips"),
    (["clips/a.mp4", "b.mp4"], "results/a_and_1_more"),
]


@pytest.mark.parametrize(("inputs", "folder"), DEFAULT_FOLDERS)
def test_results_go_to_a_folder_named_like_the_input(inputs, folder, tmp_path, monkeypatch):
    (tmp_path / "clips").mkdir()
    monkeypatch.chdir(tmp_path)
    assert inference.default_output(inputs) == Path(folder)

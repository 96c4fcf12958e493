"""inference.py, killed in a video, without its input, or on a full disk."""

import errno
import json
import shutil

import pytest
from inference_runs import run, without_seconds

from human_anomaly.data.runs.jobs import JobFolder
from human_anomaly.models.detector import PartDetector
from human_anomaly.models.scoring.scorer import VideoScorer
from human_anomaly.utils import write_json


def test_a_run_killed_in_a_video_leaves_no_half_result(short, tmp_path):
    output = tmp_path / "out"
    run(output, "--video", short / "normal_1")
    (output / "scores.json").unlink()
    state = output / ".state" / "item.normal_1.json"
    before = json.loads(state.read_text())
    state.unlink()  # as if killed before the video was finished
    write_json(output / ".normal_1.frames.jsonl.1.part", {})
    status, scores = run(output, "--video", short / "normal_1")
    assert status == 0
    assert scores["videos"][0]["people"] == before["row"]["people"]
    assert not list(output.glob(".*.part"))


@pytest.mark.parametrize("flags", [[], ["--annotate"]])
def test_a_run_killed_in_a_video_goes_on_where_it_was(flags, short, tmp_path, monkeypatch):
    """The frames of whole batches are not computed again, and the results are the same."""
    detect, calls = PartDetector.detect, []

    def counted(self, frames, *run):
        if len(calls) == stop:
            raise KeyboardInterrupt
        calls.append(len(frames))
        return detect(self, frames, *run)

    monkeypatch.setattr(PartDetector, "detect", counted)
    words = ["--video", short / "hand_fused", "--batch-size", "1", *flags]
    monkeypatch.setattr("human_anomaly.models.scoring.scorer.share_cores", lambda *_: (1, 1))
    stop = None
    _, whole = run(tmp_path / "whole", *words)
    calls.clear()
    stop, output = 4, tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        run(output, *words)
    part = output / ".state" / "part.hand_fused.jsonl"
    kept = len(part.read_text().splitlines()) - 1
    assert 0 < kept <= 4
    with part.open("a") as file:
        file.write('{"rows": [')  # what a kill may cut off
    stop = None
    calls.clear()
    status, scores = run(output, *words)
    assert status == 0 and len(calls) == 5 - kept
    rows, expected = (f / "hand_fused.frames.jsonl" for f in (output, tmp_path / "whole"))
    assert rows.read_text() == expected.read_text()
    assert without_seconds(scores) == without_seconds(whole)
    assert (output / "hand_fused.annotated.webm").exists() == bool(flags)
    assert not part.exists()


def test_a_video_that_vanishes_fails_alone(short, tmp_path, monkeypatch):
    shutil.copytree(short, tmp_path / "videos")
    score = VideoScorer.score

    def vanishing(self, source, **options):
        if source.stem == "normal_1":
            shutil.rmtree(tmp_path / "videos" / "hand_fused")
        return score(self, source, **options)

    monkeypatch.setattr(VideoScorer, "score", vanishing)
    videos = (tmp_path / "videos" / name for name in ("normal_1", "hand_fused"))
    status, scores = run(tmp_path / "out", "--video", *videos)
    assert status == 1 and len(scores["videos"]) == 1
    assert "No such file" in scores["failed"][0]["error"]


def test_a_full_disk_is_one_line_and_a_rerun_continues(short, tmp_path, monkeypatch, capsys):
    words = ("--video", short / "normal_1", short / "hand_fused")
    finish = JobFolder.finish

    def full(self, source, row, files):
        if source.stem == "hand_fused":
            raise OSError(errno.ENOSPC, "No space left on device", "results")
        finish(self, source, row, files)

    with monkeypatch.context() as patch:
        patch.setattr(JobFolder, "finish", full)
        assert run(tmp_path / "out", *words) == (1, {})
    assert "results: No space left on device; finished videos are kept" in capsys.readouterr().err
    assert run(tmp_path / "out", *words)[0] == 0

"""Scores by the demo's weights say so, and an input that is not there leaves nothing behind."""

import json
import shutil

import cv2
import numpy as np
import pytest
from conftest import ROOT
from report_results import write_clip

from human_anomaly import inference
from human_anomaly.data.runs.jobs import JobFolder
from human_anomaly.data.runs.marks import mark
from human_anomaly.data.sources import Found, Source
from human_anomaly.hubconf import human_anatomy
from human_anomaly.models.scoring.results import merge
from human_anomaly.models.serving.reports import Reports, score_with_report
from human_anomaly.models.weights import DEMO_WARNING, demo_warnings
from human_anomaly.tools.compare import compare, format_table
from human_anomaly.utils import UsageError

VIDEO = ROOT / "demo/videos/normal_1.mp4"
WEIGHTS = ROOT / "demo/weights"


def test_other_videos_and_the_demos_weights_are_known_by_their_content(tmp_path):
    copy = shutil.copy(WEIGHTS / "hand.pth", tmp_path / "mine.pth")
    (other := tmp_path / "other.pth").write_bytes(b"other")
    own = mark(VIDEO)[2]
    assert demo_warnings([other, WEIGHTS / "hand.pth"], [own, "0" * 64]) == [DEMO_WARNING]
    assert demo_warnings([copy], ["0" * 64]) == demo_warnings([copy], [None]) == [DEMO_WARNING]
    assert demo_warnings([WEIGHTS / "hand.pth"], [own]) == []
    assert demo_warnings([other, tmp_path / "gone.pth"], ["0" * 64]) == []


def test_scores_and_the_last_line_say_so(tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((64, 64, 3), 128, np.uint8))
    flags = ["--device", "cpu", "--frame-stride", "100", "--output", str(tmp_path / "out")]
    assert inference.main([*flags, "--video", str(VIDEO)]) == 0
    assert json.loads((tmp_path / "out/scores.json").read_text())["warnings"] == []
    assert "demo weights" not in capsys.readouterr().out
    assert inference.main([*flags, "--video", str(VIDEO), str(tmp_path / "a.png")]) == 0
    said = "demo weights: scores of other videos mean nothing"
    assert json.loads((tmp_path / "out/scores.json").read_text())["warnings"] == [said]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(f"mean of 1 video; results in {tmp_path / 'out/scores.json'}; {said}")


def test_a_report_of_the_service_says_so(tmp_path):
    write_clip(tmp_path / "a.mp4", 2)
    reports, source = Reports(tmp_path / "reports", 100, 2**30), Source(tmp_path / "a.mp4", "a")
    scorer = human_anatomy("demo", "cpu")
    result = score_with_report(scorer, source, "mine.mp4", lambda *_: None, reports)
    page = (reports.folder / result.summary["page"]).read_text()
    assert f'<p class="notice alarm">{DEMO_WARNING}</p>' in page


def test_a_comparison_says_so():
    a, b = ({"videos": [{"video_path": "x.mp4", "video_results": v}]} for v in (0.5, 1.0))
    lines = format_table(compare(a, b | {"warnings": ["demo weights: \x1b[2J"]})).splitlines()
    assert lines[-2] == r"warning: B: demo weights: \x1b[2J" and lines[-1].startswith("mean of 1")


def test_rows_of_earlier_versions_get_views(tmp_path):
    """A folder that they left is continued; `people` keeps its meaning."""
    jobs = JobFolder(tmp_path, settings := {"detector_weights": "d.pth", "models": {}})
    scores = ("video_results", "score_frame_mean", "score_clean_frames", "score_soft")
    row = {"video_path": "a", "people": 9, "abnormal_people": 2, "tracks": 1, "dtype": "float32"}
    (tmp_path / ".state").mkdir()
    source = Source(tmp_path / "a.mp4", "a")
    jobs.finish(source, row | dict.fromkeys((*scores, "score_people"), 0.5))
    (found,) = merge(jobs, [source], Found(), settings, False)["videos"]
    assert (found["views"], found["abnormal_views"]) == (9, 2)
    assert (found["people"], found["abnormal_people"]) == (9, 2)


def test_inputs_that_are_not_there_are_one_line_and_leave_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for inputs, message in (
        (["clipz/a.mp4"], r"--video: clipz/a\.mp4: no such file or folder$"),
        (["clips/*.mp4", "x"], r"--video: clips/\*\.mp4: no such file or folder \(and 1 more\)$"),
        (["empty"], "--video: empty: the folder holds no video and no images$"),
    ):
        with pytest.raises(UsageError, match=message):
            inference.main(["--device", "cpu", "--video", *inputs])
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]

"""What moves the score: the changes, what of them is computed again, and the table."""

import types
from pathlib import Path

import numpy as np
import pytest
from conftest import RELEASE_YAML, ROOT
from fake_detector import FakeDetector

from human_anomaly.configs.defaults import PARTS, differences, get_config
from human_anomaly.data.video import Source, VideoError
from human_anomaly.demo.paths import VIDEOS
from human_anomaly.models.weights import choose_weights
from human_anomaly.tools import sensitivity
from human_anomaly.tools.changes import (
    Bench,
    Change,
    Remembered,
    changes_of,
    compare_people,
    match_people,
    reencode,
)
from human_anomaly.tools.sensitivity import format_table, read_labels, summarise
from human_anomaly.utils import UsageError, write_json, write_jsonl


def test_the_two_named_settings_differ_in_the_four_conventions():
    """Everything else is the same: neither file changes the classifier's shape or the crop."""
    changed = differences(get_config(RELEASE_YAML), get_config(ROOT / "configs/documented.yaml"))
    changed.pop("BASE", None)
    thresholds = {f"SCORE.THRESHOLDS.{part.upper()}" for part in PARTS}
    others = {"TEST.CHANNELS", "DETECTOR.KEEP_PADDING_CLASS", "SCORE.NO_PERSON"}
    assert set(changed) == thresholds | others


@pytest.mark.parametrize("path", [None, RELEASE_YAML, ROOT / "configs/documented.yaml"])
def test_each_change_of_settings_changes_what_it_says(path):
    config = get_config(path)
    changes = changes_of(config, 3, can_encode=False)
    assert changes[0] == Change("none")
    keys = {
        "colours": "TEST.CHANNELS",
        "direct": "TEST.CROP",
        "thresholds": "SCORE.THRESHOLDS",
        "boxes": "DETECTOR.KEEP_PADDING_CLASS",
        "no": "SCORE.NO_PERSON",
    }
    for change in changes:
        if change.opts:
            flags = dict(zip(change.opts[::2], change.opts[1::2], strict=True))
            changed = differences(get_config(path, flags=flags), config)
            assert changed and all(k.startswith(keys[change.name.split()[0]]) for k in changed)
    names = [change.name for change in changes if not change.opts]
    strides = [f"--frame-stride {n}" for n in (6, 12, 24)]
    assert names == ["none", *strides, "--fast", "half resolution", "2x upscaling"]
    encoded = [c.crf for c in changes_of(config, 1, can_encode=True) if c.crf]
    assert encoded == [28, 35]


def test_no_picture_is_searched_twice():
    fake = FakeDetector()
    fake.predictor = fake.device = fake.on_device = None
    seen, search = [], fake.detect
    fake.detect = lambda frames, *run: seen.append(len(frames)) or search(frames)
    detector = Remembered(fake)
    a, b = (np.full((8, 8, 3), value, np.uint8) for value in (1, 2))
    first = detector.detect([a, b])
    assert detector.detect([b, a]) == first[::-1] and seen == [2, 0]
    detector.forget()
    detector.detect([a])
    assert seen == [2, 0, 1]


def person(abnormal, *box):
    return {"abnormal": abnormal, "bbox": list(box)}


def test_people_are_matched_by_their_boxes():
    before = [person(True, 0, 0, 10, 10), person(False, 50, 0, 60, 10)]
    after = [person(True, 100, 0, 120, 20), person(False, 2, 0, 20, 20)]  # twice as large
    pairs = list(match_people(before, after, 2.0))
    assert sorted(one["abnormal"] for one, _ in pairs) == [False, True]
    rows = [{"frame": 0, "people": before}, {"frame": 1, "people": before}]
    assert compare_people(rows, [{"frame": 1, "people": after}], 2.0) == (2, 2)
    assert compare_people(rows, [{"frame": 0, "people": before}], 1.0) == (2, 0)


def figures(score, people=4, abnormal=1, matched=4, changed=0):
    counts = {"people": people, "abnormal_people": abnormal}
    return {"video_results": score, "matched": matched, "changed": changed, **counts}


def test_the_table_by_hand():
    labels = {"n.mp4": False, "a.mp4": True}
    rows = [
        {"video": "n.mp4", "changes": {"none": figures(0.75), "x": figures(0.25, changed=2)}},
        {"video": "a.mp4", "changes": {"none": figures(0.5), "x": figures(0.5, abnormal=2)}},
        {"video": "?.mp4", "changes": {"none": figures(None), "x": figures(1.0, matched=0)}},
    ]
    none, x = summarise(rows, labels, "video_results")
    assert (none["mean"], none["auroc"], none["false_flags"]) == (0.625, 1.0, 0.25)
    assert none["ci95"] is None and none["changed"] == 0
    assert x["mean"] == pytest.approx(1.75 / 3) and x["difference"] == -0.25
    assert x["changed"] == 2 / 8 and x["auroc"] == 0.0
    assert "| x | 0.5833 | -0.2500 [-0.5000, +0.0000] | 25.00% | 0.000 | 25.0% |" in format_table(
        [none, x]
    )
    assert summarise(rows, {}, "video_results")[0]["auroc"] is None


def test_one_video_under_the_changes_that_share_a_detector_pass(monkeypatch):
    weights = choose_weights(parts=PARTS, models={})
    chosen = ("none", "colours BGR", "thresholds exact", "--frame-stride 24")
    changes = changes_of(get_config(weights.cfg), 12, can_encode=False)
    bench = Bench(weights, [c for c in changes if c.name in chosen], device="cpu", stride=12)
    searched = []
    detect = bench.base.detector.detector.detect
    bench.base.detector.detector.detect = lambda frames, run: (
        searched.append(len(frames)) or detect(frames, run)
    )
    found = bench.score(Source(VIDEOS / "hand_fused.mp4", "hand_fused"))
    assert tuple(found) == chosen
    assert sum(searched) == found["none"]["frames"] > 1
    assert found["--frame-stride 24"]["frames"] == -(-found["none"]["frames"] // 2)
    assert found["none"]["changed"] == 0 < found["none"]["matched"]
    assert found["colours BGR"]["matched"] == found["none"]["matched"]
    assert found["colours BGR"]["score_soft"] != found["none"]["score_soft"]


def test_a_run_continues_and_refuses_other_settings(tmp_path, monkeypatch, capsys):
    scored = []

    def bench(settings):
        def score(source):
            scored.append(source.path.name)
            if source.path.name == "b.mp4":
                raise VideoError("broken")
            return {"none": figures(0.5)}

        return types.SimpleNamespace(settings=lambda: settings, score=score)

    for name in "abc":
        (tmp_path / f"{name}.mp4").touch()
    rows = list(sensitivity.score_all(bench({"x": 1}), tmp_path, 2, tmp_path))
    assert [row["video"] for row in rows] == ["a.mp4"] and "failed: b.mp4: broken" in (
        capsys.readouterr().out
    )
    rows = list(sensitivity.score_all(bench({"x": 1}), tmp_path, None, tmp_path))
    assert [row["video"] for row in rows] == ["a.mp4", "c.mp4"]
    assert scored == ["a.mp4", "b.mp4", "b.mp4", "c.mp4"]
    with pytest.raises(UsageError, match=r"--output: .* holds figures of other settings"):
        list(sensitivity.score_all(bench({"x": 2}), tmp_path, None, tmp_path))


def test_labels_come_from_the_truth(tmp_path):
    people = [{"abnormal_parts": ["hand"]}, {"abnormal_parts": []}]
    rows = [("a.mp4", people), ("a.mp4", []), ("n.mp4", people[1:])]
    write_jsonl(
        tmp_path / "truth.jsonl",
        [{"video": v, "frame": i, "people": p} for i, (v, p) in enumerate(rows)],
    )
    assert read_labels(tmp_path) == {"a.mp4": True, "n.mp4": False}
    assert read_labels(tmp_path / "none") == {}


def test_an_encoder_that_fails_is_told(tmp_path, monkeypatch):
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho no such codec >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(VideoError, match="ffmpeg: no such codec"):
        reencode(Source(Path("a.mp4"), "a"), tmp_path / "b.mp4", 28)


def test_wrong_folders_are_named(tmp_path):
    with pytest.raises(UsageError, match="--videos: no such folder"):
        sensitivity.main(["--videos", str(tmp_path / "none")])
    write_json(tmp_path / "x.json", {})
    with pytest.raises(UsageError, match="--videos: no video in"):
        sensitivity.main(["--videos", str(tmp_path), "--output", str(tmp_path / "out")])

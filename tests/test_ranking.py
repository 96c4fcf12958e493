"""When VBench-2.0's command ranks a scores.json among the published, and why it does not."""

import json

import pytest
from conftest import RELEASE_YAML, ROOT
from vbench2_runs import call

from human_anomaly.configs.defaults import differences, get_config, thresholds
from human_anomaly.models.weights import RELEASE_DETECTOR_CONFIG
from human_anomaly.tools.vbench2 import evaluation
from human_anomaly.tools.vbench2.evaluation import collect, format_result
from human_anomaly.utils import UsageError

NAMES = [f"p{k}-{i}.mp4" for k in range(120) for i in range(3)]


@pytest.fixture
def released(monkeypatch) -> dict:
    """A scores.json of 120 prompts x 3 that the released weights could have made."""
    release = get_config(RELEASE_YAML)
    monkeypatch.setattr(evaluation, "check_bytes", lambda path, *_: [1, 1, str(path)])
    settings = {
        "changed": {key: value for key, (_, value) in differences(release).items()},
        "detector_config": str(ROOT / RELEASE_DETECTOR_CONFIG),
        "detector_weights": "pretrain/xl.pth",
        "models": {part: f"checkpoint/{part}.pth" for part in ("human", "face", "hand")},
        "thresholds": dict(release.SCORE.THRESHOLDS),
        "channels": "bgr",
        "fast": False,
        "frame_stride": 1,
        "fps": 25.0,
        "dtype": "float32",
    }
    videos = [
        {"video_path": f"v/p{k}-{i}.mp4", "video_results": 0.87, "people": 9, "frames": 8}
        for k in range(120)
        for i in range(3)
    ]
    return json.loads(json.dumps({"settings": settings, "videos": videos, "failed": []}))


@pytest.mark.parametrize("keys", [str.upper, str.lower])
def test_all_360_videos_with_the_released_weights_are_ranked(released, keys, tmp_path, capsys):
    released["settings"]["thresholds"] = {
        keys(part): value for part, value in thresholds(get_config(RELEASE_YAML)).items()
    }
    (tmp_path / "scores.json").write_text(json.dumps(released))
    assert call(tmp_path, "--name", "ours") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[1:6]] == [
        *("HunyuanVideo", "ours", "Kling", "Sora-480p", "CogVideoX-1.5")
    ]
    assert lines[-1] == "Human Anatomy of ours: 87.00 (95% 87.00 to 87.00), 360 videos; rank 2 of 5"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s["videos"].pop(), "359 of the benchmark's 360 videos"),
        (lambda s: s["settings"].update(fast=True), "scored with --fast"),
        (lambda s: s["settings"].update(dtype="bfloat16"), "scored in bfloat16"),
        (lambda s: s["settings"].update(frame_stride=2), "not every frame was scored"),
        (lambda s: s["settings"]["models"].pop("face"), "face was not scored"),
        (lambda s: s["settings"]["models"].update(foot="f.pth"), "foot was scored, too"),
        (
            lambda s: s["settings"]["thresholds"].update(HAND=0.5),
            "other settings: SCORE.THRESHOLDS.HAND 0.5 instead of 0.3232",
        ),
        (
            lambda s: s["settings"].update(channels="rgb"),
            "other settings: TEST.CHANNELS rgb instead of bgr",
        ),
        (
            lambda s: s["settings"]["changed"].update({"DETECTOR.SCORE_THR": 0.9}),
            "other settings: DETECTOR.SCORE_THR 0.9 instead of 0.1",
        ),
        (
            lambda s: s["settings"]["changed"].update({"MODEL.VIT.OF_OLD": 1}),
            "a setting has no meaning here: MODEL.VIT.OF_OLD",
        ),
        (lambda s: s["settings"].update(detector_config="s.py"), "the detector's config is s.py"),
        (
            lambda s: s["settings"]["models"].update(face="checkpoint/human.pth"),
            "the weights of human and face are one and the same file",
        ),
        (
            lambda s: s["videos"][0].update(frames_expected=9),
            "not every frame could be decoded in 1 of the videos",
        ),
        (lambda s: s.pop("settings"), "the file does not say with which settings"),
    ],
)
def test_one_difference_is_enough_for_no_rank(change, reason, released):
    assert collect(released, NAMES, name="ours").not_ranked == []
    change(released)
    result = collect(released, NAMES, name="ours")
    assert len(result.not_ranked) == 1 and result.not_ranked[0].startswith(reason)
    text = format_result(result)
    assert "HunyuanVideo" not in text and f"; not ranked: {reason}" in text.splitlines()[-1]


def test_training_settings_do_not_matter(released):
    released["settings"]["changed"] |= {"TRAIN.EPOCHS": 3, "TAG": "mine", "SCORE.NO_PERSON": None}
    assert collect(released, NAMES, name="").not_ranked == []


def test_weights_that_are_not_here_cannot_be_checked(released, monkeypatch):
    monkeypatch.undo()
    reasons = evaluation.unlike_published(released)
    assert "detector weights cannot be checked: pretrain/xl.pth is not here" in reasons


def test_a_scores_file_of_other_videos(tmp_path, released):
    for row in released["videos"]:
        row["video_path"] = row["video_path"].replace("-", "_")
    (tmp_path / "scores.json").write_text(json.dumps(released))
    with pytest.raises(UsageError, match="holds no video named <prompt>"):
        call(tmp_path)


def test_two_models_in_one_file_are_refused(released):
    row = {**released["videos"][0], "video_path": "other/p0-0.mp4"}
    released["videos"].append(row)
    with pytest.raises(UsageError, match=r"two that are named p0-0.mp4: v/p0-0.mp4 and other/"):
        collect(released, NAMES[:3], name="ours")


def test_an_incomplete_scores_file_has_status_1(tmp_path, released, capsys):
    lost = released["videos"].pop(1)
    released["failed"].append({"video_path": lost["video_path"], "error": "broken"})
    released["videos"].pop()
    (tmp_path / "scores.json").write_text(json.dumps(released))
    assert call(tmp_path, "--name", "ours") == 1
    out = capsys.readouterr().out
    assert "missing: 1 (p119-2.mp4)" in out and "failed: 1 (p0-1.mp4)" in out
    assert "358 videos, 1 missing, 1 failed; not ranked: 358 of" in out.splitlines()[-1]

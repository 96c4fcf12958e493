"""--min-score: the exit status of inference.py as a gate; each row holds its video's SHA-256."""

import hashlib
import json

import pytest
from conftest import ROOT

from human_anomaly import inference
from human_anomaly.data.runs.jobs import content_digest
from human_anomaly.data.video import Source
from human_anomaly.models.scoring.results import is_below

VIDEO = ROOT / "demo/videos/hand_fused.mp4"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.9", (0.9, "video_results")),
        ("0:score_soft", (0.0, "score_soft")),
        ("1:score_people", (1.0, "score_people")),
        ("1.1", "expected 0 to 1"),
        ("nan", "expected 0 to 1"),
        ("0.5:frames", "expected 0 to 1, or 0.9:video_results|"),
        ("much", "invalid minimum value: 'much'"),
    ],
)
def test_the_flag(text, expected, capsys):
    if isinstance(expected, tuple):
        assert inference.parse_args(["--min-score", text]).min_score == expected
        return
    with pytest.raises(SystemExit) as end:
        inference.parse_args(["--min-score", text])
    assert end.value.code == 2 and f"--min-score: {expected}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mean", "least", "said"),
    [
        (0.5, 0.5, ""),
        (0.4, 0.5, "below --min-score 0.5: mean score_soft is 0.4\n"),
        (None, 0.0, "below --min-score 0.0: mean score_soft is null\n"),
    ],
)
def test_the_mean_is_compared(mean, least, said, capsys):
    assert is_below({"score_soft": mean}, least, "score_soft") is bool(said)
    assert capsys.readouterr().out == said


def test_a_run_ends_with_the_gates_status(tmp_path, capsys):
    flags = ["--video", str(VIDEO), "--output", str(tmp_path / "out"), "--frame-stride", "19"]
    flags += ["--device", "cpu"]
    assert inference.main([*flags, "--min-score", "0.5"]) == 0
    (row,) = json.loads((tmp_path / "out/scores.json").read_text())["videos"]
    assert row["sha256"] == hashlib.sha256(VIDEO.read_bytes()).hexdigest()
    assert inference.main([*flags, "--min-score", "0.51"]) == 3
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "below --min-score 0.51: mean video_results is 0.5"
    assert inference.main([*flags, "--min-score", "0.01:score_clean_frames"]) == 3
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    flags[2:2] = [str(broken)]
    assert inference.main([*flags, "--add", "--min-score", "0.51"]) == 1  # failed inputs come first


def test_the_digest_of_images_is_of_all_in_order(tmp_path):
    images = []
    for number in range(2):
        images.append(tmp_path / f"{number}.png")
        images[-1].write_bytes(bytes([number]))
    digest = content_digest(Source(tmp_path, "images", tuple(images)))
    assert digest == hashlib.sha256(b"\0\1").hexdigest()
    assert content_digest(Source(tmp_path / "gone.mp4", "gone")) is None

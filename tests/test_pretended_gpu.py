"""Scoring and training on a pretended GPU: no mixed devices, few waits, copies and launches."""

import json
import subprocess
import sys

import finetune_runs
import pytest
from conftest import ROOT

from human_anomaly.configs.defaults import PARTS, get_config
from human_anomaly.demo.paths import CONFIG, DETECTOR_CONFIG, VIDEOS, WEIGHTS
from human_anomaly.models.scoring.scorer import VideoScorer
from human_anomaly.utils import read_jsonl


def pretend(*words) -> dict:
    command = [sys.executable, str(ROOT / "tests/pretended_gpu.py"), *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=finetune_runs.ONE_THREAD
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def parts_of(rows) -> list[dict]:
    """Return the parts of all frames, in an order that does not depend on scores."""
    parts = [(i, p) for i, row in enumerate(rows) for q in row["people"] for p in q["parts"]]
    return [part for _, part in sorted(parts, key=lambda x: (x[0], x[1]["part"], x[1]["bbox"]))]


def test_fast_mode_waits_and_launches_little_and_stays_near_exact_mode():
    """Of a batch of 8 frames; with 32, four times fewer a frame."""
    fast = pretend("count", VIDEOS / "hand_fused.mp4")
    models = {part: WEIGHTS / f"{part}.pth" for part in PARTS}
    files = DETECTOR_CONFIG, WEIGHTS / "detector.pth"
    scorer = VideoScorer.from_files(*files, models, get_config(CONFIG), device="cpu", stride=5)
    exact = scorer.score(VIDEOS / "hand_fused.mp4").frames
    assert fast["frames"] == len(exact) == 8
    # Two passes of the detector and the judge: NMS, its candidates, the boxes; all p at once.
    assert fast["waits"] <= 7 and fast["launches"] <= 190 and fast["copies"] <= 13
    near, parts = parts_of(exact), parts_of(fast["rows"])
    assert len(parts) == len(near) > 40
    assert sum(a["square"] != b["square"] for a, b in zip(near, parts, strict=True)) <= 1
    for one, other in zip(near, parts, strict=True):
        assert other["bbox"] == pytest.approx(one["bbox"], abs=0.02)
        assert other["p_abnormal"] == pytest.approx(one["p_abnormal"], abs=0.01)


def test_training_resumes_and_measures_without_waiting_in_every_step(tmp_path):
    data = finetune_runs.write_data(tmp_path)
    first, more = tmp_path / "first", tmp_path / "more"
    plain = ("--opts", "DATA.PIN_MEMORY", "False")  # no driver pins memory here
    words = finetune_runs.command(data, first, *plain, "TRAIN.EPOCHS", "1")
    counts = pretend("train", *words)
    in_steps = [n for place, n in counts["waits"].items() if place.startswith("data/transforms.py")]
    assert in_steps == [1]  # mean and std, once; there were three steps
    words = finetune_runs.command(data, more, *plain)
    pretend("train", *words, "--resume", first / "last.pth")
    losses = finetune_runs.losses(more)
    assert len(losses) == 3 and all(0 < loss < 2 for loss in losses)  # the second epoch's steps
    measured = read_jsonl(more / "metrics.jsonl")[-1]["val"]
    assert measured["count"] == 10
    pretend("train", *words, "--eval", "--overwrite")

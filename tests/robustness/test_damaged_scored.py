"""Damaged videos, scored in one run of inference.py: each has a row or a reason."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(Path(__file__).parent))

from clips import damaged_clip

DAMAGED = 40


@pytest.mark.slow
def test_each_damaged_video_is_scored_or_failed(tmp_path):
    (tmp_path / "in").mkdir()
    numbers = range(DAMAGED)
    paths = [damaged_clip(tmp_path / "in", random.Random(f"videos {i}"), f"{i}") for i in numbers]
    words = ["inference.py", "--video", tmp_path / "in", "--output", tmp_path / "out"]
    ended = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    scores = json.loads((tmp_path / "out/scores.json").read_text())
    rows = [row["video_path"] for row in scores["videos"] + scores["failed"]]
    assert sorted(rows) == sorted(map(str, paths))
    assert ended.returncode == bool(scores["failed"])
    assert "Traceback" not in ended.stderr
    print(f"{len(scores['videos'])} scored, {len(scores['failed'])} failed")

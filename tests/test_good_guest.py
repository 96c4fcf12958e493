"""The scorer in other people's programs: nothing of theirs changes."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from human_anomaly.hubconf import human_anatomy


def test_a_program_keeps_what_is_its_own():
    done = subprocess.run(
        [sys.executable, ROOT / "tests/host_program.py"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout) == (0, "as before\n"), done.stderr[-3000:]


@pytest.fixture(scope="module")
def result(clip_of_people):
    return human_anatomy("demo", "cpu").score_frames(clip_of_people("hand_fused", 1))


def test_results_are_plain(result):
    def kinds(value):
        if isinstance(value, dict):
            return set().union(*map(kinds, value.values()))
        if isinstance(value, (list, tuple)):
            return set().union(*map(kinds, value))
        return {type(value)}

    assert kinds(result.to_dict()) <= {str, int, float, bool, type(None)}
    assert json.loads(json.dumps(result.to_dict())) == result.to_dict()
    assert pickle.loads(pickle.dumps(result)) == result
    assert result.to_dict()["soft"] == result.soft
    result.to_dict()["summary"]["people"] = -1  # a copy
    assert result.summary["people"] > 0


def test_a_result_is_shown_in_a_line(result):
    shown = repr(result)
    assert shown.startswith("VideoResult(video_results=") and len(shown) < 120
    assert "views=2" in shown and "\n" not in shown


def test_a_scorer_is_created_in_the_worker():
    scorer = human_anatomy("demo", "cpu")
    with pytest.raises(TypeError, match="cannot be pickled: create it in the worker"):
        pickle.dumps(scorer)
    scorer._process = -1  # as after a fork
    with pytest.raises(RuntimeError, match="after a fork: create it in the worker"):
        scorer.score_frames(np.zeros((1, 64, 64, 3), np.uint8))
    with pytest.raises(RuntimeError, match="after a fork: create it in the worker"):
        scorer.score("a.mp4")

"""Scores clips and files; one that cannot be scored does not stop the others."""

import threading
from collections.abc import Callable, Sequence

import cv2

from human_anomaly.data.clips import frames_of
from human_anomaly.data.video import VideoError
from human_anomaly.models.scoring.scorer import VideoScorer
from human_anomaly.models.scoring.scores import VideoResult
from human_anomaly.utils import message_of


def result_row(result: VideoResult) -> dict:
    """Return the summary, the people's own scores ("per_person") and "unreliable"."""
    return result.summary | {"per_person": result.people, "unreliable": result.unreliable}


def score_each(scorer: VideoScorer, clips: Sequence, row: Callable = result_row) -> list[dict]:
    """Return a row for each clip of `to_clips`: only "error" if the clip cannot be scored."""
    found = [attempt(frames_of, clip) for clip in clips]
    usable = [number for number, frames in enumerate(found) if not isinstance(frames, dict)]
    together = attempt(scorer.score_frames, [clips[number] for number in usable])
    for number, i in enumerate(usable):
        if isinstance(together, dict):  # perhaps the GPU's memory is too small for one of them
            found[i] = attempt(lambda clip: row(scorer.score_frames([clip])[0]), clips[i])
        else:
            found[i] = row(together[number])
    return found


def attempt(function: Callable, item):
    """Return function(item), or {"error": why it cannot be scored} in one line."""
    try:
        return function(item)
    except (ValueError, VideoError, cv2.error) as error:
        return {"error": message_of(error)}


class OneByOne:
    """Scores clips and files for callers in any thread, one call at a time."""

    def __init__(self, scorer: VideoScorer):
        self.scorer, self.lock = scorer, threading.Lock()

    def clips(self, clips: Sequence) -> list[dict]:
        with self.lock:
            return score_each(self.scorer, clips)

    def files(self, paths: Sequence[str]) -> list[dict]:
        with self.lock:
            return [attempt(lambda path: result_row(self.scorer.score(path)), p) for p in paths]

"""A detector without weights for tests of cropping: boxes are a function of the frame's pixels.

As a script it runs preprocess.py with it: python fake_detector.py SECONDS_PER_FRAME FLAGS...
"""

import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace as Plain

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from human_anomaly.data.crops import square_box


class FakeDetector:
    """Finds zero to two people, and the first of them a second time as the padding text does."""

    def __init__(self, seconds: float = 0.0):
        self.seconds = seconds

    def detect(self, frames: Sequence[np.ndarray], run=map) -> list[Plain]:
        time.sleep(self.seconds * len(frames))
        return [self._frame(frame) for frame in frames]

    def _frame(self, frame: np.ndarray) -> Plain:
        rng = np.random.default_rng(zlib.crc32(frame.tobytes()))
        height, width = frame.shape[:2]
        people, skipped = [], 0
        for _ in range(rng.integers(0, 3)):
            parts = []
            for part in ("human", "face", "hand", "hand"):
                x1, y1 = rng.uniform(0, 0.6, 2) * (width, height)
                x2, y2 = (x1, y1) + rng.uniform(0.05, 0.4, 2) * (width, height)
                square = square_box((x1, y1, x2, y2), width, height)
                if square is None:
                    skipped += 1
                else:
                    parts.append(
                        Plain(
                            part=part,
                            bbox=(x1, y1, x2, y2),
                            score=rng.uniform(),
                            square=square,
                        )
                    )
            people.append(Plain(parts=parts))
        return Plain(people=people + people[:1], skipped=skipped)


if __name__ == "__main__":
    from human_anomaly import preprocess
    from human_anomaly.utils import run_main

    pause = float(sys.argv[1])
    preprocess.load_detector = lambda options: (FakeDetector(pause).detect, 2)
    run_main(lambda: preprocess.main(sys.argv[2:]))

"""The changes that `sensitivity.py` makes, and the scores of a video under each of them."""

import copy
import hashlib
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from human_anomaly.configs.defaults import get_config, thresholds
from human_anomaly.data.stream import batched
from human_anomaly.data.video import FrameReader, Source, VideoError
from human_anomaly.models.detector import FrameDetections, PartDetector
from human_anomaly.models.scoring.scorer import VideoScorer
from human_anomaly.models.scoring.scores import Tally, frame_score, is_abnormal
from human_anomaly.models.scoring.tracks import Tracker, pair

EXACT = {"HUMAN": 0.4545454545454546, "FACE": 0.30303030303030304, "HAND": 0.3232}
ROUNDED = {"HUMAN": 0.45, "FACE": 0.3, "HAND": 0.32}
SAME_PERSON = 0.5  # IoU
FRAMES_AT_ONCE = 8


@dataclass(frozen=True)
class Change:
    """One change: of settings, frame stride, fast mode, resolution, or H.264's CRF."""

    name: str
    opts: tuple = ()  # KEY VALUE ... over the unchanged settings
    stride: int = 1  # of the frames that the unchanged run scores
    fast: bool = False
    scale: float = 1.0
    crf: int | None = None


def changes_of(config, stride: int, *, can_encode: bool) -> list[Change]:
    """Return the changes to the settings `config`; the first changes nothing."""
    bgr = config.TEST.CHANNELS == "bgr"
    crop, padding = config.TEST.CROP, config.DETECTOR.KEEP_PADDING_CLASS
    exact = dict(config.SCORE.THRESHOLDS) == EXACT
    values = ROUNDED if exact else EXACT
    flipped = tuple(w for part, v in values.items() for w in (f"SCORE.THRESHOLDS.{part}", v))
    nobody = None if config.SCORE.NO_PERSON is not None else 1.0
    settings = [
        Change("colours " + ("RGB" if bgr else "BGR"), ("TEST.CHANNELS", "rgb" if bgr else "bgr")),
        Change("direct resize" if crop else "centre crop", ("TEST.CROP", not crop)),
        Change(f"thresholds {'rounded' if exact else 'exact'}", flipped),
        Change(
            "boxes of the blank text " + ("ignored" if padding else "count as people"),
            ("DETECTOR.KEEP_PADDING_CLASS", not padding),
        ),
        Change(
            "no people: " + ("no score" if nobody is None else "score 1"),
            ("SCORE.NO_PERSON", nobody),
        ),
    ]
    encoded = [Change(f"re-encoded at CRF {crf}", crf=crf) for crf in (28, 35)]
    return [
        Change("none"),
        *settings,
        *(Change(f"--frame-stride {stride * n}", stride=n) for n in (2, 4, 8)),
        Change("--fast", fast=True),
        Change("half resolution", scale=0.5),
        *(encoded if can_encode else []),
        Change("2x upscaling", scale=2.0),
    ]


class Remembered:
    """A detector that remembers what it found in each picture, until `forget` is called."""

    def __init__(self, detector: PartDetector):
        self.detector = detector
        self.predictor, self.device = detector.predictor, detector.device
        self.on_device, self.compiled = detector.on_device, False
        self._found: dict[bytes, FrameDetections] = {}

    def detect(self, frames: Sequence, run: Callable[..., Iterable] = map) -> list[FrameDetections]:
        """Return what `PartDetector.detect` does."""
        keys = [_digest(frame) for frame in frames]
        new = {k: f for k, f in zip(keys, frames, strict=True) if k not in self._found}
        self._found |= zip(new, self.detector.detect(list(new.values()), run), strict=True)
        return [self._found[key] for key in keys]

    def forget(self) -> None:
        self._found.clear()


def _digest(frame) -> bytes:
    pixels = frame if isinstance(frame, np.ndarray) else frame.numpy()
    return hashlib.sha256(np.ascontiguousarray(pixels)).digest()


class Bench:
    """Scores a video under each of `changes`, the first of which changes nothing.

    `weights` come from `choose_weights`. Networks are loaded once, and once more for fast mode.
    """

    def __init__(self, weights, changes: Sequence[Change], *, device: str, stride: int):
        self.weights, self.changes, self.stride = weights, changes, stride
        self._load = {
            "detector_config": weights.detector_config,
            "detector_weights": weights.detector_weights,
            "models": weights.models,
            "device": device,
            "stride": stride,
        }
        self.base = VideoScorer.from_files(**self._load, config=get_config(weights.cfg))
        self.base.detector = Remembered(self.base.detector)
        self._scorers = {c.name: self._scorer(c) for c in changes if self._needs_scorer(c)}

    def settings(self) -> dict:
        """Return what the figures depend on."""
        names = [change.name for change in self.changes]
        files = {k: str(v) for k, v in vars(self.weights).items()}
        return {"stride": self.stride, "changes": names, **files}

    def _config(self, change: Change):
        flags = dict(zip(change.opts[::2], change.opts[1::2], strict=True))
        return get_config(self.weights.cfg, flags=flags)

    @staticmethod
    def _needs_scorer(change: Change) -> bool:
        """Return whether the networks have to run again: not for scoring rules."""
        keys = change.opts[::2]
        return change.fast or any(not key.startswith("SCORE.") for key in keys)

    def _scorer(self, change: Change) -> VideoScorer:
        config = self._config(change)
        if change.fast:
            return VideoScorer.from_files(**self._load, config=config, fast=True)
        detector = self.base.detector
        if config.DETECTOR != self.base.config.DETECTOR:
            detector = copy.copy(detector.detector)  # with the same network
            detector.keep_padding_class = config.DETECTOR.KEEP_PADDING_CLASS
        return VideoScorer(
            detector,
            self.base.classifiers,
            config,
            batch_size=self.base.batch_size,
            stride=self.stride,
            workers=self.base.in_flight // 2,
        )

    def score(self, source: Source) -> dict[str, dict]:
        """Return {name of the change: the video's scores and counts}.

        "matched" people are found with and without the change; "changed" ones have another verdict.
        """
        self.base.detector.forget()
        before = self.base.score(source).frames
        figures = {}
        for change in self.changes:
            after = self._rows(change, source, before)
            config = self._config(change)
            tally = Tally(config.SCORE.NO_PERSON)
            for row in after:
                tally.add(row, thresholds(config))
            matched, changed = compare_people(before, after, change.scale)
            figures[change.name] = tally.scores() | {"matched": matched, "changed": changed}
        return figures

    def _rows(self, change: Change, source: Source, before: list[dict]) -> list[dict]:
        """Return the frames' rows under the change; `before` are those without it."""
        if change.scale != 1:
            return _scaled_rows(self.base, source, change.scale)
        if change.crf is not None:
            with tempfile.TemporaryDirectory() as folder:
                path = reencode(source, Path(folder) / "encoded.mp4", change.crf)
                return self.base.score(Source(path, source.stem)).frames
        if self._needs_scorer(change):
            return self._scorers[change.name].score(source).frames
        rules = thresholds(self._config(change))
        return [_judged_again(row, rules) for row in before[:: change.stride]]


def _judged_again(row: dict, rules: dict[str, float]) -> dict:
    people = [{**p, "abnormal": is_abnormal(p["parts"], rules)} for p in row["people"]]
    return {**row, "people": people, "score": frame_score(people)}


def _scaled_rows(scorer: VideoScorer, source: Source, scale: float) -> list[dict]:
    """Return the rows of the video with its frames resized by `scale`."""
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    rows, tracker = [], Tracker()
    for frames in batched(FrameReader(source, stride=scorer.stride), FRAMES_AT_ONCE):
        scaled = [cv2.resize(f.image, None, fx=scale, fy=scale, interpolation=how) for f in frames]
        found = scorer.score_frames(np.stack(scaled)[..., ::-1]).frames
        rows += [{**row, "frame": f.index} for f, row in zip(frames, found, strict=True)]
    for row in rows:
        tracker.number(row)  # again, through the whole video instead of FRAMES_AT_ONCE frames
    return rows


def reencode(source: Source, target: Path, crf: int) -> Path:
    """Write the video as H.264 of quality `crf` by ffmpeg; raises VideoError where that fails."""
    even = "crop=trunc(iw/2)*2:trunc(ih/2)*2"  # this pixel format has no odd sides
    command = ["ffmpeg", "-v", "error", "-i", str(source.path.absolute()), "-an", "-vf", even]
    command += ["-c:v", "libx264", "-crf", str(crf), "-pix_fmt", "yuv420p", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise VideoError(f"ffmpeg: {' '.join(done.stderr.split())[:200]}")
    return target


def compare_people(before: list[dict], after: list[dict], scale: float) -> tuple[int, int]:
    """Return how many people are found both times, and how many of them with another verdict.

    `after` may leave frames out; its boxes are `scale` times as large.
    """
    rows = {row["frame"]: row["people"] for row in before}
    matched = changed = 0
    for row in after:
        for one, other in match_people(rows.get(row["frame"], []), row["people"], scale):
            matched += 1
            changed += one["abnormal"] != other["abnormal"]
    return matched, changed


def match_people(before: list[dict], after: list[dict], scale: float = 1.0):
    """Yield the pairs of people whose boxes overlap, each person at most once."""
    one, other = (np.reshape([p["bbox"] for p in people], (-1, 4)) for people in (before, after))
    for i, j in pair(one, other / scale, SAME_PERSON):
        yield before[i], after[j]

"""Annotated videos: every box with its p, the frame's score, and the score over time.

VP9 in WebM, which browsers play, written by PyAV's FFmpeg. OpenCV's own writer was measured at 336
ms a frame for VP9 (1280x720, two cores) and cannot be told to be faster; this takes 31.
"""

import os
import queue
import threading
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from data.video import Frame, FrameReader, Source
from utils import read_jsonl

RED, GREEN, WHITE, GREY, DARK = (
    (60, 60, 235),
    (90, 190, 60),
    (245, 245, 245),
    (120, 120, 120),
    (32, 28, 26),
)
MAX_SIDE = 1280  # larger frames are shrunk: this is for looking, and encoding costs time
STRIP = 64  # height in pixels of the score over time below the picture
_FONT = cv2.FONT_HERSHEY_SIMPLEX


class AnnotateError(Exception):
    """A video that could not be written; the message names it and says why."""


def _label(image: np.ndarray, text: str, x: int, y: int, colour, scale: float) -> None:
    """Write `text` on a plate whose lower left corner is (x, y), moved into the picture."""
    (width, height), base = cv2.getTextSize(text, _FONT, scale, 1)
    x = int(min(max(x, 0), max(image.shape[1] - width - 4, 0)))
    y = int(min(max(y, height + base + 2), image.shape[0]))
    cv2.rectangle(image, (x, y - height - base - 2), (x + width + 4, y), colour, -1)
    cv2.putText(image, text, (x + 2, y - base), _FONT, scale, WHITE, 1, cv2.LINE_AA)


def draw_boxes(image: np.ndarray, row: Mapping, limits: Mapping[str, float], zoom: float) -> None:
    """Draw a frame's boxes into `image` (H, W, 3) BGR, which is `zoom` times the source frame.

    Red where p is above the part's threshold, green elsewhere; flagged boxes come last, on top.
    """
    parts = [part for person in row["people"] for part in person["parts"]]
    parts.sort(key=lambda part: (part["p_abnormal"] > limits[part["part"]], part["p_abnormal"]))
    scale = min(max(image.shape[1] / 1600, 0.38), 0.6)
    for part in parts:
        colour = RED if part["p_abnormal"] > limits[part["part"]] else GREEN
        x1, y1, x2, y2 = (round(v * zoom) for v in part["bbox"])
        cv2.rectangle(image, (x1, y1), (x2, y2), colour, 2)
        # A raised hand shares its person's upper corner: the person's label goes below.
        y = y2 if part["part"] == "human" else y1
        _label(image, f"{part['part']} {part['p_abnormal']:.2f}", x1, y, colour, scale)


class ScoreStrip:
    """The frame score over time, drawn one frame at a time; gaps where there are no people."""

    def __init__(self, width: int, expected: int | None):
        self.width, self.scores = width, []
        self.room = max(expected or 64, 2)  # frames that fit; doubled when there come more
        self._clear()

    def _clear(self) -> None:
        self.canvas = np.full((STRIP, self.width, 3), DARK, np.uint8)
        for value in (0.0, 0.5, 1.0):
            y = self._y(value)
            cv2.line(self.canvas, (0, y), (self.width, y), (62, 56, 52), 1)

    def _x(self, index: int) -> int:
        return round(index * (self.width - 1) / (self.room - 1))

    def _y(self, score: float) -> int:
        return round(STRIP - 8 - score * (STRIP - 16))

    def add(self, score: float | None) -> np.ndarray:
        """Return the strip (STRIP, W, 3) up to and with this frame, with a line at it."""
        self.scores.append(score)
        index = len(self.scores) - 1
        if index >= self.room:
            self.room *= 2
            self._clear()
            for i in range(index):
                self._mark(i)
        self._mark(index)
        shown = self.canvas.copy()
        cv2.line(shown, (self._x(index), 0), (self._x(index), STRIP), WHITE, 1)
        return shown

    def _mark(self, index: int) -> None:
        score = self.scores[index]
        if score is None:
            return
        before = self.scores[index - 1] if index else None
        start = (self._x(index - 1), self._y(before)) if before is not None else None
        end = (self._x(index), self._y(score))
        cv2.line(self.canvas, start or end, end, (240, 200, 120), 2, cv2.LINE_AA)


class AnnotatedVideo:
    """Writes one annotated video while frames come in; drawing and encoding run in a thread.

    The file appears at `path` all at once, when `close` returns; `abort` leaves nothing. Frames
    keep their times, so a player's clock is the source's.
    """

    def __init__(
        self,
        path: str | Path,
        limits: Mapping[str, float],
        *,
        fps: float,
        frames_expected: int | None = None,
    ):
        self.path, self.limits = Path(path).absolute(), limits  # FFmpeg reads "a:b" as a protocol
        self.fps = Fraction(fps).limit_denominator(1001)
        self.expected = frames_expected
        self._part = self.path.with_name(f".{self.path.stem}.{os.getpid()}.part.webm")
        self._queue: queue.Queue = queue.Queue(8)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="annotate", daemon=True)
        self._thread.start()

    def add(self, frame: Frame, row: Mapping) -> None:
        """Take a frame and its row of frames.jsonl; returns before it is encoded."""
        if self._error is None:
            self._queue.put((frame, row))

    def close(self) -> None:
        """Finish the file and move it in place; raises AnnotateError where writing failed."""
        self._end()
        if self._error is not None:
            self._part.unlink(missing_ok=True)
            raise AnnotateError(f"{self.path}: cannot write: {self._error}") from self._error
        if self._part.exists():
            os.replace(self._part, self.path)

    def abort(self) -> None:
        """Stop and leave no file."""
        self._end()
        self._part.unlink(missing_ok=True)

    def _end(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        """Draw and encode what the queue brings; after an error, only empty it."""
        try:
            self._write()
        except Exception as error:  # handed over to close(), whatever it is
            self._error = error
            while self._queue.get() is not None:
                pass

    def _write(self) -> None:
        import av

        container = stream = strip = None
        try:
            last = -1
            while (item := self._queue.get()) is not None:
                frame, row = item
                if container is None:
                    size = _fit(frame.image)
                    container = av.open(str(self._part), "w", format="webm")
                    stream = _vp9(container, self.fps, size[0], size[1] + STRIP)
                    strip = ScoreStrip(size[0], self.expected)
                picture = self._draw(frame, row, size, strip)
                last = max(round(frame.time * 1000), last + 1)
                encoded = av.VideoFrame.from_ndarray(picture, format="bgr24")
                encoded.pts, encoded.time_base = last, Fraction(1, 1000)
                container.mux(stream.encode(encoded))
            if container is not None:
                container.mux(stream.encode(None))
        finally:
            if container is not None:
                container.close()

    def _draw(self, frame: Frame, row: Mapping, size, strip: ScoreStrip) -> np.ndarray:
        image = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
        draw_boxes(image, row, self.limits, size[0] / frame.image.shape[1])
        score = "no people" if row["score"] is None else f"score {row['score']:.2f}"
        people = len(row["people"])
        text = f"frame {row['frame']}  {row['time']:.2f} s  people {people}  {score}"
        _label(image, text, 6, 28, DARK, 0.5)
        return np.ascontiguousarray(np.vstack([image, strip.add(row["score"])]))


def _fit(image: np.ndarray) -> tuple[int, int]:
    """Return (width, height) of the picture: even sides, the longer one bounded."""
    height, width = image.shape[:2]
    zoom = min(1.0, MAX_SIDE / max(height, width))
    return (max(round(width * zoom / 2), 8) * 2, max(round(height * zoom / 2), 8) * 2)


def _vp9(container, fps: Fraction, width: int, height: int):
    stream = container.add_stream("libvpx-vp9", rate=fps)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
    stream.gop_size = 30  # a click in the report lands within about a second of a key frame
    stream.thread_count = 2
    stream.options = {
        "deadline": "realtime",
        "cpu-used": "8",
        "row-mt": "1",
        "crf": "34",
        "b": "0",
    }
    return stream


def replay(source: Source, rows: Iterable[Mapping], *, stride: int = 1, fps: float = 25.0):
    """Yield (Frame, row) of a video scored earlier, decoding it again.

    Frames that have no row any more (a file that changed since) are left out.
    """
    by_frame = {row["frame"]: row for row in rows}
    for frame in FrameReader(source, stride=stride, fps=fps):
        if frame.index in by_frame:
            yield frame, by_frame[frame.index]


def probe(source: Source, *, stride: int = 1, fps: float = 25.0) -> tuple[float, int | None]:
    """Return the frames per second after `stride`, and how many frames the container claims."""
    reader = FrameReader(source, stride=stride, fps=fps)
    return reader.fps / stride, reader.frames_expected


def annotate_video(
    source: Source,
    frames_jsonl: str | Path,
    output: str | Path,
    limits: Mapping[str, float],
    *,
    stride: int = 1,
    fps: float = 25.0,
) -> None:
    """Write the annotated video of `source` from its result file, decoding it again."""
    rate, expected = probe(source, stride=stride, fps=fps)
    video = AnnotatedVideo(output, limits, fps=rate, frames_expected=expected)
    try:
        for frame, row in replay(source, read_jsonl(frames_jsonl), stride=stride, fps=fps):
            video.add(frame, row)
    except BaseException:
        video.abort()
        raise
    video.close()

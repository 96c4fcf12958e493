"""Annotated videos, written while a video is scored or from its results.

They are VP9 in WebM, which browsers play. PyAV encodes a frame in 31 ms (1280x720, two cores);
OpenCV's writer takes 336 ms and has no option to be faster.
"""

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from human_anomaly.data.video import Frame, FrameReader, Source
from human_anomaly.models.report.draw import ScoreStrip, draw_row

MAX_SIDE = 1280  # larger frames are shrunk: this is for looking, and encoding costs time


class AnnotateError(Exception):
    """A video that could not be written; the message names it and says why."""


class Annotation:
    """Draws into pictures: annotation(image, frame, row) returns the picture with the strip."""

    def __init__(self, thresholds: Mapping[str, float], frames_expected: int | None = None):
        self.thresholds, self.expected = thresholds, frames_expected
        self.strip: ScoreStrip | None = None

    def __call__(self, image: np.ndarray, frame: Frame, row: Mapping) -> np.ndarray:
        """Draw into `image` (H, W, 3) BGR, which shows `frame` at `place_of`."""
        if self.strip is None:
            self.strip = ScoreStrip(image.shape[1], self.expected)
        score = "no people" if row["score"] is None else f"score {row['score']:.2f}"
        title = f"frame {row['frame']}  {row['time']:.2f} s  {score}"
        place = place_of(frame.image, image.shape[1::-1])
        zoom = (place[1].stop - place[1].start) / frame.image.shape[1]
        draw_row(image[place], row, self.thresholds, zoom, title)
        return np.vstack([image, self.strip.add(row["score"])])


class WebmWriter:
    """Writes one video while frames come in; drawing and encoding run in a thread.

    `draw(image, frame, row)` returns the picture to show for a frame that was shrunk to `image`;
    without it the frames are shown as they are. A frame whose shape differs from the first one's
    is shown in the middle of the picture, with bars beside it. The file appears at `path` when
    `close` returns; `abort` leaves nothing. Frames keep the times of the source.
    """

    def __init__(self, path: str | Path, *, fps: float, draw: Callable | None = None):
        self.path = Path(path).absolute()  # FFmpeg reads "a:b" as a protocol
        self.fps, self.draw = Fraction(fps).limit_denominator(1001), draw
        self._part = self.path.with_name(f".{self.path.stem}.{os.getpid()}.part.webm")
        self._queue: queue.Queue = queue.Queue(8)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="annotate", daemon=True)
        self._thread.start()

    def add(self, frame: Frame, row: Mapping) -> None:
        """Queue a frame and its row of frames.jsonl for encoding."""
        if self._error is None:
            self._queue.put((frame, row))

    def close(self) -> None:
        """Finish the file and move it into place; raises AnnotateError where writing failed."""
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
        items = iter(self._queue.get, None)
        try:
            self._write(items)
        except Exception as error:  # `close` raises it
            self._error = error
        for _ in items:  # nothing is left if the error came after the queue's end, at closing
            pass

    def _write(self, items: Iterator[tuple[Frame, Mapping]]) -> None:
        import av

        container = stream = None
        last = -1
        try:
            for frame, row in items:
                if container is None:
                    size = _fit(frame.image)
                picture = _fitted(frame.image, size)
                if self.draw is not None:
                    picture = self.draw(picture, frame, row)
                if container is None:
                    container = av.open(str(self._part), "w", format="webm")
                    stream = _vp9(container, self.fps, *picture.shape[1::-1])
                last = max(round(frame.time * 1000), last + 1)
                encoded = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")
                encoded.pts, encoded.time_base = last, Fraction(1, 1000)
                container.mux(stream.encode(encoded))
            if container is not None:
                container.mux(stream.encode(None))
        finally:
            if container is not None:
                container.close()


def _fit(image: np.ndarray) -> tuple[int, int]:
    """Return (width, height) of the picture: even sides, the longer one bounded."""
    height, width = image.shape[:2]
    zoom = min(1.0, MAX_SIDE / max(height, width))
    return (max(round(width * zoom / 2), 8) * 2, max(round(height * zoom / 2), 8) * 2)


def place_of(image: np.ndarray, size: tuple[int, int]) -> tuple[slice, slice]:
    """Return the rows and columns of a picture of `size` (width, height) that show `image`.

    They lie in the middle and are as large as fits. Bars of less than 4 pixels come from rounding
    and are left out.
    """
    (width, height), (h, w) = size, image.shape[:2]
    zoom = min(width / w, height / h)
    wide, high = max(1, round(w * zoom)), max(1, round(h * zoom))
    wide, high = width if width - wide < 4 else wide, height if height - high < 4 else high
    x, y = (width - wide) // 2, (height - high) // 2
    return slice(y, y + high), slice(x, x + wide)


def _fitted(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a picture of `size` (width, height) that shows the whole image."""
    place = rows, columns = place_of(image, size)
    shown = (columns.stop - columns.start, rows.stop - rows.start)
    picture = np.zeros((*size[::-1], 3), np.uint8)
    picture[place] = cv2.resize(image, shown, interpolation=cv2.INTER_AREA)
    return picture


def _vp9(container, fps: Fraction, width: int, height: int):
    stream = container.add_stream("libvpx-vp9", rate=fps)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
    stream.gop_size = 30  # a click in the report lands within about a second of a key frame
    stream.thread_count = 2
    stream.options = {"deadline": "realtime", "cpu-used": "8", "row-mt": "1", "crf": "34", "b": "0"}
    return stream


def replay(source: Source, rows: Iterable[Mapping], **reading) -> Iterator[tuple[Frame, Mapping]]:
    """Yield (Frame, row) of a video scored earlier, decoding it again.

    `reading` are the options of its FrameReader. Frames without a row are left out: the file has
    changed since it was scored.
    """
    by_frame = {row["frame"]: row for row in rows}
    for frame in FrameReader(source, **reading):
        if frame.index in by_frame:
            yield frame, by_frame[frame.index]


def probe(source: Source, **reading) -> tuple[float, int | None]:
    """Return the frames per second after `stride`, and how many frames to expect, if known."""
    reader = FrameReader(source, **reading)
    return reader.fps / reader.stride, reader.frames_expected

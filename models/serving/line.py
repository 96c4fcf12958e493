"""The clips and videos that wait, and the thread that scores them, batch by batch."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from human_anomaly.data.video import Frame, FrameReader, Source, VideoError
from human_anomaly.models.scoring.each import attempt, result_row, score_each
from human_anomaly.models.scoring.scorer import VideoScorer
from human_anomaly.models.scoring.scores import VideoResult
from human_anomaly.models.serving.reports import Reports, score_with_report

logger = logging.getLogger(__name__)

CLIPS_AT_ONCE = 32
TIDY_SECONDS = 30


class Refused(Exception):
    """A request that is not answered: HTTP status, and one sentence for the client."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Limits:
    """What a request may cost: bytes, frames of a clip, pixels of a frame, seconds, and so on."""

    body: int
    frames: int
    pixels: int
    waiting: int
    body_seconds: float
    seconds: float


@dataclass(eq=False)
class Task:
    """A clip in memory or a video file that waits for its row; `name` is only shown."""

    name: str
    path: Path | None = None
    clip: object = None
    want_frames: bool = False
    want_report: bool = False
    seen: int = 0  # frames scored so far
    expected: int | None = None  # frames that the file declares
    stop: str | None = None  # the reason to stop scoring it
    future: Future = field(default_factory=Future)

    def fail(self, reason: str) -> "Task":
        self.future.set_result({"video_path": self.name, "error": reason})
        return self

    def give_up(self, reason: str) -> None:
        if not self.future.done():
            self.stop = reason
            self.future.cancel()


class Line:
    """Scores tasks in the order in which they came, and clips that wait together in one call."""

    def __init__(self, scorer: VideoScorer, limits: Limits, reports: Reports):
        self.scorer, self.limits, self.reports = scorer, limits, reports
        self.taken, self.closing = 0, False
        self._tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="scoring", daemon=True).start()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places for requests; used in the thread of the event loop only."""
        if self.closing:
            raise Refused(503, "the service is shutting down")
        if self.taken >= self.limits.waiting:
            raise Refused(503, f"{self.taken} requests are waiting already; try again later")
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    def add(self, task: Task) -> None:
        if not task.future.done():
            self._tasks.put(task)

    def _work(self) -> None:
        while True:
            try:
                batch = [self._tasks.get(timeout=TIDY_SECONDS)]
            except queue.Empty:
                self.reports.tidy()
                continue
            while len(batch) < CLIPS_AT_ONCE and not self._tasks.empty():
                batch.append(self._tasks.get())
            batch = [task for task in batch if task.future.set_running_or_notify_cancel()]
            self._score([task for task in batch if task.clip is not None])
            for task in batch:
                if task.clip is None:
                    self._score([task])
            batch = task = None  # frees the clips while the thread waits for the next ones

    def _score(self, tasks: list[Task]) -> None:
        """Score clips together, or one video."""
        try:
            if self.closing:
                raise Refused(503, "the service is shutting down")
            if tasks and tasks[0].clip is None:
                found = [attempt(self._score_file, tasks[0])]
            else:
                clips = [task.clip for task in tasks]
                found = score_each(self.scorer, clips, lambda result: result)
            for task, result in zip(tasks, found, strict=True):
                task.future.set_result(self._row(task, result))
        except Exception as error:
            gone = any(task.stop for task in tasks)  # the client left, and its file was deleted
            if not isinstance(error, Refused) and not gone:
                logger.exception("a batch failed")
            for task in tasks:
                if not task.future.done():
                    task.future.set_exception(error)

    def _score_file(self, task: Task) -> VideoResult:
        source, watch = Source(task.path, "video"), self._watch(task)
        task.expected = FrameReader(source).frames_expected
        if task.want_report:
            return score_with_report(self.scorer, source, task.name, watch, self.reports)
        return self.scorer.score(source, on_frame=watch)

    def _watch(self, task: Task) -> Callable[[Frame, dict], None]:
        """Return an `on_frame` that raises VideoError to stop the scoring of a video."""
        end = time.monotonic() + self.limits.seconds

        def on_frame(frame: Frame, row: dict) -> None:
            task.seen += 1
            pixels, most = frame.image.shape[0] * frame.image.shape[1], self.limits
            if task.stop or time.monotonic() > end:
                raise VideoError(task.stop or f"scoring took more than {most.seconds:g} s")
            if pixels > most.pixels:
                raise VideoError(f"{pixels:,} pixels a frame, expected at most {most.pixels:,}")
            if task.seen > most.frames:
                raise VideoError(f"more than {most.frames:,} frames")

        return on_frame

    def _row(self, task: Task, result: VideoResult | dict) -> dict:
        if isinstance(result, dict):  # an error
            return {"video_path": task.name} | result
        name = {"video_path": task.name}
        row = name | {"warnings": [], "dtype": self.scorer.dtype} | result_row(result) | name
        return row | {"frame_rows": result.frames} if task.want_frames else row

"""From a video to its crops: frames in, squares cut, encoded and written in threads."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np

from human_anomaly.configs.defaults import PARTS
from human_anomaly.data.crops import cut
from human_anomaly.data.sources import Source
from human_anomaly.data.stream import batched, keep_to_one_core, map_ahead, prefetch
from human_anomaly.data.video import Frame, FrameReader
from human_anomaly.utils import atomic_write

JPEG_QUALITY = 95
MOST_WAITING = 64  # crops to be encoded and written; more would only fill the memory


class CropWriter:
    """Encodes crops and writes them in threads; their errors are raised by `write` or `flush`."""

    def __init__(self, folder: Path, threads: int):
        self.folder = folder
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="encode")
        self._room = threading.Semaphore(MOST_WAITING)
        self._waiting: list[Future] = []

    def write(self, file: str, crop: np.ndarray) -> None:
        """Write `crop` (h, w, 3) uint8 BGR to `file` below the folder, in the suffix's format."""
        self._room.acquire()
        finished = [future for future in self._waiting if future.done()]
        self._waiting = [future for future in self._waiting if not future.done()]
        self._waiting.append(self._pool.submit(self._encode, file, crop))
        for future in finished:
            future.result()

    def flush(self) -> None:
        """Return when all crops are on disk; raises the first error of those that are not."""
        waiting, self._waiting = self._waiting, []
        wait(waiting)
        for future in waiting:
            future.result()

    def _encode(self, file: str, crop: np.ndarray) -> None:
        try:
            path = self.folder / file
            options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix == ".jpg" else []
            encoded = cv2.imencode(path.suffix, crop, options)[1]
            with atomic_write(path, "wb") as out:
                out.write(encoded.data)
        finally:
            self._room.release()


@dataclass
class Cropper:
    """Turns a video into rows of boxes.jsonl, and its squares into crops.

    `detect` is `PartDetector.detect`, so the squares are those that scoring judges; `workers`
    threads call it at the same time, each on a batch of frames. Crops whose square has a side below
    `min_size` pixels are listed but not written. `on_frame` is called after each frame.
    For each video, `namer` makes a function that returns further fields for a frame's rows.
    """

    detect: Callable[[Sequence[np.ndarray]], Sequence]
    writer: CropWriter
    suffix: str = ".jpg"
    min_size: int = 0
    stride: int = 1
    fps: float = 25.0
    colours: str = "original"
    batch_size: int = 4
    workers: int = 1
    on_frame: Callable[[], object] = lambda: None
    namer: Callable[[], Callable[[Sequence], Iterable[dict]]] = lambda: lambda people: repeat({})

    def rows(self, source: Source, label: int | None, summary: dict) -> Iterator[dict]:
        """Yield the rows of `source` in order and fill in `summary`; at the end, crops are on disk.

        Raises VideoError if no frame can be decoded.
        """
        reader = FrameReader(source, stride=self.stride, fps=self.fps, colours=self.colours)
        summary |= {"frames": 0, "people": 0, "crops": 0, "skipped_crops": 0}
        name = self.namer()
        try:
            ahead = prefetch(reader, 2 * self.batch_size)
            for frames, found in self.detected(batched(ahead, self.batch_size)):
                for frame, detections in zip(frames, found, strict=True):
                    summary["frames"] += 1
                    summary["people"] += len(detections.people)
                    summary["skipped_crops"] += detections.skipped
                    rows = self._frame_rows(source.stem, frame, detections.people, summary)
                    for row, more in zip(rows, name(detections.people), strict=False):
                        yield row | more | {"label": label}
                    self.on_frame()
        finally:
            self.writer.flush()
        summary["warnings"] = reader.warnings

    def detected(self, batches: Iterable[list[Frame]]) -> Iterator[tuple[list[Frame], Sequence]]:
        """Yield each batch and its detections, in order; `workers` batches are computed ahead."""

        def find(frames: list[Frame]) -> Sequence:
            return self.detect([frame.image for frame in frames])

        with ThreadPoolExecutor(self.workers, "detect", keep_to_one_core) as pool:
            yield from map_ahead(pool, find, batches, self.workers)

    def _frame_rows(self, stem: str, frame: Frame, people, summary: dict) -> Iterator[dict]:
        written: dict[tuple, str] = {}  # both texts of the first pass often find one box
        for number, person in enumerate(people):
            count = dict.fromkeys(PARTS, 0)
            for box in person.parts:
                name = f"{stem}_f{frame.index:06d}_p{number}"
                if box.part != "human":
                    name += f"_{count[box.part]}"
                count[box.part] += 1
                x1, y1, x2, y2 = box.square
                file = written.get((box.part, box.square))
                if file is None and min(x2 - x1, y2 - y1) >= self.min_size:
                    file = written[box.part, box.square] = f"{box.part}/{name}{self.suffix}"
                    self.writer.write(file, cut(frame.image, box.square))
                    summary["crops"] += 1
                yield {
                    "source": stem,
                    "frame": frame.index,
                    "time": frame.time,
                    "person": number,
                    "part": box.part,
                    "box": [float(v) for v in box.bbox],
                    "score": box.score,
                    "square": list(box.square),
                    "file": file,
                }

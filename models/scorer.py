"""From a video to verdicts: per person, per frame and for the whole.

config = get_config("configs/vbench2_release.yaml")
detector = PartDetector(detector_config, detector_weights, "cpu")
classifiers = {part: load_classifier(path, config, "cpu") for part, path in files.items()}
result = VideoScorer(detector, classifiers, config).score("people.mp4")
print(result.summary["video_results"], result.frames[0]["people"])
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image
from torch import nn

from configs.defaults import PARTS, thresholds
from data.crops import cut
from data.transforms import build_eval_transform, normalize
from data.stream import batched, map_ahead, prefetch
from data.video import Frame, FrameReader, Source
from models.detector import FrameDetections, PartDetector, Person
from utils import keep_to_one_core

BOOTSTRAP_DRAWS = 1000
CROPS_PER_BATCH = 32


@dataclass
class VideoResult:
    """A video's row of scores.json, and its frames' rows of frames.jsonl where they are kept."""

    summary: dict
    frames: list[dict] = field(default_factory=list)


class Tally:
    """Sums what the frames' rows say into the video's scores."""

    def __init__(self, no_person: float | None = None):
        self.no_person = no_person
        self.people: list[int] = []  # per frame
        self.normal: list[int] = []
        self.frame_scores: list[float] = []
        self.highest = 0.0  # sum over people of their highest p
        self.flagged = dict.fromkeys(PARTS, 0)  # people that the part flags

    def add(self, row: dict, limits: Mapping[str, float]) -> None:
        people = row["people"]
        self.people.append(len(people))
        self.normal.append(sum(not person["abnormal"] for person in people))
        if row["score"] is not None:
            self.frame_scores.append(row["score"])
        for person in people:
            parts = person["parts"]
            self.highest += max((part["p_abnormal"] for part in parts), default=0.0)
            for name in {p["part"] for p in parts if p["p_abnormal"] > limits[p["part"]]}:
                self.flagged[name] += 1

    def scores(self) -> dict:
        """Return the four scores, the interval of the first and the counts."""
        people, normal = sum(self.people), sum(self.normal)
        clean = sum(p == n for p, n in zip(self.people, self.normal, strict=True))
        some = people > 0
        return {
            "video_results": normal / people if some else self.no_person,
            "ci95": self._interval() if some else None,
            "score_frame_mean": float(np.mean(self.frame_scores)) if some else self.no_person,
            "score_clean_frames": clean / len(self.people),
            "score_soft": 1 - self.highest / people if some else self.no_person,
            "frames": len(self.people),
            "people": people,
            "abnormal_people": people - normal,
            "abnormal_by_part": {k: v / people if some else 0.0 for k, v in self.flagged.items()},
        }

    def _interval(self) -> list[float]:
        """Return the 95% bootstrap interval of the share of normal people, over frames."""
        rng = np.random.default_rng(0)
        people, normal = np.array(self.people, float), np.array(self.normal, float)
        shares = []
        for _ in range(BOOTSTRAP_DRAWS):
            drawn = rng.integers(len(people), size=len(people))
            if total := people[drawn].sum():
                shares.append(normal[drawn].sum() / total)
        return [float(v) for v in np.percentile(shares, [2.5, 97.5])]


class VideoScorer:
    """Scores videos with a detector and one classifier per part.

    `classifiers` maps "human", "face" and "hand" to modules from (B, 3, S, S) to (B,) logits; with
    fewer of them, the other parts are not judged. `config` comes from `get_config`. `workers`
    batches of frames are worked on at once, on CPU each on one core; `threads` help each of them to
    cut and resize.
    """

    def __init__(
        self,
        detector: PartDetector,
        classifiers: Mapping[str, nn.Module],
        config,
        *,
        batch_size: int = 2,
        stride: int = 1,
        fps: float = 25.0,
        workers: int = 2,
        threads: int = 1,
        dtype: torch.dtype = torch.float32,
    ):
        self.detector, self.config, self.dtype = detector, config, dtype
        self.classifiers = {part: model.to(dtype) for part, model in classifiers.items()}
        self.clock = detector.predictor.clock
        self.batch_size, self.stride, self.fps = batch_size, stride, fps
        self.limits = thresholds(config)
        self.transform = build_eval_transform(
            size=config.DATA.IMG_SIZE,
            crop=config.TEST.CROP,
            interpolation=config.DATA.INTERPOLATION,
        )
        self._rgb = config.TEST.CHANNELS == "rgb"  # frames are BGR
        self.workers = workers
        self._workers = ThreadPoolExecutor(workers, "score", keep_to_one_core)
        in_threads = threads > 1 and not detector.on_device
        self._map = ThreadPoolExecutor(threads, "crops").map if in_threads else map

    def score(
        self,
        source: str | Path | Source,
        *,
        on_frame: Callable[[Frame, dict], None] | None = None,
        on_batch: Callable[[int, dict], None] | None = None,
        known: Mapping[int, dict] = MappingProxyType({}),
        keep_frames: bool = True,
    ) -> VideoResult:
        """Return the scores of a video; `on_frame` sees each frame and its row in order.

        `on_batch` sees each batch's number and what was found in it, plain JSON; given back as
        `known`, with the same batch size, it is not computed again. Raises VideoError where no
        frame can be decoded.
        """
        start = time.perf_counter() - sum(found["seconds"] for found in known.values())
        if not isinstance(source, Source):
            source = Source(Path(source), Path(source).stem)
        reader = FrameReader(source, stride=self.stride, fps=self.fps)
        tally = Tally(self.config.SCORE.NO_PERSON)
        rows, skipped = [], 0
        for frames, found in self._batches(reader, lambda _: True, known, on_batch):
            skipped += found["skipped"]
            for frame, row in zip(frames, found["rows"], strict=True):
                tally.add(row, self.limits)
                if keep_frames:
                    rows.append(row)
                if on_frame is not None:
                    on_frame(frame, row)
        scores = tally.scores()
        summary = {"video_path": str(source.path)}
        for key, value in scores.items():
            summary[key] = value
            if key == "frames":
                summary["frames_expected"] = reader.frames_expected
        summary |= {
            "skipped_crops": skipped,
            "warnings": reader.warnings,
            "seconds": round(time.perf_counter() - start, 3),
        }
        return VideoResult(summary, rows)

    def score_batches(
        self, source: Source, take: Callable[[int], bool], on_batch: Callable[[int, dict], None]
    ) -> int:
        """Find what is in the batches that `take` answers for; `on_batch` as in `score`.

        `take` is asked once for each number, in order, before its batch is worked on. Returns how
        many batches the video has; raises VideoError as `score` does.
        """
        reader = FrameReader(source, stride=self.stride, fps=self.fps)
        return sum(1 for _ in self._batches(reader, take, {}, on_batch))

    def _batches(
        self,
        reader: FrameReader,
        take: Callable[[int], bool],
        known: Mapping[int, dict],
        on_batch: Callable[[int, dict], None] | None,
    ) -> Iterator[tuple[list[Frame], dict | None]]:
        """Yield each batch of frames and what is in it, None where that is not known nor taken."""

        def asked() -> Iterator[tuple[int, list[Frame], bool]]:
            for number, frames in enumerate(ahead):
                yield number, frames, number not in known and take(number)

        def find(batch: tuple[int, list[Frame], bool]) -> dict | None:
            number, frames, taken = batch
            return self._score_batch(frames) if taken else known.get(number)

        # Frames are made ahead while the model works, and bounded, so memory stays flat.
        ahead = self._timed(batched(prefetch(reader, self.batch_size), self.batch_size))
        before = time.perf_counter()
        batches = map_ahead(self._workers, find, asked(), self.workers)
        for (number, frames, taken), found in batches:
            if taken and on_batch is not None:
                now = time.perf_counter()
                on_batch(number, found | {"seconds": now - before})
                before = now
            yield frames, found

    def _timed(self, ahead: Iterator[list[Frame]]) -> Iterator[list[Frame]]:
        while True:
            with self.clock.stage("decode"):  # what is not hidden behind the model
                frames = next(ahead, None)
            if frames is None:
                return
            yield frames

    def _score_batch(self, frames: Sequence[Frame]) -> dict:
        """Return the frames' "rows", and how many crops were "skipped"."""
        images = [self._place(frame.image) for frame in frames]
        found = self.detector.detect(images)
        rows = self._judge(frames, images, found)
        return {"rows": rows, "skipped": sum(one.skipped for one in found)}

    def _place(self, image: np.ndarray) -> np.ndarray | torch.Tensor:
        """Return the frame where it is cut and resized: on the device, if the detector does so."""
        if not self.detector.on_device:
            return image
        return torch.from_numpy(image).to(self.detector.device, non_blocking=True)

    def _judge(self, frames: Sequence[Frame], images, found: Sequence[FrameDetections]):
        """Return the frames' rows: classify every square of `images` once, then flag people."""
        wanted: dict[str, dict] = {part: {} for part in self.classifiers}
        for i, detections in enumerate(found):
            for person in detections.people:
                for box in person.parts:
                    if box.part in wanted:
                        wanted[box.part][i, box.square] = None
        for part, squares in wanted.items():
            crops = [cut(images[i], square) for i, square in squares]
            squares.update(zip(squares, self._classify(part, crops), strict=True))
        rows = []
        for i, (frame, detections) in enumerate(zip(frames, found, strict=True)):
            people = [self._person_row(person, i, wanted) for person in detections.people]
            normal = sum(not person["abnormal"] for person in people)
            score = normal / len(people) if people else None
            rows.append(
                {"frame": frame.index, "time": frame.time, "score": score, "people": people}
            )
        return rows

    def _person_row(self, person: Person, frame: int, judged: Mapping[str, dict]) -> dict:
        parts = [
            {
                "part": box.part,
                "bbox": list(box.bbox),
                "detector_score": box.score,
                "square": list(box.square),
                "p_abnormal": judged[box.part][frame, box.square],
            }
            for box in person.parts
            if box.part in judged
        ]
        abnormal = any(part["p_abnormal"] > self.limits[part["part"]] for part in parts)
        return {"abnormal": abnormal, "parts": parts}

    @torch.inference_mode()
    def _classify(self, part: str, crops: Sequence) -> list[float]:
        """Return p(abnormal) of crops (h, w, 3) uint8 BGR."""
        probabilities: list[float] = []
        for start in range(0, len(crops), CROPS_PER_BATCH):
            chunk = crops[start : start + CROPS_PER_BATCH]
            with self.clock.stage("resize"):
                pixels = torch.stack(list(self._map(self._pixels, chunk)))
            with self.clock.stage("classify"):
                images = normalize(pixels.to(self.detector.device)).to(self.dtype)
                logits = self.classifiers[part](images)
                probabilities += logits.float().sigmoid().tolist()
        return probabilities

    def _pixels(self, crop: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Return the crop (S, S, 3) uint8, in the channel order that the classifiers are fed."""
        if isinstance(crop, torch.Tensor):
            return self.transform.pixels_on_device(crop.flip(2) if self._rgb else crop)
        fed = np.ascontiguousarray(crop[:, :, ::-1] if self._rgb else crop)
        return torch.from_numpy(self.transform.pixels(Image.fromarray(fed)))

"""Finding people and their faces and hands: two passes of one YOLO-World detector."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from human_anomaly.data.crops import cut, square_box
from human_anomaly.data.video import VideoError
from human_anomaly.models.device import enough_memory
from human_anomaly.models.yolo_world.letterbox import Image
from human_anomaly.models.yolo_world.predictor import Detections, Predictor

PADDING = " "  # pads a prompt set, and is a class of its own
PEOPLE_TEXTS = ("human", PADDING)
PART_TEXTS = ("face", "hand", PADDING)


@dataclass(frozen=True)
class PartBox:
    """A body, face or hand: box and square are (x1, y1, x2, y2) in pixels of the frame."""

    part: str
    bbox: tuple[float, float, float, float]
    score: float
    square: tuple[int, int, int, int]


@dataclass
class Person:
    """One person in one frame: the parts that can be judged, and the box (x1, y1, x2, y2)."""

    parts: list[PartBox] = field(default_factory=list)
    bbox: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


@dataclass
class FrameDetections:
    """The people of one frame, and how many boxes were skipped because no crop fits them."""

    people: list[Person]
    skipped: int = 0


class PartDetector:
    """Finds people in frames, then faces and hands in each person's crop.

    `config` and `weights` are YOLO-World's config file and checkpoint. With `keep_padding_class`,
    boxes of the padding text count as people, as in the released code. The other options are
    explained in `Predictor`. Raises CheckpointError where a file cannot be used.
    """

    def __init__(
        self,
        config: str | Path,
        weights: str | Path,
        device: str | torch.device = "cpu",
        *,
        score_thr: float = 0.1,
        keep_padding_class: bool = True,
        batch_size: int = 4,
        threads: int = 1,
        **options,
    ):
        self.predictor = Predictor(
            config,
            weights,
            (*PEOPLE_TEXTS, *PART_TEXTS),
            device,
            score_thr=score_thr,
            batch_size=batch_size,
            threads=threads,
            **options,
        )
        self.device, self.on_device = self.predictor.device, self.predictor.on_device
        self.compiled = bool(options.get("compile"))
        self.people_texts = self.predictor.embeddings[: len(PEOPLE_TEXTS)][None]
        self.part_texts = self.predictor.embeddings[len(PEOPLE_TEXTS) :][None]
        self.keep_padding_class = keep_padding_class

    def compile_all(self) -> None:
        """Compile the network for both passes, as `Predictor.compile_all` does."""
        for texts in (self.people_texts, self.part_texts):
            self.predictor.compile_all(texts)

    @enough_memory()
    def detect(
        self, frames: Sequence[Image], run: Callable[..., Iterable] = map
    ) -> list[FrameDetections]:
        """Return the people of each frame (H, W, 3) uint8 BGR, their parts and squares.

        Frames are arrays, or regions on the device where the detector is `on_device`. `run` is like
        `map`, and may do several of the detector's batches at the same time. Raises VideoError
        where a frame is too thin, the GPU's memory too small, or a result not a number.
        """
        for height, width in {f.shape[:2] for f in frames if not self.predictor.letterbox.fits(f)}:
            raise VideoError(f"frames of {width}x{height} pixels are too thin for the detector")
        results = [FrameDetections([]) for _ in frames]
        # The two texts often find the same box: its crop is searched once, for both people.
        people_of: dict[tuple[int, tuple[int, ...]], list[Person]] = {}
        crops: list[Image] = []
        for i, found in enumerate(self.predictor(frames, self.people_texts, "detect people", run)):
            for box, score in self._people(found):
                person = self._add_person(frames[i], results[i], box, score)
                if person is None:
                    continue
                corners = tuple(map(int, box))
                if (i, corners) not in people_of:
                    crop = cut(frames[i], box)
                    if not self.predictor.letterbox.fits(crop):
                        results[i].skipped += 1
                        continue
                    crops.append(crop)
                people_of.setdefault((i, corners), []).append(person)
        found_parts = self.predictor(crops, self.part_texts, "detect parts", run)
        for ((i, corners), people), parts in zip(people_of.items(), found_parts, strict=True):
            for person in people:
                self._add_parts(frames[i], results[i], person, corners[:2], parts)
        return results

    def _people(self, found: Detections) -> Iterator[tuple[np.ndarray, float]]:
        """Yield box (4,) and score of the detections that count as people."""
        for box, score, label in zip(found.xyxy, found.scores, found.labels, strict=True):
            if self.keep_padding_class or PEOPLE_TEXTS[label] != PADDING:
                yield box, float(score)

    @staticmethod
    def _add_person(
        frame: Image, result: FrameDetections, box: np.ndarray, score: float
    ) -> Person | None:
        """Add a person to `result` and return it; a box without an area is skipped."""
        if not (box[2] > box[0] and box[3] > box[1]):
            result.skipped += 1
            return None
        person = Person(bbox=tuple(map(float, box)))
        result.people.append(person)
        _add_part(frame, result, person, "human", person.bbox, score)
        return person

    @staticmethod
    def _add_parts(
        frame: Image,
        result: FrameDetections,
        person: Person,
        corner: tuple[int, int],
        found: Detections,
    ) -> None:
        """Add the parts found in the person's crop, whose upper left corner is (x, y)."""
        shift = np.array([*corner, *corner], np.float64)
        for label, part in enumerate(PART_TEXTS[:-1]):
            for i in np.flatnonzero(found.labels == label):
                box = tuple(found.xyxy[i].astype(np.float64) + shift)
                _add_part(frame, result, person, part, box, float(found.scores[i]))


def _add_part(
    frame: Image, result: FrameDetections, person: Person, part: str, box: tuple, score: float
) -> None:
    """Add a part to `person`; a box (x1, y1, x2, y2) that no square fits is skipped."""
    height, width = frame.shape[:2]
    square = square_box(box, width, height)
    if square is None:
        result.skipped += 1
    else:
        person.parts.append(PartBox(part, box, score, square))

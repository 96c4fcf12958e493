"""People and their faces and hands: two passes of one YOLO-World detector."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from data.crops import cut, square_box
from models.yolo_world.letterbox import Image
from models.yolo_world.predictor import Detections, Predictor

PADDING = " "  # the text that pads a prompt set, a class of its own
PEOPLE_TEXTS = ("human", PADDING)
PART_TEXTS = ("face", "hand", PADDING)


@dataclass(frozen=True)
class PartBox:
    """A part in pixels of the frame: box and square (x1, y1, x2, y2), and the box's score."""

    part: str
    bbox: tuple[float, float, float, float]
    score: float
    square: tuple[int, int, int, int]


@dataclass
class Person:
    """One detected person: the parts that can be judged."""

    parts: list[PartBox] = field(default_factory=list)


@dataclass
class FrameDetections:
    """The people of one frame, and how many crops were degenerate and skipped."""

    people: list[Person]
    skipped: int = 0


class PartDetector:
    """Finds people in frames, then faces and hands in each person's crop.

    `config` and `weights` are YOLO-World's config file and checkpoint; `options` go to
    `Predictor`. Raises CheckpointError where either file cannot be used.
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
        self.people_texts = self.predictor.embeddings[: len(PEOPLE_TEXTS)][None]
        self.part_texts = self.predictor.embeddings[len(PEOPLE_TEXTS) :][None]
        self.keep_padding_class = keep_padding_class

    def detect(self, frames: Sequence[Image]) -> list[FrameDetections]:
        """Return per frame (H, W, 3) uint8 BGR its people, their parts and squares.

        Frames are arrays, or tensors on the device where the detector is `on_device`.
        """
        results = [FrameDetections([]) for _ in frames]
        owners: dict[tuple, list[tuple[FrameDetections, Person]]] = {}
        crops: list[Image] = []
        for i, found in enumerate(self.predictor(frames, self.people_texts, "detect people")):
            for box, score in self._people(found):
                person = self._person(frames[i], results[i], box, score)
                if person is None:
                    continue
                # The two texts often find the same box: its crop is searched once.
                key = (i, *map(int, box))
                if key not in owners:
                    crop = cut(frames[i], box)
                    if not self.predictor.letterbox.fits(crop):
                        results[i].skipped += 1
                        continue
                    crops.append(crop)
                owners.setdefault(key, []).append((results[i], person))
        found_parts = self.predictor(crops, self.part_texts, "detect parts")
        for (i, x1, y1, *_), parts in zip(owners, found_parts, strict=True):
            for result, person in owners[i, x1, y1, *_]:
                self._add_parts(frames[i], result, person, (x1, y1), parts)
        return results

    def _people(self, detections: Detections) -> list[tuple[np.ndarray, float]]:
        keep = [
            i
            for i, label in enumerate(detections.labels)
            if self.keep_padding_class or PEOPLE_TEXTS[label] != PADDING
        ]
        return [(detections.xyxy[i], float(detections.scores[i])) for i in keep]

    @staticmethod
    def _person(frame, result: FrameDetections, box: np.ndarray, score: float) -> Person | None:
        """Add a person to `result`; a degenerate box is none, and is counted."""
        if not (box[2] > box[0] and box[3] > box[1]):
            result.skipped += 1
            return None
        person = Person()
        result.people.append(person)
        _add(frame, result, person, "human", tuple(map(float, box)), score)
        return person

    @staticmethod
    def _add_parts(frame, result, person: Person, offset, found: Detections) -> None:
        shift = np.array([*offset, *offset], np.float64)
        for label, part in enumerate(PART_TEXTS[:-1]):
            for i in np.flatnonzero(found.labels == label):
                box = tuple(found.xyxy[i].astype(np.float64) + shift)
                _add(frame, result, person, part, box, float(found.scores[i]))


def _add(frame, result, person: Person, part: str, box, score: float) -> None:
    """Add one part to `person` where a square fits, else count it."""
    height, width = frame.shape[:2]
    square = square_box(box, width, height)
    if square is None:
        result.skipped += 1
    else:
        person.parts.append(PartBox(part, box, score, square))

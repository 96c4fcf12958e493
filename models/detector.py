"""Finding people and their parts: two passes of one YOLO-World detector."""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from human_anomaly.configs.parts import BASE_PARTS, TABLE
from human_anomaly.data.crops import cut, square_box
from human_anomaly.data.video import VideoError
from human_anomaly.models.device import enough_memory
from human_anomaly.models.yolo_world.letterbox import Image
from human_anomaly.models.yolo_world.predictor import Detections, Options, Predictor

PADDING = " "  # pads a prompt set, and is a class of its own


def prompt_set(parts: Container[str], found_in: str) -> dict[str, list[str]]:
    """Return {text: the parts of its boxes} for those of `parts` found in "frame" or "person".

    A text that several parts share is searched for once, and its boxes count for all of them. The
    padding text is the last one.
    """
    names: dict[str, list[str]] = {}
    for part in TABLE:
        if part.name in parts and part.found_in == found_in:
            names.setdefault(part.text, []).append(part.name)
    return names | {PADDING: []}


@dataclass(frozen=True)
class PartBox:
    """A body, face, hand ..: box and square are (x1, y1, x2, y2) in pixels of the frame."""

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

    def add(self, person: Person, parts: list[str], box: tuple, score: float, frame: Image) -> None:
        """Add a box (x1, y1, x2, y2) of `parts` to `person`; without a square it is skipped."""
        height, width = frame.shape[:2]
        if square := square_box(box, width, height):
            person.parts += [PartBox(part, box, score, square) for part in parts]
        else:
            self.skipped += len(parts)


class PartDetector:
    """Finds people in frames, then the other `parts` in each person's crop.

    `config` and `weights` are YOLO-World's config file and checkpoint. With `keep_padding_class`,
    boxes of the padding text count as people, as in the released code. The other options are
    those of the predictor's `Options`. Raises CheckpointError where a file cannot be used.
    """

    def __init__(
        self,
        config: str | Path,
        weights: str | Path,
        device: str | torch.device = "cpu",
        *,
        parts: Container[str] = BASE_PARTS,
        keep_padding_class: bool = True,
        **options,
    ):
        people, others = prompt_set(parts, "frame"), prompt_set(parts, "person")
        chosen = Options(**options)
        self.predictor = Predictor(config, weights, (*people, *others), device, chosen)
        self.device, self.on_device = self.predictor.device, chosen.on_device
        self.dtype, self.threads, self.compiled = chosen.dtype, chosen.threads, chosen.compile
        self.people_texts = self.predictor.embeddings[: len(people)][None]
        self.part_texts = self.predictor.embeddings[len(people) :][None]
        if keep_padding_class:
            people[PADDING] = next(iter(people.values()))
        # By label, the parts that a box shows: of the first and of the second pass.
        self.people_parts, self.crop_parts = list(people.values()), list(others.values())

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
        for i, boxes in enumerate(self.predictor(frames, self.people_texts, "detect people", run)):
            for parts, box, score in _of_parts(boxes, self.people_parts, range(len(boxes.labels))):
                if not (box[2] > box[0] and box[3] > box[1]):
                    results[i].skipped += 1
                    continue
                person = Person(bbox=tuple(map(float, box)))
                results[i].people.append(person)
                results[i].add(person, parts, person.bbox, score, frames[i])
                corners = tuple(map(int, box))
                if (i, corners) not in people_of:
                    crop = cut(frames[i], box)
                    if not self.predictor.letterbox.fits(crop):
                        results[i].skipped += 1
                        continue
                    crops.append(crop)
                people_of.setdefault((i, corners), []).append(person)
        boxes_of_crops = self.predictor(crops, self.part_texts, "detect parts", run)
        for ((i, corners), people), boxes in zip(people_of.items(), boxes_of_crops, strict=True):
            shift = np.array([*corners[:2], *corners[:2]], np.float64)
            by_label = np.argsort(boxes.labels, kind="stable")
            for parts, box, score in _of_parts(boxes, self.crop_parts, by_label):
                for person in people:
                    results[i].add(person, parts, tuple(box + shift), score, frames[i])
        return results


def _of_parts(
    boxes: Detections, parts_of: Sequence[list[str]], order: Iterable[int]
) -> Iterator[tuple[list[str], np.ndarray, float]]:
    """Yield parts, box (4,) and score of the detections in `order` whose label has parts."""
    for i in order:
        if parts := parts_of[boxes.labels[i]]:
            yield parts, boxes.xyxy[i].astype(np.float64), float(boxes.scores[i])

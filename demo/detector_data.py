"""Training samples of the detector: whole drawn frames with people, person crops with parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from human_anomaly.demo.world.files import read_stills

FRAME, CROP = "frame", "crop"
LONG_SIDE = 400  # pixels at which samples are kept in memory
MARGIN = 0.08  # kept around a person's box, as a share of its size, because windows move
MIN_INSIDE = 0.5  # a box counts in a window that holds at least this share of its area
PAD = 114  # grey level of the padding, as at scoring
STEP = 32  # pixels; padded sides are multiples of the coarsest stride

Size = tuple[int, int]  # width, height


@dataclass(frozen=True)
class Sample:
    """A picture as JPEG bytes, its kind (FRAME or CROP), its boxes and its window.

    `boxes` (N, 4) and `window` (4,) are xyxy in pixels of the picture; the window is what the
    detector is given at scoring. `labels` (N,) are indices in the kind's prompt set.
    """

    kind: str
    jpeg: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    window: np.ndarray


def _sample(kind: str, image: np.ndarray, origin, boxes, labels, window) -> Sample:
    """Return a sample of `image`, a piece of a frame, shrunk to LONG_SIDE.

    `boxes` and `window` are xyxy in pixels of the frame, `origin` (x, y) is where the piece begins.
    """
    height, width = image.shape[:2]
    scale = min(1.0, LONG_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    shift = np.array([*origin, *origin], np.float32)
    boxes = (np.array(boxes, np.float32).reshape(-1, 4) - shift) * scale
    window = (np.array(window, np.float32) - shift) * scale
    return Sample(kind, jpeg, boxes, np.array(labels, np.float32), window)


def samples_of(frame: np.ndarray, people: Sequence[dict]) -> list[Sample]:
    """Return a sample of the whole `frame` (H, W, 3) uint8 BGR and one of each person's crop.

    `people` are the frame's entries of truth.jsonl.
    """
    height, width = frame.shape[:2]
    humans = [person["human"] for person in people]
    whole = [0, 0, width, height]
    samples = [_sample(FRAME, frame, (0, 0), humans, [0] * len(humans), whole)]
    faces = [box for person in people for box in person["face"]]
    hands = [box for person in people for box in person["hand"]]
    labels = [0] * len(faces) + [1] * len(hands)
    for x1, y1, x2, y2 in humans:
        dx, dy = MARGIN * (x2 - x1), MARGIN * (y2 - y1)
        left, top = max(0, int(x1 - dx)), max(0, int(y1 - dy))
        image = frame[top : int(y2 + dy) + 1, left : int(x2 + dx) + 1]
        samples.append(_sample(CROP, image, (left, top), faces + hands, labels, (x1, y1, x2, y2)))
    return samples


def place(window: np.ndarray, size: Size, zoom: float = 1.0, flip: bool = False) -> np.ndarray:
    """Return the affine map (2, 3) that centres `window` (xyxy) in a picture of `size`."""
    x1, y1, x2, y2 = (float(v) for v in window)
    width, height = size
    scale = zoom * min(width / (x2 - x1), height / (y2 - y1))
    sx, sy = -scale if flip else scale, scale
    dx, dy = width / 2 - sx * ((x1 + x2) / 2), height / 2 - sy * ((y1 + y2) / 2)
    return np.array([[sx, 0, dx], [0, sy, dy]], np.float32)


def move_boxes(boxes: np.ndarray, affine: np.ndarray, inside: np.ndarray) -> tuple:
    """Return boxes (N, 4) mapped by `affine` (2, 3) and clipped to `inside`, and which remain (N,).

    All boxes are xyxy. A box remains if more than MIN_INSIDE of its area lies inside.
    """
    corners = boxes.reshape(-1, 2, 2) * np.diag(affine[:, :2]) + affine[:, 2]
    low, high = corners.min(1), corners.max(1)
    full = np.prod(high - low, 1)
    low, high = np.maximum(low, inside[:2]), np.minimum(high, inside[2:])
    area = np.prod(np.maximum(high - low, 0), 1)
    return np.concatenate([low, high], 1), area > MIN_INSIDE * np.maximum(full, 1e-6)


class DrawnParts(Dataset):
    """The samples of the stills of `seeds` in `folder`.

    An item is {"inputs": (3, H, W) uint8 BGR, "boxes_labels": (N, 5), "kind"}; each row of
    boxes_labels is the label and xyxy in pixels. `data[index]` is padded to a square of `size`
    pixels, `data[index, (width, height)]` to that shape.
    """

    def __init__(self, folder: Path, seeds: range, *, size: int = 320, augment: bool = True):
        self.size, self.augment = size, augment
        self.samples = [
            sample
            for path, people in read_stills(folder, seeds)
            for sample in samples_of(cv2.imread(str(path)), people)
        ]

    def __len__(self) -> int:
        return len(self.samples)

    def shape(self, index: int) -> Size:
        """Return the (width, height) to which the sample is padded if it keeps its own aspect."""
        x1, y1, x2, y2 = self.samples[index].window
        scale = self.size / max(x2 - x1, y2 - y1)
        return tuple(-(-int(side * scale) // STEP) * STEP for side in (x2 - x1, y2 - y1))

    def __getitem__(self, item: int | tuple[int, Size]) -> dict:
        index, size = item if isinstance(item, tuple) else (item, (self.size, self.size))
        sample = self.samples[index]
        image = cv2.imdecode(sample.jpeg, cv2.IMREAD_COLOR)
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        window, zoom, flip = sample.window, 1.0, False
        if self.augment:
            window, zoom, flip = _vary(window, sample.kind, rng)
            image = _recolour(image, rng)
        affine = place(window, size, zoom, flip)
        # Everything outside the window is grey, as at scoring.
        corners, _ = move_boxes(window[None], affine, np.array([0, 0, *size]))
        boxes, keep = move_boxes(sample.boxes, affine, corners[0])
        out = cv2.warpAffine(image, affine, size, borderValue=(PAD,) * 3)
        _grey_outside(out, corners[0])
        found = np.concatenate([sample.labels[keep, None], boxes[keep]], 1)
        return {
            "inputs": torch.from_numpy(out).permute(2, 0, 1),
            "boxes_labels": torch.from_numpy(found.astype(np.float32)),
            "kind": sample.kind,
        }


class ShapeBatches(Sampler):
    """Yields batches of `size` items of a `DrawnParts` in random order, without an incomplete one.

    With `to_aspect`, half of the samples keep their own aspect and come in batches of one shape.
    They are padded less than fast scoring pads. The other half, and those that fill no batch of
    their shape, are padded to squares.
    """

    def __init__(self, data: DrawnParts, size: int):
        self.data, self.size, self.to_aspect = data, size, False

    def __len__(self) -> int:
        return len(self.data) // self.size

    def __iter__(self):
        order = torch.randperm(len(self.data)).tolist()
        squares = len(self) // 2 * self.size if self.to_aspect else len(order)
        groups: dict[Size, list] = {}
        for index in order[squares:]:
            groups.setdefault(self.data.shape(index), []).append(index)
        rest, batches = order[:squares], []
        for shape, indices in groups.items():
            batches += self._cut([(index, shape) for index in indices])
            rest += indices[len(indices) // self.size * self.size :]
        batches += self._cut(rest)
        for i in torch.randperm(len(batches)).tolist():
            yield batches[i]

    def _cut(self, items: list) -> list[list]:
        """Return `items` in batches, without an incomplete one."""
        starts = range(0, len(items) - self.size + 1, self.size)
        return [items[start : start + self.size] for start in starts]


def _grey_outside(image: np.ndarray, box: np.ndarray) -> None:
    """Paint the picture (H, W, 3) grey outside `box` (xyxy), in place."""
    x1, y1, x2, y2 = (round(float(v)) for v in box)
    image[:y1], image[y2:], image[:, :x1], image[:, x2:] = PAD, PAD, PAD, PAD


def _vary(window: np.ndarray, kind: str, rng: np.random.Generator) -> tuple:
    """Return a random (window, zoom, flip) near `window`.

    The window moves because detected boxes are never exact; the zoom makes people vary in size.
    """
    size = np.tile(window[2:] - window[:2], 2)
    spread = 0.03 if kind == CROP else 0.08
    window = window + (rng.normal(0, spread, 4) * size).clip(-0.2 * size, 0.2 * size)
    zoom = rng.uniform(0.8, 1.0) if kind == CROP else rng.uniform(0.75, 1.1)
    return window.astype(np.float32), zoom, bool(rng.random() < 0.5)


def _recolour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the picture (H, W, 3) uint8 with another brightness and tint."""
    gain = rng.uniform(0.75, 1.25) * rng.uniform(0.92, 1.08, 3)
    return np.clip(image * gain + rng.uniform(-15, 15), 0, 255).astype(np.uint8)

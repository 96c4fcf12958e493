"""What is drawn into annotated videos: boxes, plates with words, and the score over time."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import cv2
import numpy as np

from human_anomaly.models.scoring.scores import is_flagged

# BGR
RED, GREEN, WHITE, DARK = (48, 48, 214), (80, 175, 60), (245, 245, 245), (32, 28, 26)
GRID, LINE = (78, 72, 68), (240, 200, 120)
PAGE_WIDTH, PAGE_TEXT = 640, 12  # in pixels; the page's video may be wider, and its text with it


def text_size(width: int) -> int:
    """Return the height of text in pixels that is legible if the picture is shown 480 wide."""
    return max(12, round(width * 28 / 1280))


@lru_cache(2048)
def _words(text: str, size: int) -> np.ndarray:
    """Return the opacity (h, w) in 0..1 of `text` in letters `size` pixels high."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size)
    ascent, descent = font.getmetrics()
    mask = Image.new("L", (max(1, round(font.getlength(text))), ascent + descent))
    ImageDraw.Draw(mask).text((0, 0), text, 255, font)
    return np.asarray(mask, np.float32) / 255


def write_words(image: np.ndarray, text: str, x: int, y: int, size: int, colour=WHITE) -> None:
    """Write `text` into `image` (H, W, 3), cut at the edges; (x, y) is its upper left corner."""
    opacity = _words(text, size)[: max(image.shape[0] - y, 0), : max(image.shape[1] - x, 0), None]
    place = image[y : y + opacity.shape[0], x : x + opacity.shape[1]]
    place[:] = place * (1 - opacity) + np.float32(colour) * opacity


class Plates:
    """Words on coloured plates that do not cover each other, to be drawn after all lines."""

    def __init__(self, width: int, height: int, size: int | None = None, margin: int = 4):
        self.width, self.height, self.margin = width, height, margin
        self.size = size or text_size(width)
        self.placed: list[tuple[tuple[int, int, int, int], str, tuple]] = []

    def add(self, text: str, box: tuple[int, int, int, int], colour: tuple) -> None:
        """Place `text` at a corner of `box` (x1, y1, x2, y2) where no other plate lies."""
        h, w = (side + 2 * self.margin for side in _words(text, self.size).shape)
        x1, y1, x2, y2 = box
        corners = [(x1, y1 - h), (x1, y2), (x2 - w, y1 - h), (x2 - w, y2), (x1, y1), (x2 - w, y1)]
        corners += [(x1, y1 + h), (x1, y2 + h)]
        free = [self._inside(x, y, w, h) for x, y in corners]
        place = min(free, key=self._covered)
        self.placed.append((place, text, colour))

    def _inside(self, x: int, y: int, w: int, h: int) -> tuple[int, int, int, int]:
        x = min(max(x, 0), max(self.width - w, 0))
        y = min(max(y, 0), max(self.height - h, 0))
        return x, y, x + w, y + h

    def _covered(self, place: tuple[int, int, int, int]) -> int:
        """Return how many pixels of other plates a plate at `place` would cover."""
        x1, y1, x2, y2 = place
        return sum(
            max(0, min(x2, right) - max(x1, left)) * max(0, min(y2, low) - max(y1, top))
            for (left, top, right, low), _, _ in self.placed
        )

    def draw(self, image: np.ndarray) -> None:
        """Draw all plates into `image` (H, W, 3) BGR."""
        for (x1, y1, x2, y2), text, colour in self.placed:
            cv2.rectangle(image, (x1, y1), (x2 - 1, y2 - 1), colour, -1)
            write_words(image, text, x1 + self.margin, y1 + self.margin, self.size)


def labels_of(row: Mapping, thresholds: Mapping[str, float]) -> list[tuple[str, list, tuple]]:
    """Return (text, box, colour) of flagged parts and of people, no text twice, red ones first.

    The detector often finds one person twice, once by each of its two texts for people.
    """
    labels: dict[tuple, tuple] = {}
    for person in row["people"]:
        name, red = f"#{person['id']}", RED if person["abnormal"] else GREEN
        for part in (part for part in person["parts"] if is_flagged(part, thresholds)):
            said = f"{part['part']} {part['p_abnormal']:.2f}"
            text = said if part["part"] != "human" else f"{name} {said}"
            labels.setdefault((text, RED), part["bbox"])
        if not any(text.startswith(f"{name} ") for text, _ in labels):
            labels.setdefault((name, red), person["bbox"])
    ordered = sorted(labels, key=lambda label: label[1] != RED)
    texts = [text for text, _ in ordered]
    return [(t, labels[t, c], c) for i, (t, c) in enumerate(ordered) if t not in texts[:i]]


def page_labels(row: Mapping, thresholds: Mapping[str, float], size: Sequence[int]) -> list[list]:
    """Return a frame's labels for a page: text, left and top in percent, and whether it is red.

    `size` is the frame's width and height.
    """
    zoom = PAGE_WIDTH / size[0]
    plates = Plates(PAGE_WIDTH, round(size[1] * zoom), PAGE_TEXT, margin=1)
    for text, box, colour in labels_of(row, thresholds):
        plates.add(text, _zoomed(box, zoom), colour)
    return [
        [text, round(100 * x / plates.width, 2), round(100 * y / plates.height, 2), colour == RED]
        for (x, y, _, _), text, colour in plates.placed
    ]


def draw_row(
    image: np.ndarray, row: Mapping, thresholds: Mapping[str, float], zoom: float, title: str = ""
) -> None:
    """Draw a frame's people into `image` (H, W, 3) BGR, which is `zoom` times the source frame.

    Flagged parts get a thick red box, their name and their p. Other boxes are thin, and people get
    their number. `title` is written into the upper left corner.
    """
    height, width = image.shape[:2]
    thin, thick = max(1, round(width / 800)), max(2, round(width / 320))
    boxes = []  # (is it flagged, box, colour, thickness)
    for person in row["people"]:
        boxes.append((False, person["bbox"], RED if person["abnormal"] else GREEN, thin))
        for part in person["parts"]:
            if is_flagged(part, thresholds):
                boxes.append((True, part["bbox"], RED, thick))
            elif part["part"] != "human":
                boxes.append((False, part["bbox"], GREEN, thin))
    for _, box, colour, thickness in sorted(boxes, key=lambda b: b[0]):
        x1, y1, x2, y2 = _zoomed(box, zoom)
        cv2.rectangle(image, (x1, y1), (x2, y2), colour, thickness)
    plates = Plates(width, height)
    if title:
        plates.add(title, (0, 0, width, height), DARK)
    for text, box, colour in labels_of(row, thresholds):
        plates.add(text, _zoomed(box, zoom), colour)
    plates.draw(image)


def _zoomed(box, zoom: float) -> tuple[int, int, int, int]:
    return tuple(round(v * zoom) for v in box)


def strip_height(width: int) -> int:
    """Return the height of the score over time below a picture of this width, an even number."""
    return 2 * max(24, round(width * 0.0375))


class ScoreStrip:
    """The frame score over time, drawn one frame at a time, with gaps where there are no people."""

    def __init__(self, width: int, expected: int | None):
        self.width, self.height, self.scores = width, strip_height(width), []
        self.room = max(expected or 64, 2)  # frames that fit; doubled when more come
        self.size = min(text_size(width), (self.height - 4) // 3)
        self.left = _words("score", self.size).shape[1] + 12
        self._clear()

    def _clear(self) -> None:
        self.canvas = np.full((self.height, self.width, 3), DARK, np.uint8)
        for value, text in ((0.0, "0"), (0.5, "score"), (1.0, "1")):
            y = self._y(value)
            cv2.line(self.canvas, (self.left, y), (self.width, y), GRID, 1)
            high, wide = _words(text, self.size).shape
            top = min(max(y - high // 2, 0), self.height - high)
            write_words(self.canvas, text, self.left - 6 - wide, top, self.size)

    def _x(self, index: int) -> int:
        return self.left + round(index * (self.width - 1 - self.left) / (self.room - 1))

    def _y(self, score: float) -> int:
        edge = self.size // 2 + 2
        return round(self.height - edge - score * (self.height - 2 * edge))

    def add(self, score: float | None) -> np.ndarray:
        """Return the strip (height, width, 3) up to this frame, which a vertical line marks."""
        self.scores.append(score)
        index = len(self.scores) - 1
        if index >= self.room:
            self.room *= 2
            self._clear()
            for i in range(index):
                self._mark(i)
        self._mark(index)
        shown = self.canvas.copy()
        cv2.line(shown, (self._x(index), 0), (self._x(index), self.height), WHITE, 1)
        return shown

    def _mark(self, index: int) -> None:
        score = self.scores[index]
        if score is None:
            return
        before = self.scores[index - 1] if index else None
        end = (self._x(index), self._y(score))
        start = end if before is None else (self._x(index - 1), self._y(before))
        cv2.line(self.canvas, start, end, LINE, max(2, self.width // 400), cv2.LINE_AA)

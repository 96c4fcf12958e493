"""From a box to the square crop that a classifier judges."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor


def _fit(centre: float, half: float, low: float, high: float) -> tuple[int, int]:
    """Return the ends, rounded outwards, of a segment of 2 * half with its centre in low..high."""
    start = min(max(centre, low), high) - half
    return int(np.floor(start)), int(np.ceil(start + 2 * half))


def _inside(square: tuple[int, int, int, int], width: int, height: int) -> bool:
    x1, y1, x2, y2 = square
    return x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height


def square_box(xyxy: Sequence[float], width: int, height: int) -> tuple[int, int, int, int] | None:
    """Return the square (x1, y1, x2, y2) in whole pixels around a box, or None where none fits.

    The square is as long as the box's longer side if that fits into the frame of `width` x `height`
    pixels, else as its shorter side, and is moved into the frame as little as possible. Its ends
    are rounded outwards, so it may be a pixel off square. Keep the order of the sums: another order
    rounds a few squares in a hundred differently.
    """
    x1, y1, x2, y2 = (float(v) for v in xyxy)
    w, h = x2 - x1, y2 - y1
    if not (w > 0 and h > 0):
        return None
    cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
    half = max(w, h) / 2
    left, right = max(x2 - half, half), min(x1 + half, width - half)
    top, bottom = max(y2 - half, half), min(y1 + half, height - half)
    if left <= right and top <= bottom:
        xs, ys = _fit(cx, half, left, right), _fit(cy, half, top, bottom)
        square = (xs[0], ys[0], xs[1], ys[1])
        if _inside(square, width, height):
            return square
    half = min(w, h) / 2
    xs, ys = _fit(cx, half, half, width - half), _fit(cy, half, half, height - half)
    square = (xs[0], ys[0], xs[1], ys[1])
    return square if _inside(square, width, height) else None


def cut(frame: np.ndarray | Tensor, box: Sequence[float]) -> np.ndarray | Tensor:
    """Return `frame` (H, W, 3) inside `box` (xyxy), not copied; corners are cut to whole pixels."""
    x1, y1, x2, y2 = (int(v) for v in box)
    return frame[y1:y2, x1:x2]

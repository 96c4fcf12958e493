"""Anti-aliased shapes, painted into a picture and into a map that says what each pixel shows.

Points are (x, y) in picture pixels, x to the right and y down; colours are BGR, 0 .. 255.
"""

import cv2
import numpy as np

SHIFT = 4  # fractional bits of the coordinates handed to OpenCV
ONE = 1 << SHIFT
LABEL_SCALE = 0.5  # of the label map to the picture; half the resolution is enough for boxes
LABEL_MARGIN = 96  # label pixels kept around the frame, to count those of a part that is cut off

_ARC = np.linspace(-np.pi / 2, np.pi / 2, 8)
_ARC_COS, _ARC_SIN = np.cos(_ARC)[:, None], np.sin(_ARC)[:, None]
_RING = np.linspace(0, 2 * np.pi, 20, endpoint=False)
RING = np.stack([np.cos(_RING), np.sin(_RING)], 1)


def direction(angle):
    """Return the unit vector (2,) of a limb's angle in radians: 0 down, positive to image right."""
    return np.array([np.sin(angle), np.cos(angle)])


def capsule(start, end, start_radius, end_radius):
    """Return the outline (16, 2) of a bar with round ends, from `start` to `end`."""
    along = np.subtract(end, start)
    length = np.hypot(*along)
    along = along / length if length > 1e-6 else np.array([0.0, 1.0])
    across = np.array([-along[1], along[0]])
    arc = _ARC_COS * along + _ARC_SIN * across
    return np.concatenate([end + end_radius * arc, start - start_radius * arc])


def ellipse(center, half_width, half_height, angle=0.0):
    """Return the outline (20, 2) of an ellipse, turned by `angle` radians."""
    points = RING * (half_width, half_height)
    if angle:
        cos, sin = np.cos(angle), np.sin(angle)
        points = points @ np.array([[cos, sin], [-sin, cos]])
    return points + center


# The weights (5, 4) of four corners at five places along a Catmull-Rom segment.
_T = np.arange(5)[:, None] / 5
_BASIS = 0.5 * np.hstack(
    [-_T + 2 * _T**2 - _T**3, 2 - 5 * _T**2 + 3 * _T**3, _T + 4 * _T**2 - 3 * _T**3, _T**3 - _T**2]
)


def smooth(points):
    """Return a closed Catmull-Rom curve (5 N, 2) through the corners (N, 2)."""
    points = np.asarray(points, float)
    corners = np.stack([np.roll(points, k, 0) for k in (1, 0, -1, -2)], 1)  # (N, 4, 2)
    return (_BASIS @ corners).reshape(-1, 2)


def curve(points):
    """Return an open Catmull-Rom curve (5 N - 4, 2) through the corners (N, 2)."""
    points = np.asarray(points, float)
    padded = np.concatenate([points[:1], points, points[-1:]])
    corners = np.stack([padded[k : len(padded) - 3 + k] for k in range(4)], 1)
    return np.concatenate([(_BASIS @ corners).reshape(-1, 2), points[-1:]])


def darker(color, factor):
    """Return a colour times `factor`; above 1 it is moved towards white by `factor` - 1."""
    color = np.asarray(color, float)
    out = color * factor if factor <= 1 else color + (255 - color) * (factor - 1)
    return tuple(float(c) for c in np.clip(out, 0, 255))


class Canvas:
    """A picture (H, W, 3) uint8 BGR, painted in place, and its label map (uint8, 0: nothing)."""

    def __init__(self, image):
        height, width = image.shape[:2]
        self.image = image
        margin = 2 * LABEL_MARGIN
        shape = (int(height * LABEL_SCALE) + margin, int(width * LABEL_SCALE) + margin)
        self.labels = np.zeros(shape, np.uint8)

    @property
    def frame_labels(self):
        """The part (H/2, W/2) of the label map that lies in the frame."""
        return self.labels[LABEL_MARGIN:-LABEL_MARGIN, LABEL_MARGIN:-LABEL_MARGIN]

    def mark(self, points, label):
        """Label the pixels inside the outline (N, 2) and paint nothing; None changes nothing."""
        if label is None:
            return
        scaled = (np.asarray(points) * LABEL_SCALE + LABEL_MARGIN) * ONE
        cv2.fillPoly(self.labels, [scaled.astype(np.int32)], int(label), cv2.LINE_8, SHIFT)

    def fill(self, points, color, label=None, *, outline=None, width=1):
        """Paint and label the shape with outline (N, 2).

        With a colour for `outline`, a line of `width` pixels surrounds it.
        """
        self.union([points], color, label, outline=outline, width=width)

    def union(self, shapes, color, label=None, *, outline=None, width=1):
        """Paint and label shapes, each (N, 2), as one: the outline surrounds all together."""
        fixed = [np.rint(np.asarray(s) * ONE).astype(np.int32) for s in shapes]
        if outline is not None:
            thick = max(1, round(2 * width))
            cv2.polylines(self.image, fixed, True, outline, thick, cv2.LINE_AA, SHIFT)
        for points, shape in zip(fixed, shapes, strict=True):
            cv2.fillPoly(self.image, [points], color, cv2.LINE_AA, SHIFT)
            self.mark(shape, label)

    def line(self, points, color, width=1.0):
        """Paint a line through points (N, 2), `width` pixels wide; labels stay as they are."""
        fixed = np.rint(np.asarray(points) * ONE).astype(np.int32)
        thick = max(1, round(width))
        cv2.polylines(self.image, [fixed], False, color, thick, cv2.LINE_AA, SHIFT)

    def count(self, label):
        """Return how many pixels of the label map, margin included, carry `label` now."""
        return int(np.count_nonzero(self.labels == label))

"""Draws backgrounds full of objects, shadows, and the light, blur and noise of a camera."""

import cv2
import numpy as np

from .canvas import Canvas, capsule, darker, ellipse, smooth
from .people import hsv

PAN = 96  # pixels that the camera may move to either side

# A function that draws an object takes (rng, canvas, x, horizon); x and the horizon are in pixels.


def _color(rng, low=0.25, high=0.9, saturation=0.6):
    return hsv(rng.random(), rng.uniform(0.05, saturation), rng.uniform(low, high))


def _gradient(height, width, top, bottom):
    """Return a picture (height, width, 3) uint8 that runs from one BGR colour to another."""
    ramp = np.linspace(0, 1, height)[:, None, None]
    column = np.array(top) * (1 - ramp) + np.array(bottom) * ramp
    return np.broadcast_to(column, (height, width, 3)).astype(np.uint8).copy()


def _box(x1, y1, x2, y2):
    """Return the four corners of a box."""
    return [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]


def _building(rng, canvas, x, horizon):
    width, height = rng.uniform(90, 260), rng.uniform(120, 420)
    color = _color(rng, 0.35, 0.85, 0.4)
    canvas.fill(_box(x, horizon - height, x + width, horizon + 4), color)
    pane = darker(color, 0.6) if rng.random() < 0.6 else darker(color, 1.5)
    step = rng.uniform(26, 44)
    for row in np.arange(horizon - height + 14, horizon - 20, step):
        for column in np.arange(x + 10, x + width - 16, step):
            canvas.fill(_box(column, row, column + step * 0.5, row + step * 0.6), pane)


def _tree(rng, canvas, x, horizon):
    foot = horizon + rng.uniform(0, 60)
    height = rng.uniform(90, 260)
    trunk = hsv(0.07, 0.5, rng.uniform(0.25, 0.5))
    canvas.fill(capsule((x, foot), (x + rng.normal(0, 8), foot - height), 11, 6), trunk)
    for _ in range(5):
        leaf = hsv(rng.uniform(0.2, 0.4), rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.7))
        where = (x + rng.normal(0, 32), foot - height + rng.normal(0, 28))
        canvas.fill(ellipse(where, rng.uniform(28, 58), rng.uniform(24, 48)), leaf)


def _pole(rng, canvas, x, horizon):
    foot = horizon + rng.uniform(0, 90)
    color = _color(rng, 0.15, 0.6, 0.3)
    top = foot - rng.uniform(180, 420)
    canvas.fill(capsule((x, foot), (x, top), 6, 4), color)
    canvas.fill(ellipse((x, top), rng.uniform(10, 22), rng.uniform(8, 18)), _color(rng, 0.6, 1.0))


def _sofa(rng, canvas, x, horizon):
    foot, width = horizon + rng.uniform(20, 90), rng.uniform(180, 340)
    color = _color(rng)
    canvas.fill(smooth(_box(x, foot - 130, x + width, foot - 20)), color)
    canvas.fill(_box(x - 10, foot - 70, x + width + 10, foot - 10), darker(color, 0.85))
    for share in (0.05, 0.5):
        pillow = smooth(_box(x + width * share, foot - 110, x + width * (share + 0.4), foot - 60))
        canvas.fill(pillow, darker(color, 1.2))


def _frame(rng, canvas, x, horizon):
    width, height = rng.uniform(60, 220), rng.uniform(60, 190)
    y = rng.uniform(30, max(40, horizon - height - 60))
    canvas.fill(_box(x - 7, y - 7, x + width + 7, y + height + 7), _color(rng, 0.2, 0.9))
    canvas.fill(_box(x, y, x + width, y + height), _color(rng, 0.5, 1.0))
    for _ in range(4):
        where = (x + rng.uniform(0.2, 0.8) * width, y + rng.uniform(0.2, 0.8) * height)
        axes = (width * rng.uniform(0.04, 0.18), height * rng.uniform(0.04, 0.18))
        canvas.fill(ellipse(where, *axes), _color(rng))


def _shelf(rng, canvas, x, horizon):
    width, rows = rng.uniform(120, 260), int(rng.integers(2, 5))
    color = hsv(0.08, rng.uniform(0.2, 0.6), rng.uniform(0.3, 0.7))
    top = horizon - rows * 75
    canvas.fill(_box(x, top, x + width, horizon + 20), color)
    for row in range(rows):
        base = top + 75 * row + 70
        canvas.fill(_box(x + 6, base - 62, x + width - 6, base), darker(color, 0.6))
        left = x + 10
        while left < x + width - 24:
            wide, tall = rng.uniform(7, 20), rng.uniform(28, 56)
            canvas.fill(_box(left, base - tall, left + wide, base), _color(rng))
            left += wide + rng.choice([1, 1, 14])


def _plant(rng, canvas, x, horizon):
    foot = horizon + rng.uniform(10, 80)
    pot = [(x - 24, foot - 46), (x + 24, foot - 46), (x + 17, foot), (x - 17, foot)]
    canvas.fill(pot, _color(rng))
    for angle in np.linspace(-1.1, 1.1, 7):
        leaf = hsv(rng.uniform(0.22, 0.4), rng.uniform(0.4, 0.8), rng.uniform(0.3, 0.7))
        tip = (x + 90 * np.sin(angle), foot - 50 - 90 * np.cos(angle))
        canvas.fill(capsule((x, foot - 46), tip, 4, rng.uniform(6, 13)), leaf)


def _ball(rng, canvas, x, horizon):
    radius = rng.uniform(12, 46)
    where = (x, rng.uniform(40, 700))
    canvas.fill(ellipse(where, radius, radius), _color(rng))
    if rng.random() < 0.5:
        canvas.fill(ellipse(where, radius * 0.5, radius * 0.5), _color(rng))


def _stick(rng, canvas, x, horizon):
    y, angle, length = rng.uniform(40, 660), rng.uniform(0, 6.28), rng.uniform(40, 110)
    end = (x + length * np.cos(angle), y + length * np.sin(angle))
    canvas.fill(capsule((x, y), end, rng.uniform(3, 6), rng.uniform(3, 6)), _color(rng))


OUTDOOR = (_building, _building, _tree, _tree, _pole, _ball, _stick)
INDOOR = (_frame, _frame, _shelf, _sofa, _plant, _ball, _stick)


def draw_background(rng, width, height):
    """Return a picture (height, width + 2 PAN, 3) uint8 BGR without people."""
    full = width + 2 * PAN
    outdoor = rng.random() < 0.5
    horizon = rng.uniform(0.52, 0.78) * height
    if outdoor:
        sky = hsv(rng.uniform(0.5, 0.68), rng.uniform(0.1, 0.5), rng.uniform(0.6, 1.0))
        image = _gradient(height, full, sky, darker(sky, 1.5))
        ground = hsv(rng.uniform(0.05, 0.4), rng.uniform(0.05, 0.5), rng.uniform(0.3, 0.8))
    else:
        wall = _color(rng, 0.4, 0.95, 0.4)
        image = _gradient(height, full, wall, darker(wall, 0.85))
        ground = hsv(rng.uniform(0.03, 0.15), rng.uniform(0.1, 0.6), rng.uniform(0.3, 0.8))
    cut = int(horizon)
    image[cut:] = _gradient(height - cut, full, darker(ground, 0.85), darker(ground, 1.1))
    canvas = Canvas(image)
    for _ in range(rng.integers(4, 9)):  # boards, tiles or paths on the ground
        y = horizon + (height - horizon) * rng.random() ** 1.5
        stroke = [(0, y), (full, y + rng.normal(0, 12))]
        canvas.line(stroke, darker(ground, rng.uniform(0.75, 0.95)), 1 + (y - horizon) / 60)
    kinds = OUTDOOR if outdoor else INDOOR
    for pick in sorted(rng.integers(len(kinds), size=rng.integers(5, 15))):
        kinds[pick](rng, canvas, rng.uniform(-60, full - 20), horizon)
    coarse = rng.normal(0, 1, (height // 40, full // 40, 1)).astype(np.float32)
    grain = cv2.resize(coarse, (full, height), interpolation=cv2.INTER_CUBIC)[..., None]
    image = np.clip(canvas.image + rng.uniform(2, 9) * grain, 0, 255).astype(np.uint8)
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 3.5))


def draw_shadow(image, center, half_width, strength):
    """Darken an ellipse on the ground of `image` (H, W, 3) uint8 in place.

    `center` and `half_width` are in pixels, `strength` is in 0 .. 1.
    """
    x, y = center
    half_height = half_width * 0.16
    x1, x2 = int(max(0, x - half_width - 4)), int(min(image.shape[1], x + half_width + 4))
    y1, y2 = int(max(0, y - half_height - 4)), int(min(image.shape[0], y + half_height + 4))
    if x2 <= x1 or y2 <= y1:
        return
    patch = image[y1:y2, x1:x2]
    dark = patch.copy()
    middle, axes = (int(x - x1), int(y - y1)), (int(half_width), int(half_height))
    cv2.ellipse(dark, middle, axes, 0, 0, 360, (20, 20, 20), -1, cv2.LINE_AA)
    cv2.addWeighted(dark, strength, patch, 1 - strength, 0, dst=patch)


class Camera:
    """The camera of one video: brightness, tint, light from one side, blur, noise, JPEG."""

    def __init__(self, rng, width, height):
        tint = rng.normal(1.0, 0.03, 3) * rng.uniform(0.82, 1.15)
        angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0.0, 0.3)
        x, y = np.meshgrid(np.linspace(-1, 1, 32), np.linspace(-1, 1, 18))
        slope = 1 - depth * (0.5 + 0.5 * np.clip(x * np.cos(angle) + y * np.sin(angle), -1, 1))
        small = (128 * slope[..., None] * tint).clip(0, 255).astype(np.uint8)
        self.light = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
        self.blur = float(rng.choice([0.0, 0.0, 0.6, 0.9, 1.2]))
        self.noise = float(rng.uniform(0, 4))
        self.quality = int(rng.integers(45, 96))
        grain = rng.normal(0, self.noise, (height + 64, width + 64))
        self.grain = np.clip(grain, -40, 40).astype(np.int8)

    def shoot(self, image, rng):
        """Return the frame that the camera makes of `image` (H, W, 3) uint8 BGR, of that shape."""
        height, width = image.shape[:2]
        image = cv2.multiply(image, self.light, scale=1 / 128)
        if self.blur:
            image = cv2.GaussianBlur(image, (5, 5), self.blur)
        if self.noise > 1:
            dy, dx = rng.integers(0, 64, 2)
            grain = self.grain[dy : dy + height, dx : dx + width]
            image = cv2.add(image, cv2.merge([grain] * 3), dtype=cv2.CV_8U)
        data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, self.quality))[1]
        return cv2.imdecode(data, cv2.IMREAD_COLOR)

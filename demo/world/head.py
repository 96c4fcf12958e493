"""Draws heads: eyes, brows, nose and mouth, and the three kinds of abnormal faces."""

import numpy as np

from .canvas import RING, curve, darker, ellipse, smooth
from .hair import draw_fringe

HALF_WIDTH = 0.40  # of the head, as a share of its height

# The outline (28, 2) of the head, narrower at the jaw.
_ANGLE = np.linspace(0, 2 * np.pi, 28, endpoint=False)
_JAW = 1 - 0.2 * np.clip(np.sin(_ANGLE), 0, 1) ** 2
SKULL = np.stack([np.cos(_ANGLE) * _JAW, np.sin(_ANGLE)], 1)


class Face:
    """Coordinates (u, v) of a head: u to image right, v down, both -1 .. 1 at its outline.

    `center` and `height` are in picture pixels, `tilt` and `yaw` in radians. `warp` maps points
    (N, 2) of a melted face to where they run.
    """

    def __init__(self, center, height, tilt, yaw):
        self.center, self.height, self.yaw, self.warp = center, height, yaw, None
        cos, sin = np.cos(tilt), np.sin(tilt)
        axes = [[HALF_WIDTH * cos, HALF_WIDTH * sin], [-0.5 * sin, 0.5 * cos]]
        self.axes = height * np.array(axes)

    def flat(self, points):
        """Return the pixels (N, 2) of points (N, 2) on the outline, which the yaw does not move."""
        points = np.asarray(points, float)
        return self.center + (self.warp(points) if self.warp else points) @ self.axes

    def on(self, points):
        """Return the pixels (N, 2) of points (N, 2) on the face, which turn with the head."""
        points = np.array(points, float)
        u = np.clip(points[:, 0], -1, 1)
        # The sphere's depth, flattened, so that features keep inside of the outline.
        points[:, 0] = u * np.cos(self.yaw) + 0.75 * np.sqrt(1 - u**2) * np.sin(self.yaw)
        return self.flat(points)


def melt(u):
    """Return a map of face points (N, 2) that lets them run down, more so on one side.

    `u`: numbers in 0 .. 1 that decide side, amount and phase.
    """
    side = 1 if u[0] > 0.5 else -1
    amount, phase = 0.7 + 0.3 * u[1], 6.28 * u[2]

    def warp(points):
        x, y = points[:, 0], points[:, 1]
        low = np.clip((y + 0.75) / 1.4, 0, 1.2)
        drop = amount * low * (0.45 + 0.55 * np.tanh(2.2 * side * x))
        ripple = 0.15 * np.sin(7 * x + phase) * np.clip(low, 0, 1)
        lean = 0.16 * np.sin(3.4 * y + phase) * np.clip(low * 1.4, 0, 1)
        return np.stack([x + lean, y + drop + ripple], 1)

    return warp


def features(kind, seed):
    """Return the features to draw: a list of (name, u, v, scale, rotation in radians).

    `kind` is an anomaly of the face or None, and `seed` decides its variant.
    """
    base = [
        ("brow", -0.42, -0.36, 1.0, 0.0),
        ("brow", 0.42, -0.36, 1.0, 0.0),
        ("eye", -0.42, -0.06, 1.0, 0.0),
        ("eye", 0.42, -0.06, 1.0, 0.0),
        ("nose", 0.0, 0.2, 1.0, 0.0),
        ("mouth", 0.0, 0.56, 1.0, 0.0),
    ]
    rng = np.random.default_rng(seed)
    if kind == "misplaced":
        return _misplace(base, rng)
    if kind == "doubled":
        return _double(base, rng)
    return base


def _misplace(base, rng):
    """Return the features with some at a wrong place."""
    side = int(rng.integers(2))
    sign = (-1, 1)[side]
    variant = int(rng.integers(5))
    if variant == 0:  # an eye on the cheek
        base[side] = ("brow", sign * 0.5, rng.uniform(0.12, 0.25), 1.0, sign * 0.4)
        base[2 + side] = ("eye", sign * 0.5, rng.uniform(0.42, 0.55), 1.0, sign * 0.5)
        base[5] = ("mouth", -sign * 0.25, 0.62, 0.9, -sign * 0.3)
    elif variant == 1:  # the mouth on the forehead
        base[5] = ("mouth", rng.uniform(-0.2, 0.2), -0.44, 1.0, rng.uniform(-0.3, 0.3))
        base[:2] = [(n, u, v + 0.18, s, r) for n, u, v, s, r in base[:2]]
        base[2:4] = [(n, u, v + 0.3, s, r) for n, u, v, s, r in base[2:4]]
        base[4] = ("nose", 0.0, 0.55, 1.0, 0.0)
    elif variant == 2:  # the mouth upright on a cheek
        base[5] = ("mouth", sign * 0.55, rng.uniform(0.15, 0.3), 1.0, sign * rng.uniform(1.1, 1.6))
        base[4] = ("nose", -sign * 0.4, 0.45, 1.1, -sign * 0.8)
    elif variant == 3:  # upside down
        return [(n, u, -v * 0.95 + 0.06, s, np.pi) for n, u, v, s, _ in base]
    else:  # mouth and one eye have changed places
        base[2 + side] = ("eye", 0.0, 0.56, 1.1, rng.uniform(-0.4, 0.4))
        base[5] = ("mouth", sign * 0.42, -0.06, 0.8, sign * rng.uniform(0.0, 0.5))
    return base


def _double(base, rng):
    """Return the features with some of them twice."""
    variant = int(rng.integers(4))
    if variant == 0:  # two pairs of eyes
        return [
            *[(n, u, v - 0.16, s, r) for n, u, v, s, r in base[:4]],
            ("eye", -0.42, 0.2, 1.0, 0.0),
            ("eye", 0.42, 0.2, 1.0, 0.0),
            ("nose", 0.0, 0.38, 0.9, 0.0),
            ("mouth", 0.0, 0.68, 0.9, 0.0),
        ]
    if variant == 1:  # two mouths, one over the other
        return [
            *[(n, u, v - 0.14, s, r) for n, u, v, s, r in base[:4]],
            ("nose", 0.0, 0.04, 0.9, 0.0),
            ("mouth", 0.0, 0.32, 1.0, 0.0),
            ("mouth", 0.0, 0.72, 1.0, 0.0),
        ]
    if variant == 2:  # a whole second face beside the first
        left = [(n, u * 0.56 - 0.42, v - 0.12, s * 0.72, r - 0.12) for n, u, v, s, r in base]
        right = [(n, u * 0.56 + 0.42, v + 0.12, s * 0.72, r + 0.12) for n, u, v, s, r in base]
        return left + right
    # A third eye, and nose and mouth twice side by side.
    return [
        *[(n, u * 1.3, v, 0.85 * s, r) for n, u, v, s, r in base[:4]],
        ("eye", 0.0, -0.14, 0.85, 0.0),
        ("nose", -0.28, 0.26, 0.9, 0.0),
        ("nose", 0.28, 0.26, 0.9, 0.0),
        ("mouth", -0.36, 0.6, 0.72, 0.1),
        ("mouth", 0.36, 0.6, 0.72, -0.1),
    ]


def _spot(points, u, v, scale, rotation):
    """Return a feature's own points (N, 2) moved to (u, v), scaled, and turned by radians."""
    # A unit of v is longer than one of u, so the shape is kept only after both are made equal.
    points = np.asarray(points, float) * (1.0, HALF_WIDTH / 0.5) * scale
    cos, sin = np.cos(rotation), np.sin(rotation)
    x, y = points[:, 0], points[:, 1]
    return np.stack([u + x * cos - y * sin, v + (x * sin + y * cos)], 1)


def _draw_feature(canvas, face, feature, look, *, closed, spread):
    """Draw one of eye, brow, nose, mouth; arguments as in `draw_head`."""
    name, u, v, scale, rotation = feature
    skin = look["skin"]

    def at(points):
        return face.on(_spot(points, u, v, scale, rotation))

    stroke = max(1.0, face.height / 45)
    if name == "brow":
        tilt = look["brow_tilt"] * (1 if u > 0 else -1)
        points = [(-0.22, 0.03 - tilt), (0.0, -0.06), (0.22, 0.03 + tilt)]
        ink = darker(look["hair"], 0.75) if look["style"] != "bald" else darker(skin, 0.4)
        canvas.line(at(curve(points)), ink, stroke * 1.5)
    elif name == "eye":
        _draw_eye(canvas, at, look, stroke, closed)
    elif name == "nose":
        size = look["nose"]
        lean = 0.1 + 0.1 * np.sign(face.yaw)
        points = [(0.02, -0.22), (lean * size, 0.08 * size), (-0.1 * size + lean / 2, 0.12 * size)]
        canvas.line(at(curve(points)), darker(skin, 0.58), stroke)
    else:
        _draw_mouth(canvas, at, look, stroke, spread)


def _draw_eye(canvas, at, look, stroke, closed):
    dark = (30, 26, 28)
    size = look["eye"]
    if closed:
        canvas.line(at(curve([(-0.2, 0), (0, 0.07), (0.2, 0)])), dark, stroke)
        return
    white = at(RING * (0.21 * size, 0.155 * size))
    canvas.fill(white, (245, 245, 245), outline=dark, width=stroke / 4)
    canvas.fill(at(RING * 0.115 * size), look["iris"])
    canvas.fill(at(RING * 0.06 * size), (15, 15, 15))
    canvas.fill(at(RING * 0.03 + (0.04, -0.05)), (255, 255, 255))
    lid = [(-0.23, 0.02), (-0.12, -0.14), (0.1, -0.16), (0.24, 0.0)]
    canvas.line(at(curve(np.multiply(lid, size))), dark, stroke)


def _draw_mouth(canvas, at, look, stroke, spread):
    lips, dark = look["lips"], darker(look["lips"], 0.5)
    if look["mouth"] == "open":
        low = 0.14 + 0.1 * spread
        shape = [(-0.3, 0), (0, 0.02), (0.3, 0)]
        shape += [(0.2, low * 0.9), (0, low * 1.2), (-0.2, low * 0.9)]
        canvas.fill(at(smooth(shape)), (40, 30, 90), outline=dark, width=stroke / 2)
        teeth = [(-0.23, 0.01), (0.23, 0.01), (0.18, 0.07), (-0.18, 0.07)]
        canvas.fill(at(teeth), (250, 250, 250))
        return
    rise = {"smile": 0.1 + 0.05 * spread, "neutral": 0.02}[look["mouth"]]
    shape = [(-0.32, -rise), (0, rise * 0.5), (0.32, -rise), (0, rise * 0.5 + 0.13)]
    canvas.fill(at(smooth(shape)), lips)
    between = [(-0.34, -rise - 0.01), (0, rise * 0.7 + 0.03), (0.34, -rise - 0.01)]
    canvas.line(at(curve(between)), dark, stroke)


def draw_head(canvas, face, look, *, labels, width, closed, spread, kind, seed):
    """Draw the head without its back hair; return pixels (N, 2) around the facial features.

    `look`: the person's, with BGR colours; `labels`: of (body, face); `width`: of outlines, in
    pixels; `closed`: whether the eyes are; `spread`: how wide the mouth is, 0 .. 1; `kind` and
    `seed`: as in `features`.
    """
    body, label = labels
    skin, outline = look["skin"], darker(look["skin"], 0.4)
    for side in (-1, 1):
        ear = ellipse((side * 0.98 - 0.25 * face.yaw, 0.08), 0.17, 0.2)
        canvas.fill(face.flat(ear), skin, body, outline=outline, width=width)
    canvas.fill(face.flat(SKULL), skin, label, outline=outline, width=width)
    jaw = SKULL[1:8] * (0.93, 0.95)
    shade = np.concatenate([jaw, (jaw * (0.82, 0.8))[::-1]])
    canvas.fill(face.flat(shade * (look["light"], 1)), darker(skin, 0.88))
    if look["blush"]:
        pink = tuple(0.82 * s + 0.18 * c for s, c in zip(skin, (110, 100, 230), strict=True))
        for side in (-1, 1):
            canvas.fill(face.on(ellipse((side * 0.55, 0.3), 0.17, 0.1)), pink)
    if look["beard"]:
        inner = [(-0.8, 0.28), (-0.66, 0.5), (-0.42, 0.43), (0, 0.36)]
        inner += [(-u, v) for u, v in inner[-2::-1]]
        canvas.fill(face.flat(np.concatenate([SKULL[1:14], inner])), darker(look["hair"], 0.95))
    draw_fringe(canvas, face, look, body, width)
    parts = features(kind, seed)
    for part in parts:
        _draw_feature(canvas, face, part, look, closed=closed, spread=spread)
        # Features on the hair belong to the face, too.
        canvas.mark(face.on(_spot(RING * 0.2, *part[1:])), label)
    if look["glasses"]:
        _draw_glasses(canvas, face)
    return np.concatenate([face.on(_spot(RING * 0.24, *part[1:])) for part in parts])


def _draw_glasses(canvas, face):
    stroke = max(1.0, face.height / 55)
    ink = (35, 35, 40)
    for side in (-1, 1):
        ring = face.on(ellipse((side * 0.42, -0.04), 0.31, 0.25))
        canvas.line(np.concatenate([ring, ring[:1]]), ink, stroke)
    canvas.line(face.on([(-0.12, -0.06), (0.12, -0.06)]), ink, stroke)

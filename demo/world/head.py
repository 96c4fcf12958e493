"""Heads: hair, eyes, brows, nose and mouth, and the three ways in which a face goes wrong."""

import numpy as np

from .canvas import RING, curve, darker, ellipse, smooth

WIDTH = 0.40  # half width of the head, as a share of its height


class Face:
    """Coordinates of a head: u to image right, v down, both -1 .. 1 at its outline."""

    def __init__(self, center, height, tilt, yaw, warp=None):
        self.center, self.height, self.yaw, self.warp = center, height, yaw, warp
        cos, sin = np.cos(tilt), np.sin(tilt)
        self.axes = height * np.array([[WIDTH * cos, WIDTH * sin], [-0.5 * sin, 0.5 * cos]])

    def flat(self, points):
        """Pixels of points on the outline plane, which do not move with the yaw."""
        points = np.asarray(points, float)
        return self.center + (self.warp(points) if self.warp else points) @ self.axes

    def on(self, points):
        """Pixels of points on the face, which turn with the head."""
        points = np.array(points, float)
        u = np.clip(points[:, 0], -1, 1)
        # The sphere's depth, flattened, so that features keep inside of the outline.
        points[:, 0] = u * np.cos(self.yaw) + 0.75 * np.sqrt(1 - u**2) * np.sin(self.yaw)
        return self.flat(points)


def skull():
    """Outline of the head with a narrower jaw."""
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    v = np.sin(angle)
    jaw = 1 - 0.2 * np.clip(v, 0, 1) ** 2
    return np.stack([np.cos(angle) * jaw, v], 1)


def melt(u):
    """A map of face points that lets them run down, more on one side than on the other."""
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
    """The list of features to draw: (name, u, v, scale, rotation)."""
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
    side = int(rng.integers(2))
    sign = (-1, 1)[side]
    variant = int(rng.integers(5))
    if variant == 0:  # an eye on the cheek
        base[side] = ("brow", sign * 0.5, rng.uniform(0.12, 0.25), 1.0, sign * 0.4)
        base[2 + side] = ("eye", sign * 0.5, rng.uniform(0.42, 0.55), 1.0, sign * 0.5)
        base[5] = ("mouth", -sign * 0.25, 0.62, 0.9, -sign * 0.3)
    elif variant == 1:  # the mouth on the forehead
        base[5] = ("mouth", rng.uniform(-0.2, 0.2), -0.44, 1.0, rng.uniform(-0.3, 0.3))
        base[0], base[1] = [(n, u, v + 0.18, s, r) for n, u, v, s, r in base[:2]]
        base[2], base[3] = [(n, u, v + 0.3, s, r) for n, u, v, s, r in base[2:4]]
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
        small = [(n, u * 0.56 - 0.42, v - 0.12, s * 0.72, r - 0.12) for n, u, v, s, r in base]
        return small + [
            (n, u * 0.56 + 0.42, v + 0.12, s * 0.72, r + 0.12) for n, u, v, s, r in base
        ]
    # A third eye, and nose and mouth twice side by side.
    return [
        *[(n, u * 1.3, v, 0.85 * s, r) for n, u, v, s, r in base[:4]],
        ("eye", 0.0, -0.14, 0.85, 0.0),
        ("nose", -0.28, 0.26, 0.9, 0.0),
        ("nose", 0.28, 0.26, 0.9, 0.0),
        ("mouth", -0.36, 0.6, 0.72, 0.1),
        ("mouth", 0.36, 0.6, 0.72, -0.1),
    ]


def spot(points, u, v, scale, rotation):
    """Move a feature's own points to a place on the face, keeping its shape when turned."""
    points = np.asarray(points, float) * (1.0, WIDTH / 0.5) * scale  # isotropic units first
    cos, sin = np.cos(rotation), np.sin(rotation)
    x, y = points[:, 0], points[:, 1]
    return np.stack([u + x * cos - y * sin, v + (x * sin + y * cos)], 1)


def draw_feature(canvas, face, feature, look, *, label, width, closed, spread):
    """Draw one of eye, brow, nose, mouth."""
    name, u, v, scale, rotation = feature
    skin = look["skin"]

    def at(points):
        return face.on(spot(points, u, v, scale, rotation))

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
    canvas.fill(
        at(RING * (0.21 * size, 0.155 * size)), (245, 245, 245), outline=dark, width=stroke / 4
    )
    canvas.fill(at(RING * 0.115 * size), look["iris"])
    canvas.fill(at(RING * 0.06 * size), (15, 15, 15))
    canvas.fill(at(RING * 0.03 + (0.04, -0.05)), (255, 255, 255))
    lid = [(-0.23, 0.02), (-0.12, -0.14), (0.1, -0.16), (0.24, 0.0)]
    canvas.line(at(curve(np.multiply(lid, size))), dark, stroke)


def _draw_mouth(canvas, at, look, stroke, spread):
    lips, dark = look["lips"], darker(look["lips"], 0.5)
    if look["mouth"] == "open":
        low = 0.14 + 0.1 * spread
        points = smooth(
            [(-0.3, 0), (0, 0.02), (0.3, 0), (0.2, low * 0.9), (0, low * 1.2), (-0.2, low * 0.9)]
        )
        canvas.fill(at(points), (40, 30, 90), outline=dark, width=stroke / 2)
        teeth = [(-0.23, 0.01), (0.23, 0.01), (0.18, 0.07), (-0.18, 0.07)]
        canvas.fill(at(teeth), (250, 250, 250))
        return
    rise = {"smile": 0.1 + 0.05 * spread, "neutral": 0.02}[look["mouth"]]
    shape = [(-0.32, -rise), (0, rise * 0.5), (0.32, -rise), (0, rise * 0.5 + 0.13)]
    canvas.fill(at(smooth(shape)), lips)
    canvas.line(
        at(curve([(-0.34, -rise - 0.01), (0, rise * 0.7 + 0.03), (0.34, -rise - 0.01)])),
        dark,
        stroke,
    )


def draw_head(canvas, face, look, *, labels, width, closed, spread, kind=None, seed=0):
    """Draw the head without its back hair; returns pixels (N, 2) of the facial features.

    `labels`: (body, face); `closed`: eyes shut; `spread`: how wide the mouth is, 0 .. 1.
    """
    body, label = labels
    skin, outline = look["skin"], darker(look["skin"], 0.4)
    for side in (-1, 1):
        ear = ellipse((side * 0.98 - 0.25 * face.yaw, 0.08), 0.17, 0.2)
        canvas.fill(face.flat(ear), skin, body, outline=outline, width=width)
    canvas.fill(face.flat(skull()), skin, label, outline=outline, width=width)
    shade = skull() * (0.93, 0.95)
    shade = np.concatenate([shade[1:8], (shade[1:8] * (0.82, 0.8))[::-1]])
    canvas.fill(face.flat(shade * (look["light"], 1)), darker(skin, 0.88))
    if look["blush"]:
        for side in (-1, 1):
            spot_color = tuple(
                0.82 * s + 0.18 * c for s, c in zip(skin, (110, 100, 230), strict=True)
            )
            canvas.fill(face.on(ellipse((side * 0.55, 0.3), 0.17, 0.1)), spot_color)
    if look["beard"]:
        low = skull()[1:14]
        inner = [(-0.8, 0.28), (-0.66, 0.5), (-0.42, 0.43), (0, 0.36)]
        inner += [(-u, v) for u, v in inner[-2::-1]]
        canvas.fill(face.flat(np.concatenate([low, inner])), darker(look["hair"], 0.95))
    draw_fringe(canvas, face, look, body, width)
    parts = features(kind, seed)
    for part in parts:
        draw_feature(
            canvas, face, part, look, label=label, width=width, closed=closed, spread=spread
        )
        canvas.mark(face.on(spot(RING * 0.2, *part[1:])), label)  # Also where it lies on hair.
    if look["glasses"]:
        _draw_glasses(canvas, face)
    return np.concatenate([face.on(spot(RING * 0.24, *part[1:])) for part in parts])


def _draw_glasses(canvas, face):
    stroke = max(1.0, face.height / 55)
    ink = (35, 35, 40)
    for side in (-1, 1):
        ring = face.on(ellipse((side * 0.42, -0.04), 0.31, 0.25))
        canvas.line(np.concatenate([ring, ring[:1]]), ink, stroke)
    canvas.line(face.on([(-0.12, -0.06), (0.12, -0.06)]), ink, stroke)


def draw_back_hair(canvas, face, look, label, width):
    """The hair behind head and shoulders; drawn before the body."""
    style, hair = look["style"], look["hair"]
    outline = darker(hair, 0.55)
    shapes = {
        "long": smooth([(-1.0, -0.7), (0, -1.2), (1.0, -0.7), (1.28, 0.4), (1.2, 1.7), (0.5, 1.85),
                        (-0.5, 1.85), (-1.2, 1.7), (-1.28, 0.4)]),
        "bob": smooth([(-1.0, -0.7), (0, -1.18), (1.0, -0.7), (1.3, 0.2), (1.15, 0.95), (0, 1.0),
                       (-1.15, 0.95), (-1.3, 0.2)]),
        "afro": ellipse((0, -0.42), 1.55, 1.12),
        "bun": ellipse((0, -1.25), 0.5, 0.42),
    }  # fmt: skip
    if style in shapes:
        canvas.fill(face.flat(shapes[style]), hair, label, outline=outline, width=width)


def draw_fringe(canvas, face, look, label, width):
    """The hair over the forehead, or a cap."""
    style, hair, yaw = look["style"], look["hair"], face.yaw
    if style == "bald":
        return
    outline = darker(hair, 0.55)
    arc = np.linspace(np.pi * 0.98, np.pi * 2.02, 11)
    top = np.stack([1.06 * np.cos(arc), 1.08 * np.sin(arc)], 1)
    part = 0.35 * np.sign(yaw + 1e-9)
    lines = {
        "short": [(0.93, -0.35), (0.6, -0.56), (0.1, -0.62), (-0.4, -0.6), (-0.93, -0.35)],
        "side": [(0.95, -0.1), (0.75, -0.55), (part, -0.75), (-0.5, -0.5), (-0.95, -0.1)],
        "long": [(0.98, 0.3), (0.84, -0.4), (part, -0.72), (-0.84, -0.4), (-0.98, 0.3)],
        "bob": [(0.98, 0.2), (0.86, -0.45), (0.3, -0.5), (-0.3, -0.5), (-0.86, -0.45),
                (-0.98, 0.2)],
        "bun": [(0.95, -0.25), (0.6, -0.62), (0, -0.74), (-0.6, -0.62), (-0.95, -0.25)],
        "afro": [(0.95, -0.25), (0.6, -0.55), (0, -0.62), (-0.6, -0.55), (-0.95, -0.25)],
        "spiky": [(0.95, -0.3), (0.62, -0.6), (0.4, -0.45), (0.15, -0.65), (-0.1, -0.45),
                  (-0.35, -0.65), (-0.62, -0.5), (-0.95, -0.3)],
        "cap": [(0.98, -0.42), (0.5, -0.5), (0, -0.52), (-0.5, -0.5), (-0.98, -0.42)],
    }  # fmt: skip
    if style == "spiky":
        top = top * np.where(np.arange(11) % 2, 1.2, 1.0)[:, None]
    if style == "cap":
        hair, outline = look["accent"], darker(look["accent"], 0.5)
    canvas.fill(
        face.flat(np.concatenate([top, lines[style]])),
        hair,
        label,
        outline=outline,
        width=width * 0.7,
    )
    if style == "cap":
        brim = ellipse((0.55 * np.sign(yaw + 1e-9) * min(1, abs(yaw) * 3), -0.5), 0.85, 0.13)
        canvas.fill(face.flat(brim), darker(hair, 0.7), label, outline=outline, width=width * 0.7)
    else:
        shine = np.stack([np.cos(arc[3:7]), np.sin(arc[3:7])], 1) * (0.75, 0.9)
        canvas.line(face.flat(shine * (-look["light"], 1)), darker(hair, 1.22), face.height / 28)

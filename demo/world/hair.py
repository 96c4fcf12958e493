"""Draws the hair behind the head, and the fringe or cap over the forehead."""

import numpy as np

from .canvas import darker, ellipse, smooth

# Points in the coordinates of `Face`: a row of u and a row of v. Behind the head: a closed curve.
BACK = {
    "long": (
        (-1.0, 0.0, 1.0, 1.28, 1.2, 0.5, -0.5, -1.2, -1.28),
        (-0.7, -1.2, -0.7, 0.4, 1.7, 1.85, 1.85, 1.7, 0.4),
    ),
    "bob": (
        (-1.0, 0.0, 1.0, 1.3, 1.15, 0.0, -1.15, -1.3),
        (-0.7, -1.18, -0.7, 0.2, 0.95, 1.0, 0.95, 0.2),
    ),
}
# The lower edge of the fringe, from image right to left.
FRINGE = {
    "short": ((0.93, 0.6, 0.1, -0.4, -0.93), (-0.35, -0.56, -0.62, -0.6, -0.35)),
    "side": ((0.95, 0.75, 0.0, -0.5, -0.95), (-0.1, -0.55, -0.75, -0.5, -0.1)),
    "long": ((0.98, 0.84, 0.0, -0.84, -0.98), (0.3, -0.4, -0.72, -0.4, 0.3)),
    "bob": ((0.98, 0.86, 0.3, -0.3, -0.86, -0.98), (0.2, -0.45, -0.5, -0.5, -0.45, 0.2)),
    "bun": ((0.95, 0.6, 0.0, -0.6, -0.95), (-0.25, -0.62, -0.74, -0.62, -0.25)),
    "afro": ((0.95, 0.6, 0.0, -0.6, -0.95), (-0.25, -0.55, -0.62, -0.55, -0.25)),
    "spiky": (
        (0.95, 0.62, 0.4, 0.15, -0.1, -0.35, -0.62, -0.95),
        (-0.3, -0.6, -0.45, -0.65, -0.45, -0.65, -0.5, -0.3),
    ),
    "cap": ((0.98, 0.5, 0.0, -0.5, -0.98), (-0.42, -0.5, -0.52, -0.5, -0.42)),
}


def draw_back_hair(canvas, face, look, label, width):
    """Draw the hair behind head and shoulders; to be called before the body is drawn.

    `label` marks its pixels, `width` is the outline's in pixels.
    """
    style, hair = look["style"], look["hair"]
    if style in BACK:
        shape = smooth(np.transpose(BACK[style]))
    elif style == "afro":
        shape = ellipse((0, -0.42), 1.55, 1.12)
    elif style == "bun":
        shape = ellipse((0, -1.25), 0.5, 0.42)
    else:
        return
    canvas.fill(face.flat(shape), hair, label, outline=darker(hair, 0.55), width=width)


def draw_fringe(canvas, face, look, label, width):
    """Draw the hair over the forehead, or a cap; arguments as in `draw_back_hair`."""
    style, hair = look["style"], look["hair"]
    if style == "bald":
        return
    if style == "cap":
        hair = look["accent"]
    outline = darker(hair, 0.5 if style == "cap" else 0.55)
    side = np.sign(face.yaw + 1e-9)
    edge = np.transpose(FRINGE[style])
    if style in ("side", "long"):
        edge[2, 0] = 0.35 * side  # the parting
    arc = np.linspace(np.pi * 0.98, np.pi * 2.02, 11)
    top = np.stack([1.06 * np.cos(arc), 1.08 * np.sin(arc)], 1)
    if style == "spiky":
        top = top * np.where(np.arange(11) % 2, 1.2, 1.0)[:, None]
    shape = face.flat(np.concatenate([top, edge]))
    canvas.fill(shape, hair, label, outline=outline, width=width * 0.7)
    if style == "cap":
        brim = ellipse((0.55 * side * min(1, abs(face.yaw) * 3), -0.5), 0.85, 0.13)
        canvas.fill(face.flat(brim), darker(hair, 0.7), label, outline=outline, width=width * 0.7)
    else:
        shine = np.stack([np.cos(arc[3:7]), np.sin(arc[3:7])], 1) * (0.75, 0.9)
        canvas.line(face.flat(shine * (-look["light"], 1)), darker(hair, 1.22), face.height / 28)

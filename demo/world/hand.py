"""Draws open hands, seen from the palm or the back, with any number of fingers.

Hand coordinates are shares of the hand's length: (towards the thumb, from the wrist to the tips).
"""

import numpy as np

from .canvas import capsule, darker, direction, smooth

PALM = np.transpose(
    [
        (-0.13, 0.13, 0.235, 0.245, 0.12, -0.12, -0.245, -0.215),
        (-0.05, -0.05, 0.18, 0.42, 0.53, 0.52, 0.42, 0.18),
    ]
)
# From index to little finger: base (two coordinates), angle in radians, length, radius.
FINGERS = np.array(
    [
        (0.185, 0.46, 0.36, 0.42, 0.060),
        (0.062, 0.50, 0.11, 0.48, 0.062),
        (-0.065, 0.49, -0.13, 0.45, 0.060),
        (-0.185, 0.44, -0.40, 0.37, 0.053),
    ]
)
THUMB = np.array([0.15, 0.17, 0.92, 0.42, 0.068])


def fingers_of(kind, u):
    """Return the fingers (N, 5) of a hand without its thumb, in rows like those of FINGERS.

    `kind` is an anomaly of the hand or None; `u` holds numbers in 0 .. 1 that vary it.
    """
    if kind == "three_fingers":
        return np.array([(0.125, 0.48, 0.26, 0.46, 0.076), (-0.125, 0.47, -0.28, 0.43, 0.072)])
    if kind != "extra_fingers":
        return FINGERS.copy()
    count = 5 + int(u[0] * 2.999)  # six to eight with the thumb
    place = np.linspace(-1, 1, count)[::-1]
    return np.stack(
        [
            0.225 * place,
            0.50 - 0.06 * place**2,
            (0.10 * count) * place,
            0.47 - 0.07 * place**2,
            np.full(count, 0.064 - 0.0035 * count),
        ],
        1,
    )


def _finger(row, bend):
    """Return a finger's two capsules (start, end, two radii) in hand coordinates, and its tip."""
    x, y, angle, length, radius = row
    base = np.array([x, y])
    middle = base + 0.52 * length * direction(angle)
    tip = middle + 0.48 * length * direction(angle + bend)
    return (base, middle, radius * 1.06, radius), (middle, tip, radius, radius * 0.86), tip


def draw_hand(canvas, arm, wrist, *, length, skin, label, width, kind, u):
    """Draw the hand of an `Arm`.

    `wrist`: (x, y) in pixels; `length`: pixels from the wrist to the tip of the middle finger;
    `skin`: BGR; `label`: of its pixels; `width`: of outlines, in pixels; `kind` and `u`: as in
    `fingers_of`.
    """
    along, settings = direction(arm.hand), arm.settings
    across = settings["thumb"] * np.array([along[1], -along[0]])

    def place(points):
        points = np.asarray(points) * length
        return wrist + points[..., :1] * across + points[..., 1:] * along

    def bar(spec):
        start, end, r0, r1 = spec
        return capsule(place(start), place(end), r0 * length, r1 * length)

    outline = darker(skin, 0.36)
    fingers = fingers_of(kind, u)
    fingers[:, 2] *= settings["spread"]
    palm = smooth(place(PALM))
    canvas.fill(palm, skin, label, outline=outline, width=width)
    bends = np.resize(settings["curl"], len(fingers) + 1)
    bars = [_finger(row, bend) for row, bend in zip(fingers, bends[1:], strict=True)]
    thumb = _finger(THUMB, bends[0] - 0.25)
    if kind == "fused_fingers":
        _draw_fused(canvas, bars, place, bar, (skin, outline, label, width), u)
    else:
        for first, second, _ in reversed(bars):
            canvas.union([bar(first), bar(second)], skin, label, outline=outline, width=width)
    canvas.union([bar(thumb[0]), bar(thumb[1])], skin, label, outline=outline, width=width)
    # The palm is painted again without outline, to cover the roots of the fingers.
    canvas.fill(smooth(place(PALM * (0.94, 0.97))), skin, label)
    _details(canvas, bars, place, settings, skin, length, fused=kind == "fused_fingers")


def _draw_fused(canvas, bars, place, bar, paint, u):
    """Draw four fingers that have grown together into one or two pieces."""
    skin, outline, label, width = paint
    first = (4, 3, 1)[int(u[0] * 2.999)]  # fingers in the first piece
    groups = [g for g in (range(first), range(first, 4)) if len(g)]
    for group in reversed(groups):
        rows = [bars[i] for i in group]
        shapes = [bar(part) for row in rows for part in row[:2]]
        if len(rows) > 1:
            roots = [row[0][0] for row in rows]
            tips = [row[2] - 0.08 * (row[2] - row[0][0]) for row in rows]
            shapes.append(place(np.array(roots + tips[::-1])))
        canvas.union(shapes, skin, label, outline=outline, width=width)


def _details(canvas, bars, place, settings, skin, length, *, fused):
    """Draw the creases of a palm, or the nails on the back of a large hand."""
    if settings["palm"]:
        crease = darker(skin, 0.72)
        lines = (
            [(0.2, 0.34), (0.06, 0.33), (-0.12, 0.39)],
            [(0.2, 0.28), (0.04, 0.24), (-0.04, 0.06)],
        )
        for points in lines:
            canvas.line(place(points), crease, length / 60)
    elif length > 58 and not fused:
        for _, (middle, tip, _, radius), _ in bars:
            start, end = tip - (tip - middle) * 0.15, tip + (tip - middle) * 0.04
            radii = radius * 0.55 * length, radius * 0.5 * length
            canvas.fill(capsule(place(start), place(end), *radii), darker(skin, 1.35))

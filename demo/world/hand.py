"""Open hands, seen from the palm or the back, with any number of fingers."""

import numpy as np

from .canvas import capsule, darker, direction, smooth

PALM = np.array(
    [
        (-0.13, -0.05), (0.13, -0.05), (0.235, 0.18), (0.245, 0.42), (0.12, 0.53),
        (-0.12, 0.52), (-0.245, 0.42), (-0.215, 0.18),
    ]
)  # fmt: skip
# Index to little finger: base (towards the thumb, along the hand), angle, length, radius.
FINGERS = np.array(
    [
        (0.185, 0.46, 0.36, 0.42, 0.060),
        (0.062, 0.50, 0.11, 0.48, 0.062),
        (-0.065, 0.49, -0.13, 0.45, 0.060),
        (-0.185, 0.44, -0.40, 0.37, 0.053),
    ]
)
THUMB = np.array([0.15, 0.17, 0.92, 0.42, 0.068])


def digits(kind, u):
    """Fingers (N, 5) and thumbs (M, 5) of a hand; `u`: four numbers in 0 .. 1."""
    thumbs = THUMB[None]
    if kind == "three_fingers":
        fingers = np.array([(0.125, 0.48, 0.26, 0.46, 0.076), (-0.125, 0.47, -0.28, 0.43, 0.072)])
        return fingers, thumbs
    if kind != "extra_fingers":
        return FINGERS, thumbs
    count = 5 + int(u[0] * 2.999)  # with the thumb six to eight
    place = np.linspace(-1, 1, count)[::-1]
    fingers = np.stack(
        [
            0.225 * place,
            0.50 - 0.06 * place**2,
            (0.10 * count) * place,
            0.47 - 0.07 * place**2,
            np.full(count, 0.064 - 0.0035 * count),
        ],
        1,
    )
    return fingers, thumbs


def _finger(row, bend, size):
    """Two capsules in hand coordinates, and the tip."""
    x, y, angle, length, radius = row
    base = np.array([x, y])
    middle = base + 0.52 * length * direction(angle)
    tip = middle + 0.48 * length * direction(angle + bend)
    return (base, middle, radius * 1.06, radius), (middle, tip, radius, radius * 0.86), tip


def draw_hand(canvas, wrist, angle, *, length, settings, skin, label, width, kind=None, u=()):
    """Draw one hand.

    `wrist`: pixels; `angle`: radians, 0 points down; `length`: pixels from wrist to the tip of the
    middle finger; `kind`: a hand anomaly or None; `u`: its four random numbers.
    """
    along = direction(angle)
    across = settings["thumb"] * np.array([along[1], -along[0]])

    def place(points):
        points = np.asarray(points) * length
        return wrist + points[..., :1] * across + points[..., 1:] * along

    def bar(spec):
        start, end, r0, r1 = spec
        return capsule(place(start), place(end), r0 * length, r1 * length)

    outline = darker(skin, 0.36)
    fingers, thumbs = digits(kind, u)
    fingers = fingers.copy()
    fingers[:, 2] *= settings["spread"]
    palm = smooth(place(PALM))
    canvas.fill(palm, skin, label, outline=outline, width=width)
    bends = np.resize(settings["curl"], len(fingers) + 1)
    bars = [_finger(row, bend, length) for row, bend in zip(fingers, bends[1:], strict=True)]
    thumb = _finger(thumbs[0], bends[0] - 0.25, length)
    if kind == "fused_fingers":
        _draw_fused(canvas, fingers, bars, place, bar, (skin, outline, label, width), u)
    else:
        for first, second, _ in reversed(bars):
            canvas.union([bar(first), bar(second)], skin, label, outline=outline, width=width)
    canvas.union([bar(thumb[0]), bar(thumb[1])], skin, label, outline=outline, width=width)
    # The palm again, without outline: it closes over the roots of the fingers.
    canvas.fill(smooth(place(PALM * (0.94, 0.97))), skin, label)
    _details(canvas, bars, place, settings, skin, length, fused=kind == "fused_fingers")


def _draw_fused(canvas, fingers, bars, place, bar, paint, u):
    """Fingers grown together into one or two paddles."""
    skin, outline, label, width = paint
    split = (4, 3, 1)[int(u[0] * 2.999)]  # all four; three and the little one; index and three
    groups = [g for g in (range(split), range(split, 4)) if len(g)]
    for group in reversed(groups):
        rows = [bars[i] for i in group]
        shapes = [bar(part) for row in rows for part in row[:2]]
        if len(rows) > 1:
            roots = [row[0][0] for row in rows]
            tips = [row[2] - 0.08 * (row[2] - row[0][0]) for row in rows]
            shapes.append(place(np.array(roots + tips[::-1])))
        canvas.union(shapes, skin, label, outline=outline, width=width)


def _details(canvas, bars, place, settings, skin, length, *, fused):
    """Creases of a palm, or nails on the back of a large hand."""
    if settings["palm"]:
        crease = darker(skin, 0.72)
        lines = (
            [(0.2, 0.34), (0.06, 0.33), (-0.12, 0.39)],
            [(0.2, 0.28), (0.04, 0.24), (-0.04, 0.06)],
        )
        for points in lines:
            canvas.line(place(points), crease, length / 60)
    elif length > 58 and not fused:
        for (_, _, _, _), (middle, tip, _, radius), _ in bars:
            end = tip + (tip - middle) * 0.04
            nail = capsule(place(tip - (tip - middle) * 0.15), place(end), radius * 0.55 * length,
                           radius * 0.5 * length)  # fmt: skip
            canvas.fill(nail, darker(skin, 1.35))

"""Draws the trunk: shirt and its pattern, neck, seat of the trousers, skirt."""

import numpy as np

from .canvas import capsule, darker, ellipse, smooth


def _mirror(half):
    """Return a closed outline of (across, up) from its right half, listed from top to bottom."""
    return [*half, *[(-w, v) for w, v in half[::-1] if w != 0]]


class _Trunk:
    """The coordinates of a trunk: across in body heights, up from 0 (pelvis) to 1 (neck)."""

    def __init__(self, person, pose):
        spine = pose.neck - pose.pelvis
        self.origin, self.span = pose.pelvis, np.hypot(*spine)
        self.up = spine / self.span
        self.right = np.array([-self.up[1], self.up[0]])
        self.across = pose.scale * (1 - 0.3 * abs(person.turn))  # narrower from the side

    def at(self, points):
        """Return the pixels (N, 2) of points (N, 2)."""
        points = np.asarray(points, float)
        across = points[:, :1] * self.across
        return self.origin + across * self.right + points[:, 1:] * self.span * self.up


def draw_trunk(canvas, person, pose, *, label, width, time):
    """Draw a person's trunk with its clothes; `width` is that of outlines, in pixels."""
    look, size, trunk = person.look, person.size, _Trunk(person, pose)
    shoulder, waist, hip = size["shoulder"], size["waist"], size["hip"]
    half = [
        (0.045, 1.03),
        (shoulder * 0.72, 0.985),
        (shoulder * 1.13, 0.9),
        (shoulder * 0.98, 0.74),
        (waist, 0.38),
        (hip * 1.12, 0.02),
        (hip * 1.12, -0.1),
    ]
    seat = _mirror([(waist * 0.9, 0.2), (hip, 0.0), (hip * 0.9, -0.2), (0.0, -0.24)])
    seat, outline = smooth(trunk.at(seat)), darker(look["bottom"], 0.42)
    canvas.fill(seat, look["bottom"], label, outline=outline, width=width)
    if look["legwear"] in ("skirt", "dress"):
        _draw_skirt(canvas, person, pose, trunk, label=label, width=width, time=time)
    shirt = smooth(trunk.at(_mirror(half)))
    canvas.fill(shirt, look["top"], label, outline=darker(look["top"], 0.42), width=width)
    _draw_pattern(canvas, look, trunk, half, pose.scale, width)
    top, low = pose.neck + trunk.up * pose.scale * 0.035, pose.neck - trunk.up * pose.scale * 0.02
    neck = capsule(top, low, pose.scale * 0.033, pose.scale * 0.04)
    skin = look["skin"]
    canvas.fill(neck, darker(skin, 0.9), label, outline=darker(skin, 0.4), width=width * 0.8)


def _draw_skirt(canvas, person, pose, trunk, *, label, width, time):
    hip, at = person.size["hip"], trunk.at
    long = 0.58 + 0.2 * (person.phase % 1)
    hem = at([(0.0, -long)])[0]
    sway = 0.008 * pose.scale * np.sin(4 * time + person.phase)
    # The hem is as wide as the thighs are apart there, so that no leg sticks out at the side.
    reach = [0.0]
    for leg in pose.legs:
        share = np.clip((hem[1] - leg.hip[1]) / max(1.0, leg.knee[1] - leg.hip[1]), 0, 1)
        reach.append(leg.hip[0] + share * (leg.knee[0] - leg.hip[0]) - hem[0])
    room = 0.06 * pose.scale * person.size["limb"]
    left, right = min(reach) - room + sway, max(reach) + room + sway
    top = at(_mirror([(hip * 0.9, 0.28), (hip * 1.12, 0.0)]))
    low = hem + np.array([(right, -2.0), (sway, 0.012 * pose.scale), (left, -2.0)])
    color = person.look["bottom"]
    outline = np.concatenate([top[:2], low, top[2:]])
    canvas.fill(outline, color, label, outline=darker(color, 0.42), width=width)
    for fold in (0.25, 0.5, 0.75):
        start = at([((2 * fold - 1) * hip, -0.12)])[0]
        end = low[2] + fold * (low[0] - low[2])
        canvas.line([start, end], darker(color, 0.8), width * 1.5)


def _draw_pattern(canvas, look, trunk, half, scale, width):
    """Draw the shirt's shaded side and its pattern; `half` is the right half of its outline."""
    name, accent, at = look["pattern"], look["accent"], trunk.at
    inner = [(w * 0.55, v) for w, v in half[1:]][::-1]
    side = np.array(half[1:] + inner) * (look["light"], 1)
    canvas.fill(at(side), darker(look["top"], 0.9))

    def spot(across, up, radius):
        canvas.fill(ellipse(at([(across, up)])[0], radius * scale, radius * scale), accent)

    if name == "stripes":
        rows = np.array(half)[::-1]
        for v in np.arange(0.08, 0.95, 0.14):
            w = np.interp(v, rows[:, 1], rows[:, 0]) * 0.96
            canvas.line(at([(-w, v), (w, v)]), accent, scale * 0.012)
    elif name == "jacket":
        strip = [(-0.045, 1.0), (0.045, 1.0), (0.04, -0.05), (-0.04, -0.05)]
        canvas.fill(at(strip), accent, outline=darker(look["top"], 0.5), width=width * 0.7)
    elif name == "buttons":
        canvas.line(at([(0, 0.97), (0, -0.08)]), darker(look["top"], 0.6), width)
        for v in np.arange(0.05, 0.95, 0.17):
            spot(0.012, v, 0.006)
    elif name == "logo":
        spot(0, 0.66, 0.035)
    elif name == "dots":
        for v in np.arange(0.1, 0.9, 0.16):
            for u in (-0.055, 0.0, 0.055):
                spot(u, v, 0.008)

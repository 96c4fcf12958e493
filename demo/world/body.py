"""Draws one person: limbs, clothes, and the order in which they cover each other."""

from dataclasses import dataclass, replace

import numpy as np

from .canvas import capsule, darker, direction, ellipse, smooth
from .hand import draw_hand
from .head import Face, draw_back_hair, draw_head, melt
from .skeleton import FOOT

# Labels of a person are consecutive, from 1 + IDS * index on.
BODY, FACE, HANDS, ODD = 0, 1, (2, 3, 4), 5
IDS = 6


@dataclass
class Drawn:
    """What was drawn of a person: unoccluded label pixels of each hand, points of the features."""

    hand_pixels: dict
    features: np.ndarray


class _Painter:
    def __init__(self, canvas, person, pose, base, time):
        self.canvas, self.person, self.pose, self.base, self.time = canvas, person, pose, base, time
        self.look, self.scale = person.look, pose.scale
        self.limb = pose.scale * person.size["limb"]
        self.width = max(0.8, pose.scale * 0.0034)
        self.hand_pixels = {}

    def cloth(self, color, front=True):
        return color if front else darker(color, 0.85)

    def segment(self, shapes, color, label):
        """A limb's segments as one shape, with a shaded side."""
        outline = darker(color, 0.42)
        self.canvas.union(
            [capsule(*s) for s in shapes], color, label, outline=outline, width=self.width
        )
        for start, end, r0, r1 in shapes:
            along = np.subtract(end, start)
            along = along / max(1e-6, np.hypot(*along))
            across = np.array([-along[1], along[0]])
            across = across * (np.sign(across[0] * self.look["light"]) or 1)
            shift = 0.42
            self.canvas.fill(
                capsule(start + across * r0 * shift, end + across * r1 * shift, r0 * 0.5, r1 * 0.5),
                darker(color, 0.87),
            )

    # Arms.

    def arm(self, arm):
        skin = self.cloth(self.look["skin"], arm.front)
        odd = arm.role != "arm"
        upper_label = self.base + (ODD if arm.role == "extra" else BODY)
        lower_label = self.base + (ODD if odd else BODY)
        top, elbow, low = 0.034 * self.limb, 0.027 * self.limb, 0.021 * self.limb
        gap = arm.gap if arm.gap is not None else np.zeros(2)
        sleeve, color = self.look["sleeve"], self.cloth(self.look["top"], arm.front)
        upper = (arm.shoulder, arm.elbow, top, elbow)
        lower = (arm.elbow + gap, arm.wrist + gap, elbow, low)
        if sleeve == "long":
            self.segment([lower], skin, lower_label)
            self.hand(arm, arm.wrist + gap, skin, low)
            cuff = arm.elbow + 0.9 * (arm.wrist - arm.elbow) + gap
            lower = (lower[0], cuff, elbow * 1.14, low * 1.3)
            upper = (*upper[:2], top * 1.14, elbow * 1.14)
            self.limb_pair(upper, lower, color, upper_label, lower_label, arm.gap)
        else:
            self.limb_pair(upper, lower, skin, upper_label, lower_label, arm.gap)
            self.hand(arm, arm.wrist + gap, skin, low)
        if sleeve == "short":
            end = arm.shoulder + 0.6 * (arm.elbow - arm.shoulder)
            self.segment([(arm.shoulder, end, top * 1.2, top * 1.16)], color, upper_label)
        if sleeve != "none" and arm.front:  # No seam between sleeve and shirt.
            inward = 0.6 * (self.pose.neck - arm.shoulder) * (0.25, 0) + (0, 0.006 * self.scale)
            self.canvas.fill(ellipse(arm.shoulder + inward, top, top * 0.95), color)

    def limb_pair(self, upper, lower, color, upper_label, lower_label, gap):
        """Two segments: joined as one shape, or apart when there is a gap."""
        if gap is not None:
            self.segment([lower], color, lower_label)
            self.segment([upper], color, upper_label)
            return
        self.segment([upper, lower], color, upper_label)
        if lower_label != upper_label:
            self.canvas.mark(capsule(*lower), lower_label)

    def hand(self, arm, wrist, skin, radius):
        person = self.person
        kind = person.kind_of("hand")
        odd = person.odd.get(kind)
        spoiled = odd is not None and arm.index < 2 and (odd["both"] or odd["arm"] == arm.index)
        label = self.base + HANDS[arm.index]
        length = self.scale * person.size["hand"]
        draw_hand(
            self.canvas, wrist, arm.hand, length=length, settings=arm.settings, skin=skin,
            label=label, width=self.width * 0.8, kind=kind if spoiled else None,
            u=odd["u"] if spoiled else (),
        )  # fmt: skip
        back = direction(arm.hand) * length  # No seam between forearm and palm.
        joint = capsule(wrist - 0.13 * back, wrist + 0.1 * back, radius * 0.96, radius)
        self.canvas.fill(joint, skin)
        self.hand_pixels[arm.index] = self.canvas.count(label)

    # Legs.

    def leg(self, leg):
        label = self.base + BODY
        lower_label = self.base + (ODD if leg.role == "odd" else BODY)
        skin = self.cloth(self.look["skin"], leg.front)
        color = self.cloth(self.look["bottom"], leg.front)
        hip, knee, ankle = 0.054 * self.limb, 0.041 * self.limb, 0.027 * self.limb
        gap = leg.gap if leg.gap is not None else np.zeros(2)
        wear = self.look["legwear"]
        if leg.missing is not None:
            end = leg.hip + leg.missing * (leg.knee - leg.hip)
            cloth = skin if wear == "shorts" else color
            self.segment([(leg.hip, end, hip, knee * 1.1)], cloth, label)
            if wear == "shorts":
                self.shorts(
                    replace(leg, knee=leg.hip + 0.8 * (end - leg.hip)), hip, knee, color, label
                )
            along = (end - leg.hip) / np.hypot(*(end - leg.hip)) * knee
            cap = ellipse(
                end + 0.7 * along, knee * 0.75, knee * 0.4, np.arctan2(*along[::-1]) - np.pi / 2
            )
            self.canvas.fill(cap, darker(cloth, 0.8))
            return
        low = leg.knee
        if leg.gap is not None:  # A short thigh leaves a gap, and the foot stays on the ground.
            leg = replace(leg, knee=leg.hip + 0.55 * (leg.knee - leg.hip))
        upper = (leg.hip, leg.knee, hip, knee)
        if wear in ("skirt", "dress"):  # The cloth hides the rest.
            upper = (leg.hip + 0.4 * (leg.knee - leg.hip), leg.knee, 0.6 * hip + 0.4 * knee, knee)
        lower = (low + gap, leg.ankle + gap, knee, ankle)
        self.shoe(leg, gap, lower_label)
        if wear == "trousers":
            lower = (*lower[:2], knee * 1.05, ankle * 1.35)
            self.limb_pair(upper, lower, color, label, lower_label, leg.gap)
            return
        self.limb_pair(upper, lower, skin, label, lower_label, leg.gap)
        if wear == "shorts":
            self.shorts(leg, hip, knee, color, label)

    def shorts(self, leg, hip, knee, color, label):
        end = leg.hip + 0.62 * (leg.knee - leg.hip)
        self.segment([(leg.hip, end, hip * 1.08, (hip + knee) * 0.62)], color, label)

    def shoe(self, leg, gap, label):
        down = direction(leg.shank)
        ahead = np.array([down[1], -down[0]]) * (np.sign(leg.toe) or 1)
        reach = 0.035 + 0.055 * abs(leg.toe)
        size, heel = self.scale, leg.ankle + gap
        sole = heel + down * size * FOOT * 0.95
        points = [
            heel - ahead * size * 0.03, heel + ahead * size * 0.028,
            heel + ahead * size * reach + down * size * 0.022,
            sole + ahead * size * (reach + 0.008) - down * size * 0.006,
            sole + ahead * size * reach * 0.6, sole - ahead * size * 0.032,
            sole - ahead * size * 0.038 - down * size * 0.015,
        ]  # fmt: skip
        color = self.cloth(self.look["shoe"], leg.front)
        self.canvas.fill(smooth(points), color, label, outline=darker(color, 0.4), width=self.width)
        stripe = [sole - ahead * size * 0.034, sole + ahead * size * (reach + 0.002)]
        self.canvas.line(
            np.array(stripe) - down * size * 0.008, darker(color, 1.5), self.width * 1.6
        )

    # Trunk.

    def trunk(self):
        person, pose, look = self.person, self.pose, self.look
        label = self.base + BODY
        narrow = 1 - 0.3 * abs(person.turn)
        up = (pose.neck - pose.pelvis) / np.hypot(*(pose.neck - pose.pelvis))
        right = np.array([-up[1], up[0]])
        span = np.hypot(*(pose.neck - pose.pelvis))

        def at(rows):
            rows = np.asarray(rows, float)
            across = rows[:, :1] * self.scale * narrow
            return pose.pelvis + across * right + rows[:, 1:] * span * up

        size = person.size
        shoulder, waist, hip = size["shoulder"], size["waist"], size["hip"]
        half = [
            (0.045, 1.03), (shoulder * 0.72, 0.985), (shoulder * 1.13, 0.9),
            (shoulder * 0.98, 0.74), (waist, 0.38), (hip * 1.12, 0.02), (hip * 1.12, -0.1),
        ]  # fmt: skip
        outline = darker(look["bottom"], 0.42)
        seat = [(waist * 0.9, 0.2), (hip * 1.0, 0.0), (hip * 0.9, -0.2), (0.0, -0.24)]
        self.canvas.fill(
            smooth(at(_mirror(seat))), look["bottom"], label, outline=outline, width=self.width
        )
        if look["legwear"] in ("skirt", "dress"):
            self.skirt(at, hip)
        neck = capsule(pose.neck + up * self.scale * 0.035, pose.neck - up * self.scale * 0.02,
                       self.scale * 0.033, self.scale * 0.04)  # fmt: skip
        outline = darker(look["top"], 0.42)
        self.canvas.fill(
            smooth(at(_mirror(half))), look["top"], label, outline=outline, width=self.width
        )
        self.pattern(at, half)
        skin = look["skin"]
        self.canvas.fill(
            neck, darker(skin, 0.9), label, outline=darker(skin, 0.4), width=self.width * 0.8
        )

    def skirt(self, at, hip):
        label = self.base + BODY
        long = 0.58 + 0.2 * (self.person.phase % 1)
        hem = at([(0.0, -long)])[0]
        sway = 0.008 * self.scale * np.sin(4 * self.time + self.person.phase)
        # As wide as the thighs are apart at the hem, so that no leg sticks out at the side.
        reach = [0.0]
        for leg in self.pose.legs:
            share = np.clip((hem[1] - leg.hip[1]) / max(1.0, leg.knee[1] - leg.hip[1]), 0, 1)
            reach.append(leg.hip[0] + share * (leg.knee[0] - leg.hip[0]) - hem[0])
        room = 0.06 * self.limb
        left, right = min(reach) - room + sway, max(reach) + room + sway
        top = at(_mirror([(hip * 0.9, 0.28), (hip * 1.12, 0.0)]))
        low = hem + np.array([(right, -2.0), (sway, 0.012 * self.scale), (left, -2.0)])
        rows = np.concatenate([top[:2], low, top[2:]])
        color = self.look["bottom"]
        self.canvas.fill(rows, color, label, outline=darker(color, 0.42), width=self.width)
        for fold in (0.25, 0.5, 0.75):
            start = at([((2 * fold - 1) * hip, -0.12)])[0]
            end = low[2] + fold * (low[0] - low[2])
            self.canvas.line([start, end], darker(color, 0.8), self.width * 1.5)

    def pattern(self, at, half):
        look, canvas = self.look, self.canvas
        name, accent = look["pattern"], look["accent"]
        shade = [(w, v) for w, v in half[1:]]
        inner = [(w * 0.55, v) for w, v in half[1:]][::-1]
        side = np.array(shade + inner) * (look["light"], 1)
        canvas.fill(at(side), darker(look["top"], 0.9))
        rows = np.array(half)[::-1]
        if name == "stripes":
            for v in np.arange(0.08, 0.95, 0.14):
                w = np.interp(v, rows[:, 1], rows[:, 0]) * 0.96
                canvas.line(at([(-w, v), (w, v)]), accent, self.scale * 0.012)
        elif name == "jacket":
            strip = [(-0.045, 1.0), (0.045, 1.0), (0.04, -0.05), (-0.04, -0.05)]
            canvas.fill(at(strip), accent, outline=darker(look["top"], 0.5), width=self.width * 0.7)
        elif name == "buttons":
            canvas.line(at([(0, 0.97), (0, -0.08)]), darker(look["top"], 0.6), self.width)
            for v in np.arange(0.05, 0.95, 0.17):
                canvas.fill(ellipse(at([(0.012, v)])[0], *[self.scale * 0.006] * 2), accent)
        elif name == "logo":
            canvas.fill(ellipse(at([(0, 0.66)])[0], *[self.scale * 0.035] * 2), accent)
        elif name == "dots":
            for v in np.arange(0.1, 0.9, 0.16):
                for u in (-0.055, 0.0, 0.055):
                    canvas.fill(ellipse(at([(u, v)])[0], *[self.scale * 0.008] * 2), accent)


def _mirror(half):
    """A closed outline from its right half, listed from top to bottom."""
    return [*half, *[(-w, v) for w, v in half[::-1] if w != 0]]


def draw_person(canvas, person, pose, base, time):
    """Draw one person with labels from `base` on; returns Drawn."""
    paint = _Painter(canvas, person, pose, base, time)
    kind = person.kind_of("face")
    odd = person.odd.get(kind)
    warp = melt(odd["u"]) if kind == "melted" else None
    face = Face(pose.head, pose.scale * person.size["head"], pose.tilt, pose.yaw, warp)
    hair = Face(pose.head, pose.scale * person.size["head"], pose.tilt, pose.yaw)
    draw_back_hair(canvas, hair, person.look, base + BODY, paint.width)
    for arm in pose.arms:
        if not arm.front:
            paint.arm(arm)
    for leg in sorted(pose.legs, key=lambda leg: (leg.front, leg.role == "odd")):
        paint.leg(leg)
    paint.trunk()
    frame = int(time * 24)
    closed = frame % 60 in range(person.look["blink"], person.look["blink"] + 3)
    features = draw_head(
        canvas, face, person.look, labels=(base + BODY, base + FACE), width=paint.width,
        closed=closed, spread=0.5 + 0.5 * np.sin(2.2 * time + person.phase), kind=kind,
        seed=odd["seed"] if odd else 0,
    )  # fmt: skip
    for arm in sorted(pose.arms, key=lambda arm: arm.role == "extra", reverse=True):
        if arm.front:
            paint.arm(arm)
    return Drawn(paint.hand_pixels, features)

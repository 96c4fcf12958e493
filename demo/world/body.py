"""Draws one person: limbs and their clothes, and the order in which parts cover each other."""

from dataclasses import dataclass, replace

import numpy as np

from .canvas import capsule, darker, direction, ellipse, smooth
from .hair import draw_back_hair
from .hand import draw_hand
from .head import Face, draw_head, melt
from .skeleton import FOOT
from .trunk import draw_trunk

# Person i of a picture has IDS labels, the first of which is 1 + IDS * i. These numbers are added
# to it, one per kind of part; ODD is for the limb that is an anomaly.
BODY, FACE, HANDS, ODD = 0, 1, (2, 3, 4), 5
IDS = 6


@dataclass
class Drawn:
    """What was drawn of a person, hidden parts included."""

    hand_pixels: dict  # {index of the hand: how many label pixels it has}
    features: np.ndarray  # (N, 2) points in pixels around the features of the face


class _Limbs:
    """Draws arms and legs of a person."""

    def __init__(self, canvas, person, pose, base):
        self.canvas, self.person, self.pose, self.base = canvas, person, pose, base
        self.look, self.scale = person.look, pose.scale
        self.limb = pose.scale * person.size["limb"]  # the limbs' radii are shares of this
        self.width = max(0.8, pose.scale * 0.0034)  # of outlines, in pixels
        self.hand_pixels = {}

    def shade(self, color, front):
        """Return a BGR colour, darker for a limb behind the body."""
        return color if front else darker(color, 0.85)

    def segment(self, shapes, color, label):
        """Draw segments (start, end, two radii in pixels) as one shape with a shaded side."""
        bars, outline = [capsule(*s) for s in shapes], darker(color, 0.42)
        self.canvas.union(bars, color, label, outline=outline, width=self.width)
        for start, end, r0, r1 in shapes:
            along = np.subtract(end, start)
            along = along / max(1e-6, np.hypot(*along))
            across = np.array([-along[1], along[0]])
            across = across * (np.sign(across[0] * self.look["light"]) or 1)
            middle = start + across * r0 * 0.42, end + across * r1 * 0.42
            self.canvas.fill(capsule(*middle, r0 * 0.5, r1 * 0.5), darker(color, 0.87))

    def arm(self, arm):
        skin = self.shade(self.look["skin"], arm.front)
        upper_label = self.base + (ODD if arm.role == "extra" else BODY)
        lower_label = self.base + (ODD if arm.role != "arm" else BODY)
        top, elbow, low = 0.034 * self.limb, 0.027 * self.limb, 0.021 * self.limb
        gap = arm.gap if arm.gap is not None else np.zeros(2)
        sleeve, color = self.look["sleeve"], self.shade(self.look["top"], arm.front)
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
        if sleeve != "none" and arm.front:  # hides the seam between sleeve and shirt
            inward = 0.6 * (self.pose.neck - arm.shoulder) * (0.25, 0) + (0, 0.006 * self.scale)
            self.canvas.fill(ellipse(arm.shoulder + inward, top, top * 0.95), color)

    def limb_pair(self, upper, lower, color, upper_label, lower_label, gap):
        """Draw two segments as one shape, or apart where the lower one is detached."""
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
        odd = person.anomalies.get(kind)
        abnormal = odd is not None and arm.index < 2 and (odd["both"] or odd["arm"] == arm.index)
        label = self.base + HANDS[arm.index]
        length = self.scale * person.size["hand"]
        draw_hand(
            self.canvas,
            arm,
            wrist,
            length=length,
            skin=skin,
            label=label,
            width=self.width * 0.8,
            kind=kind if abnormal else None,
            u=odd["u"] if abnormal else (),
        )
        back = direction(arm.hand) * length  # hides the seam between forearm and palm
        joint = capsule(wrist - 0.13 * back, wrist + 0.1 * back, radius * 0.96, radius)
        self.canvas.fill(joint, skin)
        self.hand_pixels[arm.index] = self.canvas.count(label)

    def leg(self, leg):
        label = self.base + BODY
        lower_label = self.base + (ODD if leg.role == "odd" else BODY)
        skin = self.shade(self.look["skin"], leg.front)
        color = self.shade(self.look["bottom"], leg.front)
        hip, knee, ankle = 0.054 * self.limb, 0.041 * self.limb, 0.027 * self.limb
        gap = leg.gap if leg.gap is not None else np.zeros(2)
        wear = self.look["legwear"]
        if leg.missing is not None:
            self.stump(leg, hip, knee, skin if wear == "shorts" else color, color)
            return
        low = leg.knee
        if leg.gap is not None:  # a shorter thigh leaves a gap while the foot stays on the ground
            leg = replace(leg, knee=leg.hip + 0.55 * (leg.knee - leg.hip))
        upper = (leg.hip, leg.knee, hip, knee)
        if wear in ("skirt", "dress"):  # the cloth hides the rest
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

    def stump(self, leg, hip, knee, cloth, color):
        """Draw what remains of a thigh; `cloth` is its colour, `color` that of shorts."""
        label = self.base + BODY
        end = leg.hip + leg.missing * (leg.knee - leg.hip)
        self.segment([(leg.hip, end, hip, knee * 1.1)], cloth, label)
        if self.look["legwear"] == "shorts":
            hem = replace(leg, knee=leg.hip + 0.8 * (end - leg.hip))
            self.shorts(hem, hip, knee, color, label)
        along = (end - leg.hip) / np.hypot(*(end - leg.hip)) * knee
        angle = np.arctan2(*along[::-1]) - np.pi / 2
        cap = ellipse(end + 0.7 * along, knee * 0.75, knee * 0.4, angle)
        self.canvas.fill(cap, darker(cloth, 0.8))

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
            heel - ahead * size * 0.03,
            heel + ahead * size * 0.028,
            heel + ahead * size * reach + down * size * 0.022,
            sole + ahead * size * (reach + 0.008) - down * size * 0.006,
            sole + ahead * size * reach * 0.6,
            sole - ahead * size * 0.032,
            sole - ahead * size * 0.038 - down * size * 0.015,
        ]
        color = self.shade(self.look["shoe"], leg.front)
        self.canvas.fill(smooth(points), color, label, outline=darker(color, 0.4), width=self.width)
        up = down * size * 0.008
        stripe = [sole - ahead * size * 0.034 - up, sole + ahead * size * (reach + 0.002) - up]
        self.canvas.line(stripe, darker(color, 1.5), self.width * 1.6)


def draw_person(canvas, person, pose, base, time):
    """Draw one person as at `time` seconds, with labels from `base` on; return what was drawn."""
    limbs = _Limbs(canvas, person, pose, base)
    look, width = person.look, limbs.width
    kind = person.kind_of("face")
    odd = person.anomalies.get(kind)
    head = Face(pose.head, pose.scale * person.size["head"], pose.tilt, pose.yaw)
    draw_back_hair(canvas, head, look, base + BODY, width)
    for arm in pose.arms:
        if not arm.front:
            limbs.arm(arm)
    for leg in sorted(pose.legs, key=lambda leg: (leg.front, leg.role == "odd")):
        limbs.leg(leg)
    draw_trunk(canvas, person, pose, label=base + BODY, width=width, time=time)
    if kind == "melted":
        head.warp = melt(odd["u"])
    features = draw_head(
        canvas,
        head,
        look,
        labels=(base + BODY, base + FACE),
        width=width,
        closed=int(time * 24) % 60 in range(look["blink"], look["blink"] + 3),
        spread=0.5 + 0.5 * np.sin(2.2 * time + person.phase),
        kind=kind,
        seed=odd["seed"] if odd else 0,
    )
    for arm in sorted(pose.arms, key=lambda arm: arm.role == "extra", reverse=True):
        if arm.front:
            limbs.arm(arm)
    return Drawn(limbs.hand_pixels, features)

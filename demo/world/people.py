"""Samples drawn people: proportions, skin, hair, clothes, how the limbs move, and anomalies."""

from dataclasses import dataclass, field

import cv2
import numpy as np

from .anomalies import PART_OF

# RGB in hex, skins from light to dark.
SKINS = ("ffe0c4", "f6cdac", "e8b890", "d6a076", "be845c", "9e6846", "7a4e36", "603e2e")
HAIRS = ("261e1c", "422c20", "684228", "966234", "d6ac60", "b04a24", "969698", "e2ded6", "543a78")
IRISES = ("466e96", "503c28", "3c6e46", "322824", "645a3c")
HAIR_STYLES = ("short", "side", "long", "bun", "afro", "spiky", "bob", "cap", "bald")


@dataclass
class Person:
    """What stays the same through a video. Lengths in `size` are shares of the body height."""

    height: float  # of the body, in pixels
    x: float  # of the pelvis at the first frame, in pixels
    floor: float  # y of the ground under the lower foot, in pixels
    turn: float  # -1 faces image left, 0 the camera, 1 image right
    gait: str  # "walk", "front" (walks towards the camera) or "stand"
    speed: float  # body heights per second, positive to image right
    phase: float  # of the walk, in radians
    arms: list  # settings of the arm at image left and of the one at image right, see `_arm`
    size: dict  # see `sample_size`
    look: dict  # see `sample_look`
    anomalies: dict = field(default_factory=dict)  # {kind: its parameters, see `_add_anomaly`}

    def kind_of(self, part):
        """Return this person's kind of anomaly of `part`, or None."""
        return next((kind for kind in self.anomalies if PART_OF[kind] == part), None)


def bgr(rgb, rng=None, jitter=0.0):
    """Return an RGB hex colour as BGR floats, brightness and tint varied by a share of `jitter`."""
    color = np.array([*bytes.fromhex(rgb)][::-1], float)
    if rng is not None:
        color = color * (1 + rng.normal(0, jitter)) + rng.normal(0, 40 * jitter, 3)
    return tuple(float(c) for c in np.clip(color, 12, 250))


def hsv(hue, saturation, value):
    """Return BGR floats (0 .. 255) of hue, saturation and value in 0 .. 1."""
    pixel = np.uint8([[[hue * 179, saturation * 255, value * 255]]])
    return tuple(float(c) for c in cv2.cvtColor(pixel, cv2.COLOR_HSV2BGR)[0, 0])


def _cloth(rng):
    if rng.random() < 0.2:
        return hsv(rng.random(), rng.uniform(0, 0.12), rng.uniform(0.2, 0.95))
    return hsv(rng.random(), rng.uniform(0.3, 0.85), rng.uniform(0.3, 0.95))


def sample_look(rng):
    """Return colours (BGR), clothes, hair and features of the face of one person."""
    skin = bgr(SKINS[rng.integers(len(SKINS))], rng, 0.04)
    hair = bgr(HAIRS[rng.choice(len(HAIRS), p=[0.2, 0.2, 0.15, 0.1, 0.1, 0.08, 0.07, 0.06, 0.04])])
    top, bottom = _cloth(rng), _cloth(rng)
    legwear = rng.choice(["trousers", "trousers", "shorts", "skirt", "dress"])
    return {
        "skin": skin,
        "hair": hair,
        "style": rng.choice(HAIR_STYLES, p=[0.18, 0.15, 0.16, 0.1, 0.1, 0.1, 0.12, 0.05, 0.04]),
        "iris": bgr(IRISES[rng.integers(len(IRISES))]),
        "top": top,
        "accent": _cloth(rng),
        "bottom": top if legwear == "dress" else bottom,
        "legwear": legwear,
        "shoe": _cloth(rng),
        "sleeve": rng.choice(["short", "long", "long", "none"]),
        "pattern": rng.choice(["plain", "plain", "stripes", "logo", "buttons", "jacket", "dots"]),
        "glasses": rng.random() < 0.15,
        "beard": rng.random() < 0.12,
        "lips": bgr("cd5c5c", rng, 0.08),
        "mouth": rng.choice(["smile", "smile", "open", "neutral"]),
        "blush": rng.random() < 0.4,
        "brow_tilt": rng.uniform(-0.06, 0.08),
        "eye": rng.uniform(0.9, 1.12),
        "nose": rng.uniform(0.85, 1.15),
        "light": float(rng.choice([-1, 1])),
        "blink": rng.integers(10, 60),
    }


def sample_size(rng):
    """Return the proportions of one person, shares of the body height; `limb` is a factor."""
    build = rng.uniform(0.88, 1.25)
    return {
        "head": rng.uniform(0.168, 0.19),
        "shoulder": rng.uniform(0.108, 0.128) * (0.7 + 0.3 * build),
        "waist": 0.082 * build * rng.uniform(0.92, 1.08),
        "hip": 0.088 * (0.6 + 0.4 * build),
        "leg": rng.uniform(0.455, 0.485),
        "arm": rng.uniform(0.315, 0.335),
        "limb": 0.75 + 0.25 * build,
        "hand": rng.uniform(0.14, 0.158),
    }


def _arm(rng, side, turn, gait):
    """Return how the arm at an image side (-1 left, 1 right) and its hand are held."""
    mode = rng.choice(["swing", "wave", "out"], p=[0.4, 0.33, 0.27])
    # The thumb of a raised hand is next to the head, that of a lowered hand points forward or
    # inward. 1 puts it on the side towards which the hand's angle grows.
    facing = 1 if turn >= 0 else -1
    lowered = facing if gait == "walk" else -side
    return {
        "mode": mode,
        "lift": rng.random(),
        "flex": rng.random(),
        "rate": rng.uniform(0.8, 1.8),
        "phase": rng.uniform(0, 2 * np.pi),
        "thumb": float(lowered if mode == "swing" else side),
        "palm": bool(rng.random() < 0.5),
        "spread": rng.uniform(0.85, 1.2),
        "curl": rng.normal(0, 0.07, 5).tolist(),
        "twist": rng.normal(0, 0.12),
    }


def sample_person(rng, *, height, x, floor, kinds=()):
    """Return a Person at a place, posed so that the anomalies `kinds` can be seen.

    `height`, `x` and `floor` are in pixels, see `Person`.
    """
    gait = rng.choice(["walk", "front", "stand"], p=[0.42, 0.18, 0.4])
    if {"missing_lower_leg", "detached"} & set(kinds):  # the legs of a walker would hide it
        gait = rng.choice(["front", "stand"])
    if gait == "walk":
        turn = float(rng.choice([-1, 1])) * rng.uniform(0.5, 1.0)
        speed = float(np.sign(turn) * rng.uniform(0.25, 0.5))
    else:
        turn, speed = rng.uniform(-0.4, 0.4), 0.0
    person = Person(
        height=height,
        x=x,
        floor=floor,
        turn=turn,
        gait=gait,
        speed=speed,
        phase=rng.uniform(0, 2 * np.pi),
        arms=[_arm(rng, side, turn, gait) for side in (-1, 1)],
        size=sample_size(rng),
        look=sample_look(rng),
    )
    # Nothing uses these two numbers, but without them all later random numbers would change.
    rng.integers(1 << 31), rng.integers(1 << 31)
    for kind in kinds:
        _add_anomaly(rng, person, kind)
    return person


def _add_anomaly(rng, person, kind):
    """Give the person an anomaly with random parameters.

    "u": four numbers in 0 .. 1 that vary the drawing; "arm" and "leg": the index of the limb that
    shows it; "seed": of a face's variant; "both": whether both hands show it.
    """
    near_arm = 0 if person.turn > 0 else 1  # the one that is drawn in front of the body
    settings = {
        "u": rng.random(4).tolist(),
        "arm": near_arm if abs(person.turn) > 0.45 else int(rng.integers(2)),
        "leg": int(rng.integers(2)),
        "seed": int(rng.integers(1 << 31)),
        "both": False,
    }
    person.anomalies[kind] = settings
    if kind == "detached":  # held away from the body, so that the gap can be seen
        person.arms[settings["arm"]]["mode"] = rng.choice(["out", "wave"])
    hides_legs = person.look["legwear"] in ("skirt", "dress")
    if kind in ("missing_lower_leg", "detached") and hides_legs:
        person.look["legwear"] = "shorts"

"""Puts people, background and camera together: frames of videos and their exact truth."""

import cv2
import numpy as np

from .anomalies import KINDS, PART_OF, choose
from .body import FACE, HANDS, IDS, ODD, draw_person
from .canvas import LABEL_SCALE, Canvas
from .people import sample_person
from .scene import PAN, Camera, draw_background, draw_shadow
from .skeleton import ARM_SHARE, pose_at

WIDTH, HEIGHT, FPS = 1280, 720, 24
MIN_VISIBLE = 0.4  # the truth lists a hand if at least this share of it is visible


class World:
    """One video of 24 to 48 frames, a pure function of its arguments; `render(i)` draws frame i.

    `anomaly`: None (all normal), "random" (abnormal for half of the seeds), a part ("human",
    "face", "hand") or a kind of `KINDS`; one person shows it through the whole video. "each" gives
    every person an anomaly of their own or none. `people` and `frames` set how many there are.
    Raises ValueError for an unknown anomaly.
    """

    def __init__(self, seed, anomaly="random", *, people=None, frames=None):
        rng = np.random.default_rng([int(seed), 20])
        each = anomaly == "each"
        kind = None if each else choose(rng, anomaly)
        count = int(people or rng.choice([1, 2, 3], p=[0.3, 0.4, 0.3]))
        self.length = int(frames or rng.integers(24, 49))
        self.seed = int(seed)
        self.people = _cast(rng, count, kind, each, self.length / FPS)
        self.background = draw_background(rng, WIDTH, HEIGHT)
        self.camera = Camera(rng, WIDTH, HEIGHT)
        self.pan = rng.uniform(-0.9, 0.9) * PAN if rng.random() < 0.4 else 0.0
        self.shadow = rng.uniform(0.15, 0.5)

    def render(self, index):
        """Return frame `index` (720, 1280, 3) uint8 BGR and its people as in truth.jsonl."""
        time = index / FPS
        shift = self.pan * (index / max(1, self.length - 1) - 0.5)
        left = PAN - round(shift)
        canvas = Canvas(np.ascontiguousarray(self.background[:, left : left + WIDTH]))
        poses = [pose_at(p, time, shift * 0.4) for p in self.people]
        for person, pose in zip(self.people, poses, strict=True):
            where = (pose.pelvis[0], person.floor)
            draw_shadow(canvas.image, where, pose.scale * 0.19, self.shadow)
        bases = range(1, 1 + IDS * len(poses), IDS)
        people = list(zip(self.people, poses, bases, strict=True))
        drawn = [draw_person(canvas, person, pose, base, time) for person, pose, base in people]
        truth = [
            _truth(canvas.frame_labels, person, done, base)
            for (person, _, base), done in zip(people, drawn, strict=True)
        ]
        rng = np.random.default_rng([self.seed, 21, index])
        return self.camera.shoot(canvas.image, rng), [entry for entry in truth if entry]


def _cast(rng, count, kind, each, seconds):
    """Return a video's people from far to near; an abnormal one is in front of the others."""
    edges = np.linspace(0, WIDTH, count + 1)
    tall = {1: 620, 2: 540, 3: 410}.get(count, 360)
    people = []
    for slot in range(count):
        kinds = (kind,) if kind is not None and slot == 0 else ()
        if each:
            part = (None, *KINDS)[rng.choice(4, p=[0.08, 0.4, 0.2, 0.32])]
            kinds = () if part is None else (str(rng.choice(KINDS[part])),)
        height = rng.uniform(300, tall) if rng.random() < 0.92 else rng.uniform(230, 300)
        floor = np.interp(height, (230, 620), (560, 705)) + rng.uniform(-20, 10)
        # A close-up, where it cannot cut off an anomaly of the body.
        whole = any(PART_OF[k] == "human" for k in kinds)
        if count == 1 and not whole and rng.random() < 0.2:
            height = rng.uniform(700, 900)
            floor = height + rng.uniform(60, 140)
        person = sample_person(rng, height=height, x=0.0, floor=floor, kinds=kinds)
        if each and kinds and PART_OF[kinds[0]] == "hand":
            person.anomalies[kinds[0]]["both"] = bool(rng.random() < 0.5)
        people.append(person)
    for person, place in zip(people, rng.permutation(count), strict=True):
        travel = person.speed * person.height * seconds
        slack = 0.12 * (edges[1] - edges[0])
        center = (edges[place] + edges[place + 1]) / 2 + rng.uniform(-slack, slack)
        person.x = float(center - np.clip(travel, -300, 300) / 2)
    return sorted(people, key=lambda p: (bool(p.anomalies) and not each, p.floor))


def _box(mask):
    """Return the box xyxy in picture pixels around a mask (H, W) of label pixels."""
    x, y, width, height = cv2.boundingRect(np.uint8(mask))
    return [v / LABEL_SCALE for v in (x, y, x + width, y + height)]


def _truth(labels, person, drawn, base):
    """Return the truth's entry for one person, or None if too little of them is visible.

    `labels`: the frame's label map; `drawn`: what `draw_person` returned; `base`: the person's
    first label. Boxes are xyxy in pixels of the frame.
    """
    own = (labels >= base) & (labels < base + IDS)
    if np.count_nonzero(own) < 0.012 * (person.height * LABEL_SCALE) ** 2:
        return None
    human = _box(own)
    x1, y1, x2, y2 = (int(v * LABEL_SCALE) for v in human)
    labels = labels[y1:y2, x1:x2]

    def find(*ids):
        mask = np.isin(labels, [base + i for i in ids])
        if np.count_nonzero(mask) < 12:
            return None
        left, top = human[:2]
        return np.add(_box(mask), [left, top, left, top]).tolist()

    head = person.height * person.size["head"] * LABEL_SCALE
    face = find(FACE) if np.count_nonzero(labels == base + FACE) >= 0.2 * head**2 else None
    hands = {
        index: find(HANDS[index])
        for index, total in drawn.hand_pixels.items()
        if total and np.count_nonzero(labels == base + HANDS[index]) >= MIN_VISIBLE * total
    }
    parts, anomalies = [], []
    if (kind := person.kind_of("human")) is not None:
        box = None if kind == "missing_lower_leg" else find(*_limb(person, kind))
        parts.append("human")
        anomalies += [box] if box else []
    if person.kind_of("face") is not None and face is not None:
        low, high = drawn.features.min(0), drawn.features.max(0)
        inside = [*np.maximum(low, face[:2]), *np.minimum(high, face[2:])]
        parts.append("face")
        anomalies.append(list(map(float, inside)))
    if (kind := person.kind_of("hand")) is not None:
        odd = person.anomalies[kind]
        bad = [h for h in hands if h < 2 and (odd["both"] or h == odd["arm"])]
        parts += ["hand"] if bad else []
        anomalies += [hands[h] for h in bad]
    return {
        "human": human,
        "face": [face] if face else [],
        "hand": [box for box in hands.values() if box],
        "abnormal_parts": parts,
        "anomaly_boxes": anomalies,
    }


def _limb(person, kind):
    """Return the labels of an abnormal limb, its hand included."""
    if kind == "third_arm":
        return (ODD, HANDS[2])
    odd = person.anomalies[kind]
    arm = kind == "detached" and odd["u"][0] < ARM_SHARE
    return (ODD, HANDS[odd["arm"]]) if arm else (ODD,)


def draw_still(seed, *, anomaly="each", people=None):
    """Return (frame, people) of a random frame of `World(seed, anomaly)`.

    Training uses stills because they vary as much as videos do and cost one frame each.
    """
    world = World(seed, anomaly, people=people)
    return world.render(int(np.random.default_rng([int(seed), 22]).integers(world.length)))

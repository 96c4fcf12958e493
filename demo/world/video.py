"""Puts people, background and camera together: frames of videos and their exact truth."""

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
    every person an anomaly of their own or none. `people` and `frames` set the numbers of both.
    ValueError for an unknown anomaly.
    """

    def __init__(self, seed, anomaly="random", *, people=None, frames=None):
        rng = np.random.default_rng([int(seed), 20])
        each = anomaly == "each"
        self.kind = None if each else choose(rng, anomaly)
        count = int(people or rng.choice([1, 2, 3], p=[0.3, 0.4, 0.3]))
        self.length = int(frames or rng.integers(24, 49))
        self.seed = int(seed)
        self.people = _cast(rng, count, self.kind, each, self.length / FPS)
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
        drawn = [
            draw_person(canvas, person, pose, 1 + IDS * i, time)
            for i, (person, pose) in enumerate(zip(self.people, poses, strict=True))
        ]
        truth = [
            entry
            for i, (person, done) in enumerate(zip(self.people, drawn, strict=True))
            if (entry := _truth(canvas.frame_labels, person, done, 1 + IDS * i))
        ]
        rng = np.random.default_rng([self.seed, 21, index])
        return self.camera.shoot(canvas.image, rng), truth


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
        close = count == 1 and not any(PART_OF[k] == "human" for k in kinds) and rng.random() < 0.2
        if close:
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
    front = [p for p in people if p.anomalies] if not each else []
    others = sorted((p for p in people if not any(p is f for f in front)), key=lambda p: p.floor)
    return others + front


def _box(mask):
    """Return the box xyxy in picture pixels around a mask (H, W) of label pixels."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / LABEL_SCALE
    return [float(v) for v in box]


def _clip(box, outer):
    """Return the part of `box` that lies in `outer`, both xyxy."""
    low, high = np.maximum(box[:2], outer[:2]), np.minimum(box[2:], outer[2:])
    return [float(v) for v in (*low, *high)]


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
        box = _box(mask)
        return [box[0] + human[0], box[1] + human[1], box[2] + human[0], box[3] + human[1]]

    face = find(FACE)
    head = person.height * person.size["head"] * LABEL_SCALE
    if face is not None and np.count_nonzero(labels == base + FACE) < 0.2 * head**2:
        face = None
    hands = {}
    for index, total in drawn.hand_pixels.items():
        seen = np.count_nonzero(labels == base + HANDS[index])
        if total and seen >= MIN_VISIBLE * total:
            hands[index] = find(HANDS[index])
    parts, anomalies = [], []
    if (kind := person.kind_of("human")) is not None:
        box = None if kind == "missing_lower_leg" else find(*_limb(person, kind, hands))
        parts.append("human")
        anomalies += [box] if box else []
    if person.kind_of("face") is not None and face is not None:
        low, high = drawn.features.min(0), drawn.features.max(0)
        parts.append("face")
        anomalies.append(_clip([*low, *high], face))
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


def _limb(person, kind, hands):
    """Return the labels of an abnormal limb, its hand included."""
    if kind == "third_arm":
        return (ODD, HANDS[2])
    odd = person.anomalies[kind]
    arm = kind == "detached" and odd["u"][0] < ARM_SHARE
    return (ODD, HANDS[odd["arm"]]) if arm else (ODD,)


def draw_still(
    seed: int, *, anomaly: str | None = "each", people: int | None = None
) -> tuple[np.ndarray, list[dict]]:
    """Return (frame, people) of a random frame of `World(seed, anomaly)`.

    Training uses stills because they vary as much as videos do and cost one frame each.
    """
    world = World(seed, anomaly, people=people)
    return world.render(int(np.random.default_rng([int(seed), 22]).integers(world.length)))

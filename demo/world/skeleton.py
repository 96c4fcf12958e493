"""Places the joints of a drawn person at a moment in time, anomalies of the body included.

Positions are (2,) arrays in pixels; angles are in radians, 0 down and positive to image right.
"""

from dataclasses import dataclass, field

import numpy as np

from .canvas import direction

THIGH, SHANK = 0.51, 0.49  # lengths as shares of the leg
FOOT = 0.045  # height of the foot as a share of the body height
ARM_SHARE = 0.6  # of detached limbs; the others are legs


@dataclass
class Arm:
    shoulder: np.ndarray
    elbow: np.ndarray
    wrist: np.ndarray
    hand: float  # the hand's angle
    index: int  # 0 at image left, 1 at image right, 2 for a third arm
    front: bool  # drawn in front of the body
    settings: dict  # from `Person.arms`
    role: str = "arm"  # "arm", "extra" (a third arm) or "odd" (its lower part is the anomaly)
    gap: np.ndarray | None = None  # by which a detached lower part is moved away


@dataclass
class Leg:
    hip: np.ndarray
    knee: np.ndarray
    ankle: np.ndarray
    shank: float  # angle of the lower leg
    toe: float  # where the foot points, from -1 (image left) to 1
    front: bool  # drawn after the other leg
    role: str = "leg"  # "leg" or "odd" (its lower part is the anomaly)
    gap: np.ndarray | None = None
    missing: float | None = None  # the share of the thigh that remains


@dataclass
class Pose:
    pelvis: np.ndarray
    neck: np.ndarray
    head: np.ndarray
    tilt: float
    yaw: float
    scale: float  # the body height in pixels
    arms: list[Arm] = field(default_factory=list)
    legs: list[Leg] = field(default_factory=list)


def pose_at(person, time, drift=0.0):
    """Return the pose at `time` seconds; `drift` is the camera's shift in pixels."""
    scale = person.height * (1 + (0.03 * time if person.gait == "front" else 0.0))
    phase = _phase_at(person, time)
    legs = _leg_angles(person, phase)
    leg_length = person.size["leg"] - FOOT
    reach = max(
        leg_length * (THIGH * np.cos(thigh) + SHANK * shorten * np.cos(shank))
        for thigh, shank, shorten in legs
    )
    sway = 0.006 * np.sin(phase) if person.gait == "stand" else 0.0
    x = person.x + person.speed * scale * time + sway * scale + drift
    pelvis = np.array([x, person.floor - scale * (reach + FOOT)])
    lean = 0.05 * person.turn * (person.gait == "walk") + 0.015 * np.sin(phase + 1)
    torso = 0.825 - person.size["leg"] - 0.03
    neck = pelvis + scale * torso * np.array([np.sin(lean), -np.cos(lean)])
    tilt = 0.05 * np.sin(0.7 * phase + person.phase) + lean * 0.3
    rise = scale * (0.035 + person.size["head"] / 2)
    head = neck + rise * np.array([np.sin(tilt), -np.cos(tilt)])
    yaw = 0.55 * person.turn + 0.05 * np.sin(0.5 * phase)
    pose = Pose(pelvis, neck, head, tilt, yaw, scale)
    pose.legs = _place_legs(person, pose, legs)
    pose.arms = _place_arms(person, pose, phase, time)
    _add_anomaly(person, pose, phase, time)
    return pose


def _phase_at(person, time):
    """Return the phase of the walk, or of a standing person's slow sway."""
    if person.gait == "walk":
        return person.phase + 2 * np.pi * abs(person.speed) / 0.7 * time
    return person.phase + 2 * np.pi * (0.9 if person.gait == "front" else 0.35) * time


def _leg_angles(person, phase):
    """Return (thigh's angle, shank's angle, factor of the shank's length) of each leg."""
    if person.gait == "walk":
        facing = np.sign(person.turn)
        swing = 0.32 + 0.1 * abs(person.turn)
        out = []
        for offset in (0.0, np.pi):
            thigh = swing * np.sin(phase + offset) + 0.05
            bend = 0.12 + 0.6 * max(0.0, np.cos(phase + offset)) ** 1.5
            out.append((facing * thigh, facing * (thigh - bend), 1.0))
        return out
    if person.gait == "front":
        lifts = [0.28 * max(0.0, side * np.sin(phase)) for side in (-1, 1)]
        return [(-0.08, -0.05, 1 - lifts[0]), (0.08, 0.05, 1 - lifts[1])]
    splay = 0.1 + 0.035 * np.sin(3.1 * person.phase)
    return [(side * splay, side * splay * 0.6, 1.0) for side in (-1, 1)]


def _place_legs(person, pose, angles):
    scale, length = pose.scale, person.size["leg"] - FOOT
    narrow = 1 - 0.5 * abs(person.turn)
    legs = []
    for index, (side, (thigh, shank, shorten)) in enumerate(zip((-1, 1), angles, strict=True)):
        hip = pose.pelvis + scale * np.array([side * person.size["hip"] * 0.55 * narrow, 0.0])
        knee = hip + scale * length * THIGH * direction(thigh)
        ankle = knee + scale * length * SHANK * shorten * direction(shank)
        toe = np.clip(person.turn * 1.6 + side * 0.45 * (1 - abs(person.turn)), -1, 1)
        front = index == (0 if person.turn > 0 else 1)
        legs.append(Leg(hip, knee, ankle, shank, float(toe), front))
    return legs


def arm_angles(person, settings, side, phase, time):
    """Return the angles of upper arm, forearm and hand; `side`: -1 at image left, 1 at right."""
    facing = 1.0 if person.turn >= 0 else -1.0
    lift, flex = settings["lift"], settings["flex"]
    if settings["mode"] == "wave":
        upper = side * (1.65 + 0.75 * lift)
        swing = 0.32 * np.sin(2 * np.pi * settings["rate"] * time + settings["phase"])
        fore = side * (2.75 + 0.35 * flex) + swing
        return upper, fore, fore + 0.35 * swing + settings["twist"]
    if settings["mode"] == "out":
        upper = side * (0.3 + 0.45 * lift) + 0.04 * np.sin(phase)
        # A walker's arm that is held out behind stays straight, as elbows do not bend backwards.
        behind = abs(person.turn) > 0.45 and side != facing
        fore = upper + side * (0.15 * flex if behind else 0.2 + 0.6 * flex)
        return upper, fore, fore + settings["twist"]
    if person.gait == "walk":
        offset = np.pi if side < 0 else 0.0
        upper = facing * 0.42 * np.sin(phase + offset) + side * 0.1 * (1 - 0.6 * abs(person.turn))
        fore = upper + facing * (0.15 + 0.45 * flex)
        return upper, fore, fore + facing * 0.1 + settings["twist"]
    upper = side * (0.2 + 0.15 * lift) + 0.05 * np.sin(phase + side)
    fore = upper - side * 0.12 * flex
    return upper, fore, fore + settings["twist"] * 0.6


def _bend(shoulder, upper, fore, length):
    """Return elbow and wrist of an arm of `length` pixels, bent by these angles."""
    elbow = shoulder + length * 0.52 * direction(upper)
    return elbow, elbow + length * 0.48 * direction(fore)


def shoulder_at(person, pose, side):
    """Return the shoulder joint (2,) of an image side (-1 left, 1 right)."""
    narrow = 1 - 0.35 * abs(person.turn)
    reach = side * person.size["shoulder"] * narrow
    return pose.neck + pose.scale * np.array([reach, 0.03])


def _place_arms(person, pose, phase, time):
    arms = []
    for index, (side, settings) in enumerate(zip((-1, 1), person.arms, strict=True)):
        shoulder = shoulder_at(person, pose, side)
        upper, fore, hand = arm_angles(person, settings, side, phase, time)
        elbow, wrist = _bend(shoulder, upper, fore, pose.scale * person.size["arm"])
        front = abs(person.turn) < 0.45 or side * person.turn < 0
        arms.append(Arm(shoulder, elbow, wrist, hand, index, front, settings))
    return arms


def _add_anomaly(person, pose, phase, time):
    """Change the pose as the person's anomaly of the body demands."""
    kind = person.kind_of("human")
    if kind is None:
        return
    odd = person.anomalies[kind]
    if kind == "third_arm":
        _add_third_arm(person, pose, odd, time)
    elif kind == "missing_lower_leg":
        pose.legs[odd["leg"]].missing = 0.45 + 0.3 * odd["u"][0]
    elif kind == "bent_wrong":
        _bend_wrong(person, pose, odd, phase)
    else:
        _detach(pose, odd)


def _add_third_arm(person, pose, odd, time):
    side = (-1, 1)[odd["arm"]]
    u = odd["u"]
    # It starts at the ribs or the waist and is nearly level, unlike the regular arms.
    depth = (0.09 + 0.1 * u[0]) * pose.scale
    spine = pose.pelvis - pose.neck
    shoulder = shoulder_at(person, pose, side) + spine * depth / np.hypot(*spine)
    shoulder = shoulder - np.array([side * 0.012 * pose.scale, 0.0])
    settings = dict(person.arms[odd["arm"]], thumb=float(side))
    sway = 0.08 * np.sin(2 * np.pi * 0.5 * time + 6 * u[3])
    upper = side * (1.3 + 0.45 * u[1]) + sway
    fore = upper + side * (0.1 + 0.45 * u[2]) + sway
    elbow, wrist = _bend(shoulder, upper, fore, pose.scale * person.size["arm"])
    pose.arms.append(Arm(shoulder, elbow, wrist, fore, 2, True, settings, role="extra"))


def _bend_wrong(person, pose, odd, phase):
    """Bend one knee to the front."""
    scale, u = pose.scale, odd["u"]
    facing = 1.0 if person.turn >= 0 else -1.0
    leg = pose.legs[odd["leg"]]
    along = leg.knee - leg.hip
    thigh = np.arctan2(along[0], along[1])
    side = facing if abs(person.turn) > 0.45 else (-1, 1)[odd["leg"]]
    leg.shank = thigh + side * (1.2 + 0.5 * u[1] + 0.08 * np.sin(phase))
    length = scale * (person.size["leg"] - FOOT) * SHANK
    leg.ankle = leg.knee + length * direction(leg.shank)
    leg.role, leg.toe = "odd", side


def _detach(pose, odd):
    """Move one forearm or lower leg away from its joint."""
    u, scale = odd["u"], pose.scale
    distance = scale * (0.13 + 0.06 * u[1])
    if u[0] < ARM_SHARE:
        arm = pose.arms[odd["arm"]]
        along = arm.wrist - arm.elbow
        arm.gap = along / np.hypot(*along) * distance
        arm.role, arm.front = "odd", True
        return
    leg = pose.legs[odd["leg"]]
    along = leg.ankle - leg.knee
    side = (-1, 1)[odd["leg"]]
    leg.gap = along / np.hypot(*along) * distance * 0.15 + np.array([side * distance * 0.4, 0.0])
    leg.role = "odd"

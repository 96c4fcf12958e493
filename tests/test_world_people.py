"""The drawn people: bodies, hands and limbs are those that their kind says."""

import numpy as np
import pytest
from test_world import person_of

from human_anomaly.demo.world.hand import fingers_of
from human_anomaly.demo.world.skeleton import pose_at


def test_number_of_fingers():
    counts = {len(fingers_of("extra_fingers", (u,))) + 1 for u in (0.0, 0.5, 0.99)}
    assert counts == {6, 7, 8}  # with the thumb
    assert len(fingers_of("three_fingers", ())) + 1 == 3
    assert len(fingers_of(None, ())) + 1 == 5
    assert len(fingers_of("fused_fingers", ())) + 1 == 5


def test_body_anomalies_in_the_pose():
    assert len(pose_at(person_of(1), 0.0).arms) == 2
    third = pose_at(person_of(1, "third_arm"), 0.0)
    assert [arm.role for arm in third.arms] == ["arm", "arm", "extra"]
    missing = pose_at(person_of(1, "missing_lower_leg"), 0.0)
    assert sum(leg.missing is not None for leg in missing.legs) == 1
    for seed in range(8):
        apart = pose_at(person_of(seed, "detached"), 0.0)
        gaps = [limb.gap for limb in [*apart.arms, *apart.legs] if limb.gap is not None]
        assert len(gaps) == 1
        assert np.hypot(*gaps[0]) > 0.05 * 500


def test_knees_bend_back_unless_they_are_the_anomaly():
    def bends(person):
        facing = np.sign(person.turn)
        for time in np.linspace(0, 2, 25):
            for leg in pose_at(person, time).legs:
                thigh = np.arctan2(*(leg.knee - leg.hip))
                shank = np.arctan2(*(leg.ankle - leg.knee))
                yield leg.role, facing * (shank - thigh)

    seen = set()
    for seed in range(30):
        for kinds in ((), ("bent_wrong",)):
            person = person_of(seed, *kinds)
            if person.gait == "walk":
                for role, bend in bends(person):
                    seen.add(role)
                    assert (bend > 0.9) if role == "odd" else (bend < 0.01)
    assert seen == {"leg", "odd"}


def test_limbs_keep_their_lengths_and_the_lower_foot_its_floor():
    person = person_of(5)
    for time in np.linspace(0, 2, 9):
        pose = pose_at(person, time)
        for arm in pose.arms:
            length = np.hypot(*(arm.elbow - arm.shoulder)) + np.hypot(*(arm.wrist - arm.elbow))
            assert length == pytest.approx(person.size["arm"] * pose.scale)
        lowest = max(leg.ankle[1] for leg in pose.legs)
        assert lowest == pytest.approx(person.floor - 0.045 * pose.scale, abs=1)

"""The drawn world: repeatable, its truth where the drawing is, each anomaly drawn and named."""

import json
import zlib

import cv2
import numpy as np
import pytest
from conftest import ROOT

from human_anomaly.demo.world import KINDS, World, draw_still
from human_anomaly.demo.world.__main__ import main
from human_anomaly.demo.world.anomalies import PART_OF, choose
from human_anomaly.demo.world.body import BODY, FACE, HANDS, IDS, draw_person
from human_anomaly.demo.world.canvas import Canvas, capsule, ellipse
from human_anomaly.demo.world.people import sample_person
from human_anomaly.demo.world.skeleton import pose_at
from human_anomaly.demo.world.video import HEIGHT, WIDTH, _truth

ALL_KINDS = sorted(PART_OF)


def person_of(seed, *kinds, height=500):
    return sample_person(
        np.random.default_rng(seed), height=height, x=640.0, floor=690.0, kinds=kinds
    )


def inside(inner, outer, slack=0.0):
    return (
        inner[0] >= outer[0] - slack
        and inner[1] >= outer[1] - slack
        and inner[2] <= outer[2] + slack
        and inner[3] <= outer[3] + slack
    )


def test_same_seed_same_video_and_other_seed_another():
    (first, people), (again, people_again) = (World(3, people=2).render(1) for _ in range(2))
    assert np.array_equal(first, again)
    assert people == people_again
    assert not np.array_equal(first, World(4, people=2).render(1)[0])


def test_the_truth_is_that_of_the_shipped_videos():
    rows = [json.loads(line) for line in (ROOT / "demo/truth.jsonl").read_text().splitlines()]
    for name, seed, kind in (
        ("normal_2", 950_001, None),
        ("hand_fused", 950_001, "fused_fingers"),
        ("body_third_arm", 950_016, "third_arm"),
    ):
        frame, people = World(seed, kind).render(3)
        (row,) = [r for r in rows if r["video"] == f"{name}.mp4" and r["frame"] == 3]
        assert row["people"] == people
        reader = cv2.VideoCapture(str(ROOT / f"demo/videos/{name}.mp4"))
        shown = [reader.read()[1] for _ in range(4)][3]
        assert np.abs(shown.astype(int) - frame).mean() < 6  # MPEG-4 loses a little


PIXELS = {  # kind: (checksum of the label map, sum of the picture's values) of `person_of(6, kind)`
    "bent_wrong": (874974607, 340729626),
    "detached": (3905398802, 339110867),
    "doubled": (1579489558, 340645686),
    "extra_fingers": (4226670510, 340676909),
    "fused_fingers": (539591349, 340740986),
    "melted": (2526130944, 340752775),
    "misplaced": (1811450736, 340709741),
    "missing_lower_leg": (2286331490, 338487690),
    "third_arm": (2339115291, 341724634),
    "three_fingers": (2876123939, 340732616),
}


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_people_are_drawn_as_when_the_weights_were_trained(kind):
    canvas = Canvas(np.full((HEIGHT, WIDTH, 3), 120, np.uint8))
    person = person_of(6, kind)
    draw_person(canvas, person, pose_at(person, 0.4), 1, 0.4)
    labels, total = PIXELS[kind]
    assert zlib.crc32(canvas.labels) == labels
    assert canvas.image.sum(dtype=int) == pytest.approx(total, rel=1e-6)


def test_frames_do_not_depend_on_the_ones_before():
    world = World(8, None, frames=3)
    frame, people = world.render(2)
    again = World(8, None, frames=3)
    for index in (0, 1, 2):
        shown, found = again.render(index)
    assert np.array_equal(frame, shown)
    assert people == found


def test_shape_length_and_form_of_the_truth():
    world = World(11, "hand")
    assert 24 <= world.length <= 48
    frame, people = world.render(0)
    assert frame.shape == (HEIGHT, WIDTH, 3)
    assert frame.dtype == np.uint8
    keys = {"human", "face", "hand", "abnormal_parts", "anomaly_boxes"}
    assert people
    assert all(set(person) == keys for person in people)
    assert json.loads(json.dumps(people)) == people


def test_boxes_lie_in_the_frame_and_in_their_person():
    for seed in range(12):
        for person in draw_still(seed)[1]:
            human = person["human"]
            assert inside(human, (0, 0, WIDTH, HEIGHT))
            for box in [*person["face"], *person["hand"], *person["anomaly_boxes"]]:
                assert box[2] > box[0]
                assert box[3] > box[1]
                assert inside(box, human, 0.01)


def test_normal_people_have_no_anomaly():
    for seed in range(8):
        for person in draw_still(seed, anomaly=None)[1]:
            assert person["abnormal_parts"] == []
            assert person["anomaly_boxes"] == []


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_each_kind_is_in_the_truth_of_one_person(kind):
    for seed in range(6):
        people = draw_still(seed, anomaly=kind)[1]
        part = PART_OF[kind]
        bad = [p for p in people if p["abnormal_parts"]]
        assert len(bad) <= 1
        for person in bad:
            assert person["abnormal_parts"] == [part]
            boxes = person["anomaly_boxes"]
            assert len(boxes) == (0 if kind == "missing_lower_leg" else 1)
            if part == "hand":
                assert boxes[0] in person["hand"]
            if part == "face":
                assert inside(boxes[0], person["face"][0])
    assert any(draw_still(s, anomaly=kind)[1][-1]["abnormal_parts"] for s in range(2))


def test_an_abnormal_video_shows_it_nearly_always():
    for seed, part in enumerate(KINDS):
        for index in range(2):
            world = World(40 + 7 * seed + index, part)
            truth = [world.render(i)[1] for i in range(0, world.length, 5)]
            shown = [any(part in p["abnormal_parts"] for p in people) for people in truth]
            assert np.mean(shown) >= 0.6, (part, seed)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_the_anomaly_changes_the_drawing(kind):
    pictures = []
    for kinds in ((), (kind,)):
        # The same person but for the anomaly, which is sampled last.
        canvas = Canvas(np.full((HEIGHT, WIDTH, 3), 200, np.uint8))
        person = person_of(2, *kinds)
        draw_person(canvas, person, pose_at(person, 0.2), 1, 0.2)
        pictures.append(canvas.image)
    changed = (pictures[0] != pictures[1]).any(-1).sum()
    least = {"human": 1500, "face": 300, "hand": 200}[PART_OF[kind]]
    assert changed > least


def test_hidden_hands_and_hands_out_of_the_frame_are_not_listed():
    world = World(3, None, people=1)
    person = world.people[0]
    for arm in person.arms:
        arm["mode"] = "swing"
    person.turn, person.gait, person.speed = 0.0, "stand", 0.0
    person.height, person.floor, person.x = 500, 690, 640.0
    assert len(world.render(0)[1][0]["hand"]) == 2
    person.x = 30.0  # the left arm is outside
    (entry,) = world.render(0)[1]
    assert len(entry["hand"]) == 1
    assert entry["hand"][0][0] > person.x
    person.x = -400.0
    assert world.render(0)[1] == []


def test_a_hand_is_listed_from_two_fifths_of_it_on():
    canvas = Canvas(np.full((HEIGHT, WIDTH, 3), 120, np.uint8))
    person = person_of(4)
    drawn = draw_person(canvas, person, pose_at(person, 0.0), 1, 0.0)
    labels = canvas.frame_labels
    rows, columns = np.nonzero(labels == 1 + HANDS[0])
    assert len(rows) == pytest.approx(drawn.hand_pixels[0], rel=0.1)  # the cuff covers the rest
    for hidden, listed in ((0.5, 2), (0.7, 1)):
        covered = labels.copy()
        cut = int(hidden * len(rows))
        covered[rows[:cut], columns[:cut]] = 0
        assert len(_truth(covered, person, drawn, 1)["hand"]) == listed


def test_anomaly_boxes_lie_around_the_limb():
    for seed in range(12):
        for kind in ("third_arm", "bent_wrong", "detached"):
            canvas = Canvas(np.full((HEIGHT, WIDTH, 3), 120, np.uint8))
            person = person_of(seed, kind)
            pose = pose_at(person, 0.0)
            drawn = draw_person(canvas, person, pose, 1, 0.0)
            (box,) = _truth(canvas.frame_labels, person, drawn, 1)["anomaly_boxes"]
            (limb,) = [m for m in [*pose.arms, *pose.legs] if m.role in ("odd", "extra")]
            end = limb.wrist if hasattr(limb, "wrist") else limb.ankle
            end = end + (0 if limb.gap is None else limb.gap)
            assert inside((*end, *end), box)
            size = max(box[2] - box[0], box[3] - box[1])
            assert 0.12 * person.height < size < 0.55 * person.height


def test_labels_follow_the_paint():
    """A person's picture differs from the empty one where labels are, and next to nowhere else."""
    plain = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    canvas = Canvas(plain.copy())
    person = person_of(4)
    base = 1 + IDS
    draw_person(canvas, person, pose_at(person, 0.0), base, 0.0)
    painted = (canvas.image != plain).any(-1)[::2, ::2]
    labelled = canvas.frame_labels > 0
    assert (labelled & ~painted).sum() < 0.01 * labelled.sum()
    outlined = cv2.dilate(labelled.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert (painted & ~outlined).sum() < 0.01 * labelled.sum()
    present = set(np.unique(canvas.frame_labels)) - {0}
    assert present == {base + BODY, base + FACE, base + HANDS[0], base + HANDS[1]}


def test_hands_are_large_enough_to_count_fingers():
    for seed in range(6):
        people = draw_still(seed, anomaly=None, people=1)[1]
        for person in people:
            height = person["human"][3] - person["human"][1]
            if height > 400:
                assert all(max(b[2] - b[0], b[3] - b[1]) > 40 for b in person["hand"])


def test_shapes():
    bar = capsule((0, 0), (10, 0), 2, 1)
    assert bar.min(0) == pytest.approx([-2, -2], abs=0.1)
    assert bar.max(0) == pytest.approx([11, 2], abs=0.1)
    assert np.ptp(ellipse((5, 5), 3, 1, np.pi / 2), axis=0) == pytest.approx([2, 6], abs=0.1)
    canvas = Canvas(np.zeros((40, 60, 3), np.uint8))
    canvas.fill(ellipse((20, 20), 10, 6), (9, 8, 7), 3)
    assert tuple(canvas.image[20, 20]) == (9, 8, 7)
    assert canvas.frame_labels[10, 10] == 3
    assert canvas.count(3) == pytest.approx(np.pi * 10.5 * 6.5 / 4, rel=0.2)


def test_choice_of_anomalies():
    rng = np.random.default_rng(0)
    picks = [choose(rng, "random") for _ in range(400)]
    assert 160 < picks.count(None) < 240
    assert set(picks) == {None, *PART_OF}
    assert choose(rng, None) is None
    assert choose(rng, "melted") == "melted"
    assert {choose(rng, "hand") for _ in range(40)} == set(KINDS["hand"])
    with pytest.raises(ValueError, match="'nose'"):
        choose(rng, "nose")
    assert all(len(kinds) >= 3 for kinds in KINDS.values())


def test_command_line_writes_and_resumes(tmp_path, capsys):
    command = ["--output", str(tmp_path), "--videos", "2", "--seed", "7", "--anomaly", "face"]
    assert main(command) == 0
    paths = sorted(tmp_path.glob("*.mp4"))
    assert [p.name for p in paths] == ["figures_000007_face.mp4", "figures_000008_face.mp4"]
    truth = (tmp_path / "truth.jsonl").read_text()
    rows = [json.loads(line) for line in truth.splitlines()]
    reader = cv2.VideoCapture(str(paths[0]))
    frames = []
    while (read := reader.read())[0]:
        frames.append(read[1])
    world = World(7, "face")
    drawn, people = world.render(5)
    assert rows[5] == {"video": paths[0].name, "frame": 5, "people": people}
    assert len(frames) == world.length == sum(row["video"] == paths[0].name for row in rows)
    assert np.abs(frames[5].astype(int) - drawn).mean() < 6  # MPEG-4 loses a little
    # Run again, it keeps what is there and draws what is missing; the truth stays the same.
    kept = paths[0].stat().st_mtime_ns
    paths[1].unlink()
    assert main(command) == 0
    assert paths[0].stat().st_mtime_ns == kept
    assert paths[1].exists()
    assert (tmp_path / "truth.jsonl").read_text() == truth
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("wrong", [["--videos", "0"], ["--seed", "-1"], ["--anomaly", "nose"]])
def test_wrong_use_ends_with_2(tmp_path, wrong):
    with pytest.raises(SystemExit) as stop:
        main(["--output", str(tmp_path), *wrong])
    assert stop.value.code == 2

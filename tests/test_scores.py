"""The scoring rules, by hand: any of three, shares, intervals, near thresholds."""

import pytest

from human_anomaly.models.scoring.scores import (
    MARGIN,
    SURELY_NORMAL,
    Tally,
    VideoResult,
    frame_score,
    is_abnormal,
    is_near,
)

THRESHOLDS = {"human": 0.45, "face": 0.3, "hand": 0.32}


def person(number: int, **p: float) -> dict:
    parts = [{"part": part, "p_abnormal": value} for part, value in p.items()]
    return {"id": number, "abnormal": is_abnormal(parts, THRESHOLDS), "parts": parts}


def row(*people: dict) -> dict:
    return {"score": frame_score(people), "people": list(people)}


def result(*rows: dict, thresholds=THRESHOLDS) -> VideoResult:
    return VideoResult({}, list(rows), thresholds)


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        ({}, False),
        ({"human": 0.45, "face": 0.3, "hand": 0.32}, False),  # at the threshold: normal
        ({"human": 0.46, "face": 0.0, "hand": 0.0}, True),  # any of three
        ({"human": 0.0, "face": 0.31, "hand": 0.0}, True),
        ({"human": 0.0, "face": 0.0, "hand": 0.33}, True),
    ],
)
def test_a_person_is_abnormal_if_one_part_is(p, expected):
    assert person(0, **p)["abnormal"] is expected


def test_a_frame_is_the_share_of_normal_people():
    assert frame_score([]) is None
    bad, good = person(0, human=0.9), person(1, human=0.1)
    assert frame_score([bad]) == 0
    assert frame_score([good]) == 1
    assert frame_score([bad, good, good, good]) == 0.75


def test_a_video():
    tally = Tally()
    first = row(person(0, human=0.9, hand=0.8), person(1, human=0.1), person(2, face=0.2))
    for one in (first, row(person(0, hand=0.5)), row(), row(person(1, human=0.25))):
        tally.add(one, THRESHOLDS)
    scores = tally.scores()
    low, high = scores.pop("ci95")
    assert (low, high) == (pytest.approx(0.0), pytest.approx(1.0))
    assert scores.pop("score_soft") == pytest.approx(1 - (0.9 + 0.1 + 0.2 + 0.5 + 0.25) / 5)
    assert scores.pop("score_frame_mean") == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert scores.pop("score_people") == pytest.approx((0 / 2 + 2 / 2 + 1 / 1) / 3)
    assert scores.pop("abnormal_by_part") == {"human": 1 / 5, "face": 0.0, "hand": 2 / 5}
    assert scores["tracks"] == 3
    assert scores["video_results"] == 3 / 5
    assert scores["score_clean_frames"] == 2 / 4  # without people: clean
    assert (scores["frames"], scores["people"], scores["abnormal_people"]) == (4, 5, 2)
    assert (scores["views"], scores["abnormal_views"]) == (5, 2)  # as people, who are 3
    assert "views=5, tracks=3, frames=4)" in repr(VideoResult(scores))


@pytest.mark.parametrize("no_person", [None, 1.0, 0.25])
def test_a_video_without_people(no_person):
    tally = Tally(no_person, ["hand"])
    tally.add(row(), THRESHOLDS)
    scores = tally.scores()
    for key in ("video_results", "score_frame_mean", "score_soft", "score_people"):
        assert scores[key] == no_person
    assert scores["ci95"] is None
    assert scores["score_clean_frames"] == 1
    assert scores["abnormal_by_part"] == {"human": None, "face": None, "hand": 0.0}
    assert (scores["frames"], scores["people"], scores["abnormal_people"]) == (1, 0, 0)


def test_the_interval_is_over_frames_and_always_the_same():
    tally = Tally()
    for number in range(40):
        tally.add(row(person(0, human=0.9 if number % 4 == 0 else 0.1)), THRESHOLDS)
    low, high = tally.scores()["ci95"]
    half = 1.96 * (0.75 * 0.25 / 40) ** 0.5  # of the normal approximation
    assert low == pytest.approx(0.75 - half, abs=0.03)
    assert high == pytest.approx(0.75 + half, abs=0.03)
    assert tally.scores()["ci95"] == [low, high]


def test_each_person():
    rows = [row(person(1, human=0.9), person(0, human=0.1)), row(person(1, human=0.2))]
    assert result(*rows).people == [
        {"id": 0, "views": 1, "normal": 1.0, "soft": pytest.approx(0.9)},
        {"id": 1, "views": 2, "normal": 0.5, "soft": pytest.approx(0.45)},
    ]


def test_what_is_unreliable():
    assert result().unreliable == "no people"
    assert result(row()).unreliable == "no people"
    near = [row(person(0, hand=0.32 + sign * MARGIN / 2)) for sign in (1, 1, -1)]
    assert result(*near).unreliable == f"hand: 100% of p are within {MARGIN} of the threshold"
    clear = [row(person(0, hand=p)) for p in (0.9, 0.95, 0.01)]
    assert result(*clear).unreliable is None
    half = [row(person(0, hand=p)) for p in (0.33, 0.99)]
    assert result(*half).unreliable is None  # not most of them
    unflagged = [row(person(0, hand=0.32 - MARGIN / 2))]
    assert result(*unflagged).unreliable is None
    low = {"human": SURELY_NORMAL - MARGIN / 2}
    rows = row(person(0, human=SURELY_NORMAL))
    assert result(rows, thresholds=low).unreliable is None


def test_near_is_up_to_the_margin():
    for p, expected in ((0.27, True), (0.37, True), (0.2699, False), (0.3701, False)):
        assert is_near({"part": "hand", "p_abnormal": p}, THRESHOLDS) is expected


def test_one_person_in_one_frame():
    tally = Tally()
    tally.add(row(person(0, hand=0.5)), THRESHOLDS)
    scores = tally.scores()
    assert (scores["video_results"], scores["ci95"], scores["score_people"]) == (0, [0, 0], 0)
    assert scores["abnormal_by_part"] == {"human": 0, "face": 0, "hand": 1}


def test_at_the_threshold_no_part_flags():
    tally = Tally()
    tally.add(row(person(0, human=0.45, face=0.3, hand=0.32)), THRESHOLDS)
    assert tally.scores()["abnormal_by_part"] == {"human": 0, "face": 0, "hand": 0}


def test_a_person_of_whom_nothing_was_judged_is_normal():
    tally, rows = Tally(), [row(person(0))]
    tally.add(rows[0], THRESHOLDS)
    assert tally.scores()["score_soft"] == 1
    assert result(*rows).people[0]["soft"] == 1


def test_the_interval_to_the_digit():
    """Its draws and percentiles are part of the published file: the same on every machine."""
    tally = Tally()
    for number in range(30):
        p = [0.9 if (number + i) % 5 < 2 else 0.1 for i in range(1 + number % 4)]
        tally.add(row(*(person(i, human=value) for i, value in enumerate(p))), THRESHOLDS)
    assert tally.scores()["ci95"] == pytest.approx([0.507042254, 0.693361111], abs=1e-8)

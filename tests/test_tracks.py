"""Numbers of people over the frames of a video."""

from human_anomaly.models.scoring.tracks import Tracker


def numbers(frames):
    """Return the numbers that a tracker gives to frames of boxes."""
    tracker, found = Tracker(), []
    for boxes in frames:
        row = {"people": [{"bbox": box} for box in boxes]}
        tracker.number(row)
        found.append([person["id"] for person in row["people"]])
    return found


def walker(x, y=50):
    return [x, y, x + 60, y + 150]


def test_two_people_keep_their_numbers_in_any_order():
    frames = [[walker(10 * i), walker(400 - 10 * i)] for i in range(10)]
    frames[3].reverse()
    found = numbers(frames)
    assert found[0] == [0, 1] and found[3] == [1, 0] and found[9] == [0, 1]


def test_all_people_of_a_frame_are_assigned_at_once():
    # The first box overlaps the left person most, but the second one overlaps nobody else.
    assert numbers([[walker(0), walker(55)], [walker(20), walker(-25)]])[1] == [1, 0]


def test_who_walks_behind_something_keeps_the_number_for_so_many_frames():
    for gap, last in ((4, [0]), (5, [1])):
        seen = [[walker(40 * i)] for i in range(6)]
        again = [[walker(40 * (6 + gap))]]  # far from the last box: the speed tells where
        assert numbers([*seen, *[[]] * gap, *again])[-1] == last, gap


def test_after_a_cut_everybody_is_new():
    assert numbers([[walker(0), walker(100)], [walker(300), walker(400)]]) == [[0, 1], [2, 3]]


def test_the_second_box_of_a_person_has_the_number_of_the_first():
    twice = [walker(0), walker(200), walker(4)]  # the detector's other text finds 0 again
    assert numbers([twice, [walker(0)], [walker(2), walker(5)]]) == [[0, 1, 0], [0], [0, 0]]


def test_boxes_without_an_area_and_frames_without_people():
    assert numbers([[], [[5, 5, 5, 5]], [], [walker(0)]]) == [[], [0], [], [1]]

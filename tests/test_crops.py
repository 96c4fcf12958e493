"""Boxes without an area (squares of other boxes: tests/test_goldens.py)."""

import numpy as np
import pytest

from human_anomaly.data.crops import cut, square_box

NO_AREA = [
    (5, 5, 5, 5),  # a point
    (5, 5, 5, 9),  # no width
    (5, 5, 9, 5),  # no height
    (9, 5, 5, 9),  # corners the wrong way round
]


@pytest.mark.parametrize("box", NO_AREA)
def test_boxes_without_an_area_have_no_square_and_an_empty_crop(box):
    assert square_box(box, 20, 20) is None
    assert cut(np.zeros((20, 20, 3), np.uint8), box).size == 0


def test_a_box_within_one_pixel_has_a_square_but_an_empty_crop():
    box = (5.2, 5.2, 5.6, 5.6)
    assert square_box(box, 20, 20) == (5, 5, 6, 6)
    assert cut(np.zeros((20, 20, 3), np.uint8), box).size == 0


# A frame's width and height, a box that leaves it, the square.
AT_THE_EDGE = [
    ((20, 20), (15, 5, 40, 12), (13, 5, 20, 12)),  # its centre lies right of the frame
    ((20, 20), (5, 15, 12, 40), (5, 13, 12, 20)),  # below it
    ((20, 20), (0, 0, 30, 30), None),  # larger than the frame
    ((40, 10), (0, 0, 30, 20), None),  # its shorter side fits the width alone
    ((10, 40), (0, 0, 20, 30), None),  # the height alone
]


@pytest.mark.parametrize(("frame", "box", "expected"), AT_THE_EDGE)
def test_boxes_that_leave_the_frame(frame, box, expected):
    assert square_box(box, *frame) == expected

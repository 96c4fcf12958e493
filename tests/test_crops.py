"""Boxes without an area (squares of other boxes: tests/test_goldens.py)."""

import numpy as np
import pytest

from data.crops import cut, square_box

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

"""The stand-in for mmcv's compiled operations."""

import sys

import pytest
import torch

from human_anomaly.third_party import mmcv_ext


@pytest.fixture(scope="module")
def operations():
    mmcv_ext.install()
    return sys.modules[mmcv_ext.NAME]


def test_nms_keeps_the_best_of_overlapping_boxes(operations):
    boxes = torch.tensor([[0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30.0]])
    kept = operations.nms(boxes, torch.tensor([0.5, 0.9, 0.1]), iou_threshold=0.5, offset=0)
    assert kept.tolist() == [1, 2]


def test_other_operations_name_themselves(operations):
    with pytest.raises(NotImplementedError, match="'roi_align_forward'"):
        operations.roi_align_forward(1, 2)


def test_python_can_look_at_it(operations):
    assert operations.__spec__.name == mmcv_ext.NAME
    with pytest.raises(AttributeError):
        operations.__path__  # noqa: B018


def test_a_module_that_is_there_is_left_alone():
    assert mmcv_ext.install() is False

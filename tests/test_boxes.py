"""One NMS for a batch gives the boxes that mmyolo finds image by image."""

import copy

import cv2
import numpy as np
import pytest
import torch

from demo.paths import DETECTOR_CONFIG, VIDEOS, WEIGHTS
from models.yolo_world.boxes import find_boxes
from models.yolo_world.predictor import Predictor


@pytest.mark.parametrize(("score_thr", "at_least"), [(0.1, 1), (1e-6, 100), (1.0, 0)])
def test_boxes_of_a_batch_are_those_of_mmyolo(score_thr, at_least):
    reader = cv2.VideoCapture(str(VIDEOS / "normal_1.mp4"))
    frame = reader.read()[1]
    reader.release()
    images = [frame, frame[:300, 100:257], np.ascontiguousarray(frame[64:0:-1, :200])]
    files = DETECTOR_CONFIG, WEIGHTS / "detector.pth"
    options = {"score_thr": score_thr, "batch_size": 3, "threads": 1}
    predictor = Predictor(*files, ("human", " "), **options)
    prepared = [predictor.letterbox(image) for image in images]
    batch, metas = predictor.batch([x for x, _ in prepared]), [meta for _, meta in prepared]
    head = copy.copy(predictor.model.bbox_head)
    head.num_classes = 2
    with torch.inference_mode():
        outs = predictor.raw(batch, predictor.embeddings[None])
        expected = head.predict_by_feat(*outs, batch_img_metas=metas, rescale=True)
        found = find_boxes(head, *outs, metas)
    assert len(found) == 3 and len(found[0]) >= at_least
    for one, other in zip(expected, found, strict=True):
        assert len(other) == len(one.bboxes)
        np.testing.assert_allclose(other[:, :4], one.bboxes.numpy(), atol=1e-3)
        np.testing.assert_allclose(other[:, 4], one.scores.numpy(), atol=1e-6)

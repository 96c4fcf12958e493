"""The detector's two passes: whose parts are whose, and boxes without an area."""

import cv2
import numpy as np
import pytest
import torch

from human_anomaly.demo.paths import DETECTOR_CONFIG, VIDEOS, WEIGHTS
from human_anomaly.models import detector
from human_anomaly.models.checkpoint import CheckpointError
from human_anomaly.models.yolo_world.build import load_detector
from human_anomaly.models.yolo_world.letterbox import Letterbox
from human_anomaly.models.yolo_world.predictor import Detections


def _found(*rows) -> Detections:
    """Return detections of (label, box)."""
    boxes = np.array([box for _, box in rows], np.float32).reshape(-1, 4)
    labels = np.array([label for label, _ in rows], np.int64)
    return Detections(boxes, np.full(len(rows), 0.9, np.float32), labels)


class _FakePredictor:
    """Finds `people` in every frame and `parts` in every crop."""

    people, parts = _found(), _found()

    def __init__(self, config, weights, texts, device, options):
        self.device, self.embeddings = device, torch.zeros(len(texts), 4)
        self.on_device, self.letterbox, self.crops = False, Letterbox((320, 320)), []

    def __call__(self, images, texts, stage, run=map):
        if stage == "detect people":
            return [self.people for _ in images]
        assert all(image.size for image in images)
        self.crops += images
        return [self.parts for _ in images]


def test_boxes_without_an_area_are_skipped_and_counted(monkeypatch):
    whole, flat, dot = (10, 10, 50, 60), (20, 20, 20, 40), (70.2, 70.2, 70.6, 70.6)
    faces_and_hand = ((0, (3, 3, 9, 9)), (0, (5, 5, 5, 5)), (1, (4, 8, 9, 8)))
    monkeypatch.setattr(_FakePredictor, "people", _found((0, whole), (0, flat), (1, dot)))
    monkeypatch.setattr(_FakePredictor, "parts", _found(*faces_and_hand))
    monkeypatch.setattr(detector, "Predictor", _FakePredictor)
    finder = detector.PartDetector("config", "weights")
    (found,) = finder.detect([np.zeros((100, 100, 3), np.uint8)])
    # The flat person is none; the dot is one whose crop is empty; a face and a hand are flat.
    assert [[part.part for part in person.parts] for person in found.people] == [
        ["human", "face"],
        ["human"],
    ]
    assert found.skipped == 4 and len(finder.predictor.crops) == 1


@pytest.mark.parametrize(("keep_padding_class", "people"), [(True, 2), (False, 1)])
def test_a_box_found_by_both_texts_is_searched_once(monkeypatch, keep_padding_class, people):
    """It counts as two people, as in the released code, and both get the crop's parts."""
    box, face = (10.4, 20.7, 50, 60), (3, 4, 9, 12)
    monkeypatch.setattr(_FakePredictor, "people", _found((0, box), (1, box)))
    monkeypatch.setattr(_FakePredictor, "parts", _found((0, face), (2, face)))
    monkeypatch.setattr(detector, "Predictor", _FakePredictor)
    finder = detector.PartDetector("config", "weights", keep_padding_class=keep_padding_class)
    (found,) = finder.detect([np.zeros((100, 100, 3), np.uint8)])
    assert len(finder.predictor.crops) == 1 and finder.predictor.crops[0].shape == (40, 40, 3)
    assert len(found.people) == people
    for person in found.people:
        assert [part.part for part in person.parts] == ["human", "face"]
        assert person.parts[1].bbox == (13, 24, 19, 32)  # moved by the box's whole pixels


def test_nobody_and_no_frames(monkeypatch):
    monkeypatch.setattr(detector, "Predictor", _FakePredictor)
    finder = detector.PartDetector("config", "weights")
    assert finder.detect([]) == []
    (found,) = finder.detect([np.zeros((100, 100, 3), np.uint8)])
    assert found.people == [] and found.skipped == 0


def test_sixteen_bits_leave_the_outermost_layers_exact():
    reader = cv2.VideoCapture(str(VIDEOS / "normal_1.mp4"))
    frame = reader.read()[1]
    reader.release()
    files = DETECTOR_CONFIG, WEIGHTS / "detector.pth"
    exact = detector.PartDetector(*files)
    fast = detector.PartDetector(*files, dtype=torch.bfloat16)
    model = fast.predictor.model
    types = {module: {p.dtype for p in module.parameters()} for module in model.children()}
    assert types[model.neck] == {torch.bfloat16} and types[model.bbox_head] == {torch.float32}
    assert model.backbone.image_model.stem.conv.weight.dtype == torch.float32
    (one,), (other,) = exact.detect([frame]), fast.detect([frame])
    assert len(one.people) == len(other.people) > 0
    moved = []
    for a, b in zip(one.people, other.people, strict=True):
        assert [p.part for p in a.parts] == [p.part for p in b.parts]
        moved += [
            np.abs(np.subtract(p.bbox, q.bbox)).max() for p, q in zip(a.parts, b.parts, strict=True)
        ]
    assert 0 < max(moved) < 2  # pixels: other numbers, nearly the same boxes


# What an edited config says, and what is wrong with it.
CONFIGS = [
    ("model = dict(mm_neck=True)", "TypeError: .*mm_neck"),
    ("model = dict(neck=dict(num_heads=None))", "TypeError: "),
    ("model = dict(neck=dict(type='CSPNeXt'))", "Error: "),
    ("model = dict(test_cfg=dict(_delete_=True))", "AttributeError: .*multi_label"),
    ("model = dict(test_cfg=None)", "AttributeError: .*multi_label"),
    ("img_scale = None\nmodel = dict(bbox_head=None)", "Error: "),
    ("model = None", "AttributeError: .*type"),
    ("model = dict(type=1 / 0)", "ZeroDivisionError: "),
    ("model = dict(", "SyntaxError: "),
]


@pytest.mark.parametrize(("text", "wrong"), CONFIGS)
def test_an_incomplete_config_is_one_line(tmp_path, text, wrong):
    path = tmp_path / "edited.py"
    path.write_text(f"_base_ = {str(DETECTOR_CONFIG)!r}\n{text}\n")
    with pytest.raises(CheckpointError, match=rf"^--detector_config: {path}: .*{wrong}") as error:
        load_detector(path, WEIGHTS / "detector.pth", ["human"])
    assert "\n" not in str(error.value)

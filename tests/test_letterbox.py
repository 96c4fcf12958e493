"""The two letterboxes: one geometry, nearly the same pixels; and scoring with either."""

import numpy as np
import pytest
import torch
from conftest import ROOT

from human_anomaly.configs.defaults import PARTS, get_config
from human_anomaly.data.transforms import build_eval_transform
from human_anomaly.data.video import FrameReader, Source
from human_anomaly.demo.paths import CONFIG, DETECTOR_CONFIG, WEIGHTS
from human_anomaly.models.classifier import load_classifier
from human_anomaly.models.detector import PartDetector
from human_anomaly.models.scoring.scorer import VideoScorer
from human_anomaly.models.yolo_world.letterbox import DeviceLetterbox, Letterbox


def _photo(height: int, width: int) -> np.ndarray:
    """Return a smooth BGR picture."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (17 + 9 * c) + c) * np.cos(y / (23 - 5 * c)) for c in range(3)]
    return np.uint8(127 + 120 * np.stack(waves, 2))


@pytest.mark.parametrize(
    "shape",
    [(1080, 1920), (720, 405), (641, 640), (97, 33), (320, 320), (1000, 4)],
)
def test_tensors_get_the_geometry_and_nearly_the_pixels_of_arrays(shape):
    image = _photo(*shape)
    plain, expected = Letterbox((320, 320))(image)
    found, meta = DeviceLetterbox((320, 320))(torch.from_numpy(image))
    assert found.shape == plain.shape and found.dtype == torch.uint8
    assert meta["ori_shape"] == expected["ori_shape"]
    assert meta["scale_factor"] == pytest.approx(expected["scale_factor"])
    np.testing.assert_array_equal(meta["pad_param"], expected["pad_param"])
    assert np.abs(found.numpy().astype(int) - plain).mean() < 3


def test_an_image_without_pixels_after_resizing_does_not_fit():
    box = Letterbox((640, 640))
    assert box.fits(np.empty((9, 5, 3))) and box.fits(np.empty((1080, 1920, 3)))
    assert not box.fits(np.empty((0, 5, 3))) and not box.fits(np.empty((2, 5000, 3)))


@pytest.mark.parametrize("shape", [(300, 300), (90, 91), (224, 224), (700, 699)])
@pytest.mark.parametrize("crop", [False, True])
def test_crops_are_resized_the_same_on_the_device(shape, crop):
    from PIL import Image

    transform, image = build_eval_transform(size=224, crop=crop), _photo(*shape)
    plain = transform.pixels(Image.fromarray(image)).astype(int)
    found = transform.pixels_on_device(torch.from_numpy(image)).numpy()
    assert found.shape == plain.shape == (224, 224, 3)
    difference = np.abs(found - plain)
    assert difference.max() <= 2 and difference.mean() < 0.2


def test_scoring_tensors_finds_the_same_people():
    """What fast mode does on a GPU, here on the CPU in float32."""
    config = get_config(CONFIG)
    models = {part: load_classifier(WEIGHTS / f"{part}.pth", config, "cpu") for part in PARTS}
    source = Source(ROOT / "demo/videos/hand_fused.mp4", "hand_fused")
    assert FrameReader(source).frames_expected > 20
    results = []
    for options in ({}, {"on_device": True}):
        detector = PartDetector(DETECTOR_CONFIG, WEIGHTS / "detector.pth", "cpu", **options)
        results.append(VideoScorer(detector, models, config, stride=10).score(source).summary)
    exact, fast = results
    assert abs(fast["people"] - exact["people"]) <= 1 and exact["people"] > 0
    assert fast["score_soft"] == pytest.approx(exact["score_soft"], abs=0.1)

"""The two letterboxes: one geometry, nearly the same pixels; and scoring with either."""

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from human_anomaly.configs.defaults import PARTS, get_config
from human_anomaly.data.transforms import EvalTransform
from human_anomaly.data.video import FrameReader, Source, VideoError
from human_anomaly.demo.paths import CONFIG, DETECTOR_CONFIG, WEIGHTS
from human_anomaly.models.classifier import InputForm, load_classifier
from human_anomaly.models.detector import PartDetector
from human_anomaly.models.on_device import place
from human_anomaly.models.scoring.judge import CropJudge
from human_anomaly.models.scoring.scorer import VideoScorer
from human_anomaly.models.yolo_world.letterbox import DeviceLetterbox, Letterbox

CPU = torch.device("cpu")


def _photo(height: int, width: int) -> np.ndarray:
    """Return a smooth BGR picture."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (17 + 9 * c) + c) * np.cos(y / (23 - 5 * c)) for c in range(3)]
    return np.uint8(127 + 120 * np.stack(waves, 2))


SHAPES = [(1080, 1920), (720, 1280), (720, 405), (641, 640), (97, 33), (320, 320), (1000, 4)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("draw", ["photo", "noise"])
def test_regions_get_the_geometry_and_the_pixels_of_arrays(shape, draw):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = _photo(*shape) if draw == "photo" else noise
    plain, expected = Letterbox((320, 320))(image)
    (region,) = place([image], CPU)
    batch, (meta,) = DeviceLetterbox((320, 320)).batch([region])
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert meta["ori_shape"] == expected["ori_shape"]
    assert meta["scale_factor"] == pytest.approx(expected["scale_factor"])
    np.testing.assert_array_equal(meta["pad_param"], expected["pad_param"])
    found = batch[0].mul(255).round().flip(0).permute(1, 2, 0).numpy().astype(int)
    difference = np.abs(found - plain)
    assert difference.max() <= 1 and difference.mean() < 0.08
    if min(shape) > 320:  # OpenCV's areas
        assert (difference > 0).mean() < 1e-3


def test_regions_of_a_batch_are_each_resized_as_alone():
    frames = [_photo(90, 160), _photo(200, 100)]
    regions = place(frames, CPU)
    cuts = [
        regions[0],
        regions[1][10:150, 20:90],
        regions[0][5:15, 3:120],
        regions[1][0:999, 0:999],
    ]
    box = DeviceLetterbox((64, 64))
    together, metas = box.batch(cuts)

    def pixels_of(region) -> np.ndarray:
        x1, y1, x2, y2 = region.xyxy
        return region.frames[region.number, y1:y2, x1:x2].numpy()

    for cut, pixels, meta in zip(cuts, together, metas, strict=True):
        alone, (same,) = box.batch(place([pixels_of(cut)], CPU))
        assert (pixels - alone[0]).abs().max() <= 1.01 / 255 and str(same) == str(meta)
    np.testing.assert_array_equal(pixels_of(cuts[1]), frames[1][10:150, 20:90])
    assert cuts[3].shape == (200, 100, 3) and regions[0][50:10, 3:9].shape == (0, 6, 3)


def test_an_image_without_pixels_after_resizing_does_not_fit():
    box = Letterbox((640, 640))
    assert box.fits(np.empty((9, 5, 3))) and box.fits(np.empty((1080, 1920, 3)))
    assert not box.fits(np.empty((0, 5, 3))) and not box.fits(np.empty((2, 5000, 3)))


@pytest.mark.parametrize("on_device", [False, True])
def test_a_frame_that_is_too_thin_is_an_error_of_its_video(on_device):
    detector = PartDetector(DETECTOR_CONFIG, WEIGHTS / "detector.pth", CPU, on_device=on_device)
    frames = [np.zeros((2, 700, 3), np.uint8)]
    with pytest.raises(VideoError, match="frames of 700x2 pixels are too thin for the detector"):
        detector.detect(place(frames, CPU) if on_device else frames)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("crop", [False, True])
def test_crops_are_resized_the_same_on_the_device(interpolation, crop):
    """All in two operations: some are larger than the network's input, some smaller."""
    kind = {"size": 224, "crop": crop, "interpolation": interpolation}
    transform = EvalTransform(**kind)
    images = [_photo(*shape) for shape in ((300, 300), (90, 91), (224, 224), (700, 699), (31, 30))]
    judge = CropJudge({}, InputForm(**kind), device=CPU)
    crops = judge._on_device({"face": [], "hand": place(images, CPU)})
    assert len(crops["face"]) == 0 and len(crops["hand"]) == 5
    for image, found in zip(images, crops["hand"], strict=True):
        plain = transform.pixels(Image.fromarray(image[:, :, ::-1])).astype(int)
        assert np.abs(found.numpy() - plain).max() <= 1


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

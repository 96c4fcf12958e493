"""int8 products are near those of float32; whole networks in int8 find nearly the same."""

import numpy as np
import pytest
import torch
from torch import nn

from human_anomaly.configs.defaults import get_config
from human_anomaly.data.video import VideoError
from human_anomaly.demo.paths import CONFIG, DETECTOR_CONFIG, WEIGHTS
from human_anomaly.models.classifier import in_type, load_classifier
from human_anomaly.models.cpu import int8
from human_anomaly.models.detector import PartDetector


@pytest.fixture(autouse=True)
def _exact():
    if not int8.is_exact():
        pytest.skip("this processor, or build of torch, is not exact in int8")


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(24, 40, 3, stride=2, padding=1), (2, 24, 17, 20)),
        (nn.Conv2d(24, 40, 1, bias=False), (1, 24, 9, 9)),
        (nn.Conv2d(24, 24, 3, padding=1, groups=4), (1, 24, 8, 8)),
        (nn.Linear(48, 20), (3, 5, 48)),
        (nn.Linear(48, 20, bias=False), (7, 48)),
    ],
)
@pytest.mark.parametrize("shift", [0.0, 3.0, -3.0])
@torch.inference_mode()
def test_products_are_near_those_of_float32(layer, shape, shift):
    torch.manual_seed(0)
    x = torch.randn(shape) + shift
    kind = int8.Int8Conv2d if isinstance(layer, nn.Conv2d) else int8.Int8Linear
    found, expected = kind(layer)(x), layer(x)
    assert found.dtype == torch.float32 and found.shape == expected.shape
    assert (found - expected).abs().max() < 0.03 * expected.abs().max()


@torch.inference_mode()
@pytest.mark.parametrize(
    "x", [torch.zeros(2, 8), torch.full((2, 8), 5.0), torch.ones(2, 8) * 1e-30]
)
def test_inputs_without_a_range(x):
    layer = nn.Linear(8, 4)
    torch.testing.assert_close(int8.Int8Linear(layer)(x), layer(x), atol=0.02, rtol=0.01)


def test_every_input_is_rounded_to_the_nearest_level():
    x = torch.linspace(-1.0, 3.0, 10_001)
    integers, scale, zero = int8._Int8._round(x)
    error = (integers.float() - zero) * scale - x
    assert error.abs().max() <= 0.51 * scale and integers.max() <= 255


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_not_hidden(number):
    with pytest.raises(VideoError, match="not finite"):
        int8.Int8Linear(nn.Linear(8, 4))(torch.tensor([[1.0] * 7 + [number]]))


@torch.inference_mode()
def test_a_classifier_in_int8_gives_nearly_the_same():
    model = load_classifier(WEIGHTS / "hand.pth", get_config(CONFIG), "cpu")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    size = get_config(CONFIG).DATA.IMG_SIZE
    x = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    found, expected = in_type(model, torch.int8)(x), model(x)
    assert 0 < (found - expected).abs().max() < 0.3  # logits
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_detector_in_int8_leaves_the_outermost_layers_in_float32():
    detector = PartDetector(DETECTOR_CONFIG, WEIGHTS / "detector.pth", dtype=torch.int8)
    model = detector.predictor.model
    counts = {
        name: sum(isinstance(m, int8.Int8Conv2d) for m in part.modules())
        for name, part in {
            "stem": model.backbone.image_model.stem,
            "stage1": model.backbone.image_model.stage1,
            "stage4": model.backbone.image_model.stage4,
            "neck": model.neck,
            "head": model.bbox_head,
        }.items()
    }
    assert counts["stem"] == counts["stage1"] == counts["head"] == 0
    assert counts["stage4"] > 3 and counts["neck"] > 10
    (found,) = detector.detect([np.full((90, 160, 3), 114, np.uint8)])
    assert found.people == []

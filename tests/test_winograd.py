"""Convolutions by Winograd's method are as exact as direct ones and take their places."""

import pytest
import torch
from torch import nn

from human_anomaly.demo.paths import DETECTOR_CONFIG, WEIGHTS
from human_anomaly.models import device
from human_anomaly.models.cpu import winograd
from human_anomaly.models.yolo_world import predictor
from human_anomaly.models.yolo_world.predictor import Predictor


def draw(batch: int, channels: int, outputs: int, height: int, width: int, **options):
    """Return a convolution and its input."""
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, outputs, 3, padding=1, **options).requires_grad_(False)
    x = torch.randn(batch, channels, height, width)
    return conv, x.to(memory_format=torch.channels_last)


def error(found: torch.Tensor, conv: nn.Conv2d, x: torch.Tensor) -> float:
    """Return the root of the mean squared distance from the result in float64."""
    bias = None if conv.bias is None else conv.bias.double()
    exact = nn.functional.conv2d(x.double(), conv.weight.double(), bias, padding=1)
    assert found.shape == exact.shape and found.dtype == torch.float32
    return (found - exact).square().mean().sqrt().item()


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 130, 128, 20, 12), {}),
        ((3, 128, 140, 7, 9), {}),  # no whole number of tiles
        ((1, 128, 128, 1, 1), {}),
        ((2, 128, 128, 5, 6), {"bias": False}),
    ],
)
@pytest.mark.parametrize("buffer", [winograd.BUFFER, 1])  # all tiles in a step, and a row of them
@torch.inference_mode()
def test_as_exact_as_a_direct_convolution(shape, options, buffer, monkeypatch):
    monkeypatch.setattr(winograd, "BUFFER", buffer)
    conv, x = draw(*shape, **options)
    found = winograd.faster(conv)
    assert isinstance(found, winograd.WinogradConv2d)
    assert error(found(x), conv, x) < 1e-6
    assert found(x).is_contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def test_the_points_keep_rounding_errors_small(monkeypatch):
    conv, x = draw(1, 256, 128, 24, 24)
    ours = error(winograd.WinogradConv2d(conv)(x), conv, x)
    monkeypatch.setattr(winograd, "POINTS", (0, 1, -1, 2, -2))
    usual = error(winograd.WinogradConv2d(conv)(x), conv, x)
    assert ours < 0.7 * usual
    assert ours < 4 * error(conv(x), conv, x)


@torch.inference_mode()
def test_a_picture_gives_the_same_alone_and_in_a_batch():
    conv, x = draw(5, 128, 128, 20, 20)
    whole = winograd.WinogradConv2d(conv)
    torch.testing.assert_close(whole(x)[3:4], whole(x[3:4]), atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(128, 128, 1),
        nn.Conv2d(128, 128, 3),
        nn.Conv2d(128, 128, 3, padding=1, stride=2),
        nn.Conv2d(128, 128, 3, padding=2, dilation=2),
        nn.Conv2d(128, 128, 3, padding=1, groups=2),
        nn.Conv2d(128, 128, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(128, 64, 3, padding=1),
        nn.Conv2d(128, 128, 3, padding=1, dtype=torch.bfloat16),
    ],
)
def test_other_convolutions_stay(conv):
    assert winograd.faster(conv) is conv


def build(**options) -> Predictor:
    files = (DETECTOR_CONFIG, WEIGHTS / "detector.pth", ["human"])
    return Predictor(*files, options=predictor.Options(batch_size=1, **options))


def test_the_detector_finds_the_same(monkeypatch):
    images = torch.rand(2, 3, 320, 320, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(predictor, "faster", lambda conv: conv)
    direct = build()
    monkeypatch.undo()
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 16)  # the demo's layers are small
    ours = build()
    kinds = [type(module) for module in ours.model.modules()]
    assert kinds.count(winograd.WinogradConv2d) > 10
    with torch.inference_mode():
        found, expected = (p.raw(images, p.embeddings[None]) for p in (ours, direct))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)  # 1e-3 strides: 0.03 pixels


def test_the_probe_times_float32_as_exact_mode_computes_it(monkeypatch):
    timed = []
    monkeypatch.setattr(device, "_time", lambda layers, *_, **k: timed.append(layers[0]) or 1.0)
    device.measure_types(torch.device("cpu"))
    assert isinstance(timed[1], winograd.WinogradConv2d)

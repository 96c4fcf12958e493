"""Convolutions and linear layers whose products are computed in int8, for CPUs.

Processors with VNNI instructions (most servers since 2019) multiply int8 about four times as fast
as float32, also where their bfloat16 is slow or missing. Weights are rounded once, with a scale for
each output channel. Inputs are rounded as they come, with one scale for the tensor: fixed ranges
from a calibration set changed several times as many verdicts (benchmarks/README.md).
"""

import math

import torch
from torch import Tensor, nn

from human_anomaly.data.video import VideoError

LEVELS = 254  # steps from an input's least to its greatest value; rounding may need the 255th
TINY = 1e-12  # a scale must not be 0


class _Int8(nn.Module):
    """A layer's int8 weights, float32 bias, and the rounding of its inputs."""

    def __init__(self, layer: nn.Conv2d | nn.Linear):
        super().__init__()
        weight = layer.weight.data.float()
        largest = weight.flatten(1).abs().amax(1).clamp_min(TINY)
        self.scales, self.bias = largest / 127, layer.bias
        self.zeros = torch.zeros(len(weight), dtype=torch.int64)
        shape = (-1, *[1] * (weight.ndim - 1))
        self.weight = self._pack((weight / self.scales.view(shape)).round().to(torch.int8), layer)

    @staticmethod
    def _round(x: Tensor) -> tuple[Tensor, float, int]:
        """Return (integers uint8, scale, zero): x is about (integers - zero) * scale.

        Raises VideoError for numbers that are not finite, which integers would hide.
        """
        low, high = (float(v) for v in torch.aminmax(x))
        if not math.isfinite(high - low):
            raise VideoError("a network computes numbers that are not finite")
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max((high - low) / LEVELS, TINY)
        zero = round(-low / scale)
        # Half a step is added because the conversion to integers cuts fractions off.
        return torch.add(torch.tensor(zero + 0.5), x, alpha=1 / scale).to(torch.uint8), scale, zero


class Int8Conv2d(_Int8):
    """Takes and returns float32 (B, C, H, W), channels last in memory."""

    def _pack(self, weight: Tensor, layer: nn.Conv2d) -> Tensor:
        self.geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
        return torch.ops.onednn.qconv_prepack(weight, self.scales, 1.0, 0, *self.geometry)

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
        integers, scale, zero = self._round(x)  # in the order of memory, which is faster
        integers = integers.permute(0, 3, 1, 2)
        weight = (self.weight, self.scales, self.zeros, self.bias)
        result = (1.0, 0, torch.float32, "none", [], "")
        conv = torch.ops.onednn.qconv2d_pointwise
        return conv(integers, scale, zero, *weight, *self.geometry, *result)


class Int8Linear(_Int8):
    """Takes and returns float32 (..., C)."""

    def _pack(self, weight: Tensor, _layer: nn.Linear) -> Tensor:
        return torch.ops.onednn.qlinear_prepack(weight, None)

    def forward(self, x: Tensor) -> Tensor:
        integers, scale, zero = self._round(x)
        weight = (self.weight, self.scales, self.zeros, self.bias)
        result = (1.0, 0, torch.float32, "none", [], "")
        return torch.ops.onednn.qlinear_pointwise(integers, scale, zero, *weight, *result)


def is_exact() -> bool:
    """Return whether this processor adds up int8 products without overflow.

    Processors without VNNI add pairs of products in 16 bits, which the largest pairs exceed.
    """
    layer = nn.Linear(64, 16, bias=False)
    nn.init.ones_(layer.weight)
    try:
        found = Int8Linear(layer)(torch.ones(32, 64))
    except (AttributeError, RuntimeError):  # a build of torch without these operations
        return False
    return bool((found - 64).abs().max() < 0.01)

"""3x3 convolutions in float32 with a quarter of the multiplications, for CPUs.

Winograd's method (Lavin and Gray, arXiv 1509.09308): 4x4 outputs are computed from 6x6 inputs with
36 products for each pair of channels instead of 144. Inputs, weights and products are values of
polynomials at six points, the last at infinity. The usual points 0, 1, -1, 2, -2 make rounding
errors twice as large. With those below, which were tried out, boxes are as exact as with direct
convolutions (benchmarks/README.md).
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

POINTS = (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2)
TILE = 4  # rows and columns of outputs that are computed together
WINDOW = TILE + 2  # rows and columns of inputs that they need
LEAST_CHANNELS = 128  # below, moving tiles in memory takes what the products save
BUFFER = 8 << 20  # bytes of the largest tensor of a step, which the processor's cache should hold


class WinogradConv2d(nn.Module):
    """Computes what `conv`, a 3x3 convolution of stride 1 and padding 1, does.

    Takes and returns float32 (B, C, H, W), channels last in memory.
    """

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        data, weight, out = _transforms()
        taps = conv.weight.data.permute(2, 3, 1, 0)  # (3, 3, C, O)
        moved = torch.kron(weight, weight).float() @ taps.flatten(2).flatten(0, 1)
        self.weight = moved.view(WINDOW**2, *taps.shape[2:])  # (36, C, O)
        self.bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias
        self.data = torch.kron(data, data).float()  # (36, 36): of a window's inputs
        self.out = torch.kron(out, out).float()  # (16, 36): of the products, to a tile's outputs

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        rows, columns = -(-height // TILE), -(-width // TILE)
        right, below = columns * TILE - width + 1, rows * TILE - height + 1
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, right, 1, below))
        windows = x.unfold(1, WINDOW, TILE).unfold(2, WINDOW, TILE).permute(4, 5, 0, 1, 2, 3)
        y = x.new_empty((batch, rows, TILE, columns, TILE, self.weight.shape[2]))
        tiles = y.permute(2, 4, 0, 1, 3, 5)  # (4, 4, B, rows, columns, O), as windows are
        step = max(1, BUFFER // (4 * WINDOW**2 * columns * max(self.weight.shape[1:])))
        images = max(1, step // rows)
        for first in range(0, batch, images):
            for row in range(0, rows, step):
                part = np.s_[:, :, first : first + images, row : row + step]
                self._convolve(windows[part], tiles[part])
        y = y.view(batch, rows * TILE, columns * TILE, -1)[:, :height, :width]
        return y.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    def _convolve(self, windows: Tensor, tiles: Tensor) -> None:
        """Write into `tiles` (4, 4, ..., O) the outputs of `windows` (6, 6, ..., C)."""
        moved = self.data @ windows.reshape(WINDOW**2, -1)
        products = torch.bmm(moved.view(WINDOW**2, -1, windows.shape[-1]), self.weight)
        found = self.out @ products.view(WINDOW**2, -1)
        torch.add(found.view(tiles.shape), self.bias, out=tiles)


def _transforms() -> tuple[Tensor, Tensor, Tensor]:
    """Return the matrices (6, 6), (6, 3), (4, 6) float64 for a row's inputs, weights and outputs.

    For 6 inputs d and 3 weights g, the 4 outputs are out @ ((weight @ g) * (data @ d)).
    """
    points = torch.tensor(POINTS, dtype=torch.float64)

    def powers(count: int) -> Tensor:
        at_infinity = torch.eye(count, dtype=torch.float64)[-1:]
        return torch.cat([points[:, None] ** torch.arange(count), at_infinity])

    return torch.linalg.inv(powers(WINDOW)).T, powers(3), powers(TILE).T


def faster(conv: nn.Conv2d) -> nn.Module:
    """Return `conv` with fewer multiplications, or itself where that is impossible or no gain."""
    shape = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups)
    fits = shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1) and conv.padding_mode == "zeros"
    enough = min(conv.in_channels, conv.out_channels) >= LEAST_CHANNELS
    in_float32 = conv.weight.dtype == torch.float32
    return WinogradConv2d(conv) if fits and enough and in_float32 else conv

"""Cutting and resizing on a device: many regions of a batch of frames in a few operations.

Pictures are resized by one matrix product per axis, whose weights are computed on the device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Region:
    """The pixels xyxy of frame `number` of `frames` (B, H, W, 3) uint8 BGR; slices like an array.

    `frames` lies on the device.
    """

    frames: Tensor
    number: int
    xyxy: tuple[int, int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        x1, y1, x2, y2 = self.xyxy
        return y2 - y1, x2 - x1, 3

    def __getitem__(self, rows_and_columns: tuple[slice, slice]) -> "Region":
        ends = zip(rows_and_columns, self.shape, strict=False)
        (top, bottom, _), (left, right, _) = (part.indices(size) for part, size in ends)
        x, y = self.xyxy[:2]
        xyxy = (x + left, y + top, x + max(left, right), y + max(top, bottom))
        return Region(self.frames, self.number, xyxy)


def place(images: Sequence[np.ndarray | Tensor], device: torch.device) -> list[Region]:
    """Copy frames (H, W, 3) uint8 BGR to `device`, in one copy if all lie on one device."""
    frames = [torch.from_numpy(x) if isinstance(x, np.ndarray) else x for x in images]
    if len({frame.device for frame in frames}) > 1:
        frames = [frame.to(device, non_blocking=True) for frame in frames]
    sizes = [frame.shape[:2] for frame in frames]
    height, width = np.max(sizes, 0).tolist()
    if len(set(sizes)) > 1:
        frames = [F.pad(x, (0, 0, 0, width - x.shape[1], 0, height - len(x))) for x in frames]
    together = torch.stack(frames).to(device, non_blocking=True)
    return [Region(together, i, (0, 0, w, h)) for i, (h, w) in enumerate(sizes)]


def bilinear(distance: Tensor) -> Tensor:
    return (1 - distance).clamp_(min=0)


def bicubic(distance: Tensor) -> Tensor:
    """Return Pillow's bicubic weights (a = -0.5), as a sum of two truncated cubics."""
    far = (2 - distance).clamp_(min=0)
    rest = far - 1
    square, near = far.square(), rest.clamp(min=0).square()
    near = torch.addcmul(near, near, rest, value=-2)
    return torch.add(near, square.mul_(rest), alpha=0.5)


def resize(
    regions: Sequence[Region],
    centres: np.ndarray,
    scales: np.ndarray,
    kernel: Callable[[Tensor], Tensor] | None = None,
    *,
    rgb: bool = True,
    grey: int = 0,
) -> Tensor:
    """Return (N, n, 3, n) float32 of `regions`: rows, channels, columns; whole numbers in 0..255.

    For rows and columns, `centres` (N, 2, n) holds each output pixel's place in its region, and
    `scales` (N, 2) how many of the region's pixels it covers. Far outside there is `grey`. With a
    `kernel` the result is Pillow's, else OpenCV's (areas, or bilinear where a picture grows), at
    most one grey level off.
    """
    assert all(region.frames is regions[0].frames for region in regions)
    device = regions[0].frames.device
    boxes = np.array([(*r.xyxy[1::-1], *r.xyxy[:1:-1], r.number) for r in regions])  # y before x
    sizes = boxes[:, 2:4] - boxes[:, :2]
    height, width = sizes.max(0).tolist()
    table = (centres, scales.clip(1)[..., None], sizes[..., None])
    table = np.concatenate(table, 2, dtype=np.float32)
    if (boxes[:, :4] == boxes[0, :4]).all():  # whole frames
        table = table[:1]
    where = torch.from_numpy(boxes - (0, 0, 1, 1, 0)).to(device, non_blocking=True)
    table = torch.from_numpy(table).to(device, non_blocking=True)[..., None]
    pixels = torch.arange(max(height, width), device=device)

    # Cut: smaller regions are filled up with their last row and column.
    at = torch.minimum(where[:, :2, None] + pixels, where[:, 2:4, None])  # (N, 2, pixels)
    channels = torch.arange(2, -1, -1, device=device) if rgb else torch.arange(3, device=device)
    frame, rows = where[:, 4, None, None, None], at[:, 0, :height, None, None]
    columns = at[:, 1, None, None, :width]
    x = regions[0].frames[frame, rows, columns, channels[:, None]].to(torch.float32)
    x = (x.sub_(grey) if grey else x).flatten(1, 2)  # (N, h * 3, w)

    # Resize.
    distance, scale = (pixels - table[:, :, :-2]).abs_(), table[:, :, -2:-1]
    if kernel is None:
        weights = (scale / 2 + 0.5 - distance).clamp_(0, 1).div_(scale)
    else:
        weights = kernel(distance.div_(scale)).mul_(pixels < table[:, :, -1:])
        weights = weights.div_(weights.sum(3, keepdim=True))  # (N, 2, n, pixels)
    x = x @ weights[:, 1, :, :width].mT
    x = x if kernel is None else x.round_().clamp_(0, 255)  # Pillow has bytes between the axes
    x = weights[:, 0, :, :height] @ x.unflatten(1, (height, 3)).flatten(2)
    half = 1e-3 if (scales == 2).all() else 0.0  # OpenCV rounds halves up at this scale alone
    x = x.add_(grey + half).round_() if kernel is None else x.round_().clamp_(0, 255)
    return x.unflatten(2, (3, -1))

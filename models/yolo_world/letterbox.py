"""Resizing an image into the detector's square, the rest padded with grey."""

import numpy as np
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from models.yolo_world.build import register

GREY = 114  # the level of the padding
CELL = 32  # pixels per side of a cell of the coarsest feature map
MARGIN = CELL  # pixels of padding that `to_aspect` keeps on every side that has as many
Image = np.ndarray | Tensor


class Letterbox:
    """Resizes a BGR image into `size` = (width, height), keeping its aspect, and pads with grey.

    With `to_aspect`, padding beyond a margin is cut off again. It is cut in whole cells, so the
    image lies on the network's cells as before, and to sides that are multiples of `step` pixels.
    The margin keeps the image away from the zeros with which convolutions pad: without it boxes
    move, and some verdicts change. Resizing is mmyolo's own, which gives the reference values.
    """

    def __init__(self, size: tuple[int, int], *, to_aspect: bool = False, step: int = CELL):
        register()
        from mmyolo.datasets.transforms import LetterResize, YOLOv5KeepRatioResize

        if step % CELL:
            raise ValueError(f"step: expected a multiple of {CELL}, got {step}")
        self.size, self.to_aspect, self.step = tuple(size), to_aspect, step
        self._resize = YOLOv5KeepRatioResize(scale=self.size)
        self._pad = LetterResize(scale=self.size, allow_scale_up=False, pad_val={"img": GREY})

    def resized(self, image: Image) -> tuple[int, int]:
        """Return the width and height of `image` (H, W, 3) after resizing, before padding."""
        height, width = image.shape[:2]
        ratio = min(max(self.size) / max(height, width), min(self.size) / min(height, width))
        return int(width * ratio), int(height * ratio)

    def fits(self, image: Image) -> bool:
        """Return whether both sides of `image` are at least a pixel long after resizing."""
        return min(image.shape[:2]) > 0 and min(self.resized(image)) > 0

    def window(self, image: Image) -> tuple[slice, slice]:
        """Return which columns and rows of the padded square are kept."""
        if not self.to_aspect:
            return slice(0, self.size[0]), slice(0, self.size[1])
        sides = zip(self.size, self.resized(image), strict=True)
        return tuple(self._kept(full, side) for full, side in sides)

    def _kept(self, full: int, side: int) -> slice:
        """Return the kept part of a square's side: `full` pixels, `side` of them the image."""
        before = (full - side) // 2
        start = max(0, before - MARGIN) // CELL * CELL
        length = before + side + MARGIN - start
        length = -(-length // self.step) * self.step
        start = max(0, min(start, (full - length) // CELL * CELL))
        return slice(start, min(full, start + length))

    def shape(self, image: Image) -> tuple[int, int]:
        """Return the width and height of `image` after padding."""
        return tuple(kept.stop - kept.start for kept in self.window(image))

    def __call__(self, image: np.ndarray) -> tuple[Image, dict]:
        """Return the padded image (H, W, 3) uint8 BGR, and what mmyolo needs to map boxes back."""
        columns, rows = self.window(image)
        results = {"img": image, "img_shape": image.shape[:2]}
        results = self._pad(self._resize(results))
        meta = {
            "ori_shape": image.shape[:2],
            "scale_factor": results["scale_factor"],
            "pad_param": self._padding(results["pad_param"], columns, rows),
        }
        return results["img"][rows, columns], meta

    def _padding(self, whole: np.ndarray, columns: slice, rows: slice) -> np.ndarray:
        """Return how much is kept of the square's padding `whole`: top, bottom, left, right."""
        ends = self.size[1] - rows.stop, self.size[0] - columns.stop
        cut = (rows.start, ends[0], columns.start, ends[1])
        return whole - np.array(cut, whole.dtype)


class DeviceLetterbox(Letterbox):
    """The same geometry for tensors (H, W, 3) uint8 BGR, resized on the device that holds them.

    Pixels differ by a few grey levels: torchvision's resizing is antialiased bilinear, OpenCV's
    averages areas.
    """

    def __call__(self, image: Tensor) -> tuple[Tensor, dict]:
        width, height = self.resized(image)
        pixels = F.resize(image.permute(2, 0, 1), [height, width], antialias=True)
        full_width, full_height = self.size
        left, top = (full_width - width) // 2, (full_height - height) // 2
        whole = (top, full_height - height - top, left, full_width - width - left)
        padding = self._padding(np.array(whole, np.float32), *self.window(image))
        top, bottom, left, right = map(int, padding)
        padded = F.pad(pixels, [left, top, right, bottom], fill=GREY)
        original_height, original_width = image.shape[:2]
        meta = {
            "ori_shape": (original_height, original_width),
            "scale_factor": (width / original_width, height / original_height),
            "pad_param": padding,
        }
        return padded.permute(1, 2, 0), meta

"""Resizing an image into the detector's square, the rest padded with grey."""

import numpy as np
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from human_anomaly.models.yolo_world.build import register

GREY = 114  # the level of the padding
Image = np.ndarray | Tensor


class Letterbox:
    """Resizes a BGR image to fit `size` = (width, height), keeping its aspect, and pads with grey.

    Fast mode computes the whole square too: with less grey, the picture is nearer to the zeros that
    pad the convolutions, and 3% of the verdicts changed. Resizing is mmyolo's own, which gives the
    reference values.
    """

    def __init__(self, size: tuple[int, int]):
        register()
        from mmyolo.datasets.transforms import LetterResize, YOLOv5KeepRatioResize

        self.size = tuple(size)
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

    def __call__(self, image: np.ndarray) -> tuple[Image, dict]:
        """Return the padded image (H, W, 3) uint8 BGR, and mmyolo's keys for mapping boxes back."""
        results = {"img": image, "img_shape": image.shape[:2]}
        results = self._pad(self._resize(results))
        meta = {
            "ori_shape": image.shape[:2],
            "scale_factor": results["scale_factor"],
            "pad_param": results["pad_param"],
        }
        return results["img"], meta


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
        bottom, right = full_height - height - top, full_width - width - left
        padded = F.pad(pixels, [left, top, right, bottom], fill=GREY)
        original_height, original_width = image.shape[:2]
        meta = {
            "ori_shape": (original_height, original_width),
            "scale_factor": (width / original_width, height / original_height),
            "pad_param": np.array((top, bottom, left, right), np.float32),
        }
        return padded.permute(1, 2, 0), meta

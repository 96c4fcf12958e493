"""Pictures as the detector sees them: resized into its square or to their own aspect, padded."""

import numpy as np
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from models.yolo_world.build import register

GREY = 114  # what fills the rest of the square
Image = np.ndarray | Tensor


class Letterbox:
    """Resizes a BGR image into `size` = (width, height), keeping its aspect, and pads with grey.

    With `to_aspect` the padding ends at the next multiple of `step` instead of the whole size.
    This is mmyolo's own resizing, which gives the reference's numbers.
    """

    def __init__(self, size: tuple[int, int], *, to_aspect: bool = False, step: int = 32):
        register()
        from mmyolo.datasets.transforms import YOLOv5KeepRatioResize

        self.size, self.to_aspect, self.step = tuple(size), to_aspect, step
        self._resize = YOLOv5KeepRatioResize(scale=self.size)
        self._pads: dict[tuple[int, int], object] = {}

    def resized(self, image: Image) -> tuple[int, int]:
        """Return width and height after resizing, before padding."""
        height, width = image.shape[:2]
        ratio = min(max(self.size) / max(height, width), min(self.size) / min(height, width))
        return int(width * ratio), int(height * ratio)

    def fits(self, image: Image) -> bool:
        """Return whether both sides keep at least a pixel."""
        return min(image.shape[:2]) > 0 and min(self.resized(image)) > 0

    def shape(self, image: Image) -> tuple[int, int]:
        """Return the padded (width, height) of `image`."""
        if not self.to_aspect:
            return self.size
        return tuple(-(-side // self.step) * self.step for side in self.resized(image))

    def __call__(self, image: np.ndarray) -> tuple[Image, dict]:
        """Return the padded image (H, W, 3) uint8 BGR and what is needed to map boxes back."""
        from mmyolo.datasets.transforms import LetterResize

        size = self.shape(image)
        if size not in self._pads:
            self._pads[size] = LetterResize(scale=size, allow_scale_up=False, pad_val={"img": GREY})
        results = {"img": image, "img_shape": image.shape[:2]}
        results = self._pads[size](self._resize(results))
        meta = {
            "ori_shape": image.shape[:2],
            "scale_factor": results["scale_factor"],
            "pad_param": results["pad_param"],
        }
        return results["img"], meta


class DeviceLetterbox(Letterbox):
    """The same geometry for tensors (H, W, 3), resized where they are.

    Its antialiased bilinear resizing differs from OpenCV's area averages by a few grey levels.
    """

    def __call__(self, image: Tensor) -> tuple[Tensor, dict]:
        width, height = self.resized(image)
        pixels = F.resize(image.permute(2, 0, 1), [height, width], antialias=True)
        full_width, full_height = self.shape(image)
        left, top = (full_width - width) // 2, (full_height - height) // 2
        right, bottom = full_width - width - left, full_height - height - top
        padded = F.pad(pixels, [left, top, right, bottom], fill=GREY)
        original_height, original_width = image.shape[:2]
        meta = {
            "ori_shape": (original_height, original_width),
            "scale_factor": (width / original_width, height / original_height),
            "pad_param": np.array([top, bottom, left, right], np.float32),
        }
        return padded.permute(1, 2, 0), meta

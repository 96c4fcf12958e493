"""Resizing an image into the detector's square, the rest padded with grey."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from human_anomaly.models.on_device import Region, resize
from human_anomaly.models.yolo_world.build import register

GREY = 114  # the level of the padding
FAR = -1e6  # a place outside every picture
Image = np.ndarray | Region


class Letterbox:
    """Resizes a BGR image to fit `size` = (width, height), keeping its aspect, and pads with grey.

    Fast mode computes the whole square too. With less grey, the picture would be nearer to the
    zeros that pad the convolutions, which changed 3% of the verdicts. Resizing is mmyolo's own,
    which gives the reference values.
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

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, dict]:
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
    """The same for regions of frames on a device, in one call; at most one grey level off."""

    def batch(self, regions: Sequence[Region]) -> tuple[Tensor, list[dict]]:
        """Return (B, 3, H, W) RGB in 0..1, and mmyolo's keys for mapping boxes back."""
        side = max(self.size)
        centres, scales = np.full((len(regions), 2, side), FAR), np.ones((len(regions), 2))
        metas = []
        for number, region in enumerate(regions):
            shape, resized = region.shape[:2], self.resized(region)[::-1]
            pads = [(full - new) // 2 for full, new in zip(self.size[::-1], resized, strict=True)]
            for axis, (old, new, pad) in enumerate(zip(shape, resized, pads, strict=True)):
                inside = (np.arange(new) + 0.5) * old / new - 0.5
                centres[number, axis, pad : pad + new] = inside.clip(0, old - 1)
                scales[number, axis] = old / new
            (top, left), (height, width) = pads, resized
            bottom, right = self.size[1] - height - top, self.size[0] - width - left
            metas.append(
                {
                    "ori_shape": shape,
                    "scale_factor": (width / shape[1], height / shape[0]),
                    "pad_param": np.array((top, bottom, left, right), np.float32),
                }
            )
        pixels = resize(regions, centres, scales, grey=GREY).permute(0, 2, 1, 3)
        pixels = pixels[:, :, : self.size[1], : self.size[0]].div_(255)
        return pixels.contiguous(memory_format=torch.channels_last), metas

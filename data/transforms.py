"""Transforms of crops: one for evaluation and scoring, and the augmentation of training."""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import posterize as timm_posterize
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.functional import InterpolationMode

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def resize_size(size: int, crop: bool) -> int:
    """Return the length to which the short side is resized before the centre of `size` is cut."""
    return int(256 / 224 * size) if crop else size


class EvalTransform:
    """Resize the short side to 256/224 of `size`, cut the centre, normalise.

    Without `crop`, the whole image is resized to (size, size). `pixels` does not normalise, so that
    the caller can do it for a whole batch.
    """

    def __init__(self, *, size: int = 224, crop: bool = True, interpolation: str = "bicubic"):
        mode = InterpolationMode(interpolation)
        steps = [v2.Resize(resize_size(size, True), mode), v2.CenterCrop(size)]
        self._cut = v2.Compose(steps) if crop else v2.Resize((size, size), mode)

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Return (size, size, 3) uint8 of a PIL image, in its channel order."""
        return np.array(self._cut(image))

    def __call__(self, image: Image.Image) -> Tensor:
        """Return (3, size, size) float32, normalised by ImageNet's statistics, of an RGB image."""
        return normalize(torch.from_numpy(self.pixels(image))[None])[0]


def build_train_transform(
    *, size: int, interpolation: str, auto_augment: str, color_jitter: float, min_crop: float
) -> Callable[[Image.Image], Tensor]:
    """Return PIL image (RGB) -> (size, size, 3) uint8: timm's random crop, flip and RandAugment.

    A random crop keeps at least the share `min_crop` of the area. With `min_crop` 0, the image gets
    the evaluation's resize and centre crop instead, and no flip. As in timm, colour jitter acts
    only where `auto_augment` is empty or none. `Augment` does the rest, batch by batch.
    """
    from timm.data import create_transform

    policy = auto_augment if auto_augment not in ("", "none") else None
    steps = create_transform(
        size,
        is_training=True,
        scale=(min_crop or 1.0, 1.0),
        auto_augment=policy,
        color_jitter=color_jitter or None,
        interpolation=interpolation,
        re_prob=0.0,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        use_prefetcher=True,  # leaves normalising to us
    ).transforms[:-1]
    if not min_crop:
        mode = InterpolationMode(interpolation)
        steps[:2] = [v2.Resize(resize_size(size, True), mode), v2.CenterCrop(size)]
    for step in steps:
        for op in getattr(step, "ops", ()):
            if op.aug_fn is timm_posterize:
                op.aug_fn = _posterize
    return v2.Compose([*steps, _to_bytes])


def _posterize(image: Image.Image, bits: int, **_unused) -> Image.Image:
    """Keep `bits` bits. RandAugment's strongest level keeps 0 bits, which Pillow 13 refuses."""
    return timm_posterize(image, bits) if bits else Image.new(image.mode, image.size)


def _to_bytes(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image, dtype=np.uint8))  # (H, W, 3)


def smallest_useful_side(size: int, min_crop: float) -> int:
    """Return the side in pixels to which training may shrink a large image while decoding it.

    The smallest random crop of an image of that side is still twice the network's input `size`.
    """
    return math.ceil(2 * size / math.sqrt(min_crop or 1))


class Augment:
    """The augmentation of a batch, on its device: random erasing, then mixup or cutmix.

    Takes images (B, H, W, 3) uint8 RGB and targets (B,), 1 for abnormal. Returns normalised images
    (B, 3, H, W) float32 and soft targets (B,) float32: the probability of abnormal, smoothed.
    `mix` must smooth by `smoothing` too, and needs an even B. A step that is None is left out.
    """

    def __init__(self, erase: RandomErasing | None, mix: Mixup | None, smoothing: float):
        self.erase, self.mix, self.smoothing = erase, mix, smoothing

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        images = normalize(images)
        if self.erase is not None:
            images = self.erase(images)
        if self.mix is None:
            return images, targets.float() * (1 - self.smoothing) + self.smoothing / 2
        images, soft = self.mix(images, targets)  # (B, 2): normal, abnormal
        return images, soft[:, 1]


def normalize(images: Tensor) -> Tensor:
    """Return (B, H, W, 3) in 0..255 as (B, 3, H, W) float32, normalised, channels last in memory.

    Images that are float32 already are overwritten.
    """
    mean, std = _statistics(images.device)
    return images.to(torch.float32).sub_(mean).div_(std).permute(0, 3, 1, 2)


@lru_cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ImageNet's mean and standard deviation (3,) in grey levels: one copy per device."""
    with torch.inference_mode(False):
        mean, std = torch.tensor((IMAGENET_MEAN, IMAGENET_STD)).mul_(255).to(device)
    return mean, std

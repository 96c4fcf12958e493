"""Transforms of crops; scoring and validation share the evaluation one."""

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.functional import InterpolationMode

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def resize_size(size: int, crop: bool) -> int:
    """Return the length to which the short side is resized before the centre of `size` is cut."""
    return int(256 / 224 * size) if crop else size


def build_eval_transform(
    *, size: int = 224, crop: bool = True, interpolation: str = "bicubic"
) -> Callable[[Image.Image], Tensor]:
    """Return PIL image (RGB) -> (3, size, size) float32, normalised by ImageNet's statistics."""
    mode = InterpolationMode(interpolation)
    resize = (
        [v2.Resize(resize_size(size, True), mode), v2.CenterCrop(size)]
        if crop
        else [v2.Resize((size, size), mode)]
    )
    return v2.Compose(
        [
            *resize,
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )

"""Heatmaps: which places of a crop raised its p, by the classifier's early features.

The method is integrated gradients (arXiv 1703.01365) on features instead of pixels. Each place's
feature vector moves in a straight line from the crop's mean vector to its own. The relevance of a
place is the gradient of the logit on that line, multiplied by the difference between the two ends.

The features are the tokens after the first block. Where a convolutional stem makes the tokens, they
are the deepest of the stem's maps that has at least 16 x 16 places. Later features are mixed and no
longer belong to one place. The gradient at the crop itself is not used, because there p is often
saturated and the gradient small and noisy. `benchmarks/heatmap_truth.py` measures the result
on the drawn world, whose anomalies are known.
"""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from human_anomaly.data.stream import batched
from human_anomaly.data.transforms import resize_size
from human_anomaly.models.classifier import InputForm
from human_anomaly.models.device import own_precision

# Each step costs a forward and a backward pass, which is slow for the tokens of a ViT-B.
TOKEN_STEPS, STEM_STEPS = 1, 4
FINE = 16  # places per side that a convolutional stem's map should have
WORDS = (
    "The heatmap shows which places of the crop raised this p; the ring marks the highest one. It "
    "is computed by integrated gradients on the network's early features, starting from their mean "
    "over the crop, and is no finer than those features. It shows what this network used, right or "
    "wrong, and does not prove an anomaly. Something that is missing has no place that could light "
    "up. Each heatmap has its own scale, so the colours of two crops cannot be compared."
)


def relevance(model: nn.Module, images: Tensor, *, steps: int | None = None) -> Tensor:
    """Return (B, rows, columns): how much each place of (B, 3, S, S) images raises the logit.

    `model` is an AnomalyClassifier; the images are normalised as for scoring. The gradient is
    averaged over `steps` points of the line (midpoint rule). No other thread may run the model
    meanwhile.
    """
    like = next(model.parameters())
    with torch.inference_mode(False), own_precision(like.device.type, like.dtype):
        images = images.clone().to(like.device, like.dtype)
        layer = early_layer(model, images)
        if steps is None:
            steps = TOKEN_STEPS if layer is model.blocks[0] else STEM_STEPS
        total = torch.zeros((), device=like.device)
        for step in range(steps):
            _, difference, gradient = gradient_at(model, layer, images, (step + 0.5) / steps)
            total = total + gradient
        places = difference * total / steps
        if places.ndim == 4:  # (B, C, rows, columns)
            return places.sum(1).float().cpu()
        places = places[:, 1:].sum(2)  # (B, N): without the class token
        return places.unflatten(1, model.patch_embed.grid_size).float().cpu()


def early_layer(model: nn.Module, images: Tensor) -> nn.Module:
    """Return the layer of `model` whose output are the early features."""
    stem = model.patch_embed.proj
    if not isinstance(stem, nn.Sequential):
        return model.blocks[0]
    maps, found = images[:1], None
    with torch.no_grad():
        for layer in stem:
            maps = layer(maps)
            fine = min(maps.shape[2:]) >= FINE
            if isinstance(layer, nn.MaxPool2d) and (fine or found is None):
                found = layer
    return found


def gradient_at(
    model: nn.Module, layer: nn.Module, images: Tensor, share: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Run `model` with the output of `layer` moved `share` (0..1) of the way from its mean.

    Return the logits (B,), the features less their mean over the places, and the gradient of the
    logits at the moved features; the last two have the shape of the layer's output.
    """
    difference = moved = None

    def move(_layer: nn.Module, _inputs: tuple, features: Tensor) -> Tensor:
        nonlocal difference, moved
        features = features.detach()
        mean = _mean_over_places(features)
        difference = features - mean
        moved = (mean + difference * share).requires_grad_(True)
        return moved

    hook = layer.register_forward_hook(move)
    try:
        with torch.enable_grad():
            logits = model(images)
            (gradient,) = torch.autograd.grad(logits.sum(), moved)
    finally:
        hook.remove()
    return logits.detach(), difference, gradient


def _mean_over_places(features: Tensor) -> Tensor:
    """Return maps (B, C, h, w) or tokens (B, 1 + N, C) with the mean vector at every place.

    The class token, which comes first, belongs to no place and stays as it is.
    """
    if features.ndim == 4:
        return features.mean((2, 3), keepdim=True).expand_as(features)
    patches = features[:, 1:]
    return torch.cat((features[:, :1], patches.mean(1, keepdim=True).expand_as(patches)), dim=1)


def on_crop(found: np.ndarray, shape: tuple[int, int], size: int, crop: bool) -> np.ndarray:
    """Return the heatmap (H, W) in 0..1 of a crop of `shape` = (H, W), from its relevance.

    `found` is (rows, columns); negative relevance becomes 0. `size` and `crop` are those of the
    evaluation's transform: with `crop` the network saw only the centre, and the rest gets 0.
    """
    height, width = shape
    heat = np.maximum(found, 0).astype(np.float32)
    heat /= max(float(heat.max()), 1e-12)
    scale = resize_size(size, crop) / min(height, width) if crop else None
    seen = (size / scale, size / scale) if crop else (width, height)
    w, h = (max(1, min(round(s), whole)) for s, whole in zip(seen, (width, height), strict=True))
    inner = np.clip(cv2.resize(heat, (w, h), interpolation=cv2.INTER_CUBIC), 0, 1)
    out = np.zeros((height, width), np.float32)
    top, left = (height - h) // 2, (width - w) // 2
    out[top : top + h, left : left + w] = inner
    return out


class Explainer:
    """Makes heatmaps of crops: `explainer("hand", [crop, ...])` returns one (H, W) in 0..1 each.

    `classifiers` maps parts to networks. `size`, `crop`, `interpolation` and `channels` are those
    of `CropJudge`. Crops are (h, w, 3) uint8 BGR.
    """

    def __init__(
        self,
        classifiers: Mapping[str, nn.Module],
        form: InputForm,
        batch_size: int = 8,
    ):
        self.classifiers, self.batch_size = classifiers, batch_size
        self.size, self.crop, self.channels = form.size, form.crop, form.channels
        self._transform = form.transform()

    def prepare(self, crops: Sequence[np.ndarray]) -> Tensor:
        """Return the crops (h, w, 3) uint8 BGR as the network sees them, (B, 3, S, S) float32."""
        order = -1 if self.channels == "rgb" else 1
        fed = [np.ascontiguousarray(crop[:, :, ::order]) for crop in crops]
        return torch.stack([self._transform(Image.fromarray(image)) for image in fed])

    def __call__(self, part: str, crops: Sequence[np.ndarray]) -> list[np.ndarray]:
        heats = []
        for chunk in batched(crops, self.batch_size):
            found = relevance(self.classifiers[part], self.prepare(chunk)).numpy()
            heats += [
                on_crop(one, crop.shape[:2], self.size, self.crop)
                for one, crop in zip(found, chunk, strict=True)
            ]
        return heats

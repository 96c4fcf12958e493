"""What in a crop drove p: relevance of the classifier's early features, in a few passes.

Every place's feature vector is led from the crop's mean vector to its own; a place's relevance is
the logit's gradient along that way times the difference (integrated gradients, midpoint rule). The
features are the tokens after the first block, or, where a convolutional stem makes the tokens,
the stem's finest map of at least 16 x 16 places that still is deep. Late features have mixed and no
longer stand for their place; and at the crop itself p is often saturated, its gradient small and
wild: hence early features and the way there. `tests/benchmarks/heatmap_truth.py` measures it
on the drawn world, whose anomalies are known.
"""

from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np
import torch
from PIL import Image
from torch import nn

from data.transforms import build_eval_transform, resize_size

BLOCK = 1
TOKEN_STEPS, STEM_STEPS = 1, 4  # a step costs a pass forth and back: tokens of ViT-B are dear
FINE = 16  # places a side that a convolutional stem's map must have to be looked at
WORDS = (
    "The heatmap shows which places raised this p: integrated gradients on the network's early "
    "features, from their mean over the crop to what is there; the ring marks the peak. Its "
    "limits: it is no finer than those features; it shows what this network used, right or wrong, "
    "and is no proof of an anomaly; something that is missing has no place to light up; and it is "
    "scaled within each crop, so colours of two crops do not compare."
)


def relevance(model: nn.Module, images: torch.Tensor, *, steps: int | None = None) -> torch.Tensor:
    """Return (B, rows, columns): how much each place of (B, 3, S, S) images raises the logit.

    `model` is an AnomalyClassifier; the images are normalised as for scoring.
    """
    model = getattr(model, "_orig_mod", model)  # a compiled network hides its blocks
    if steps is None:
        stem = isinstance(model.patch_embed.proj, nn.Sequential)
        steps = STEM_STEPS if stem else TOKEN_STEPS
    like = next(model.parameters())
    with torch.inference_mode(False), torch.enable_grad():
        with torch.no_grad():
            features, finish = early(model, images.clone().to(like.device, like.dtype))
            base = features.mean((2, 3), keepdim=True).expand_as(features)
        total = torch.zeros_like(features)
        for step in range(steps):
            way = base + (features - base) * (step + 0.5) / steps
            way.requires_grad_(True)
            total += torch.autograd.grad(finish(way).sum(), way)[0]
    return (((features - base) * total).sum(1) / steps).float().cpu()


def early(
    model: nn.Module, images: torch.Tensor
) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
    """Return the early features (B, C, rows, columns) and the way from them to (B,) logits."""
    stem = model.patch_embed.proj
    if isinstance(stem, nn.Sequential):
        depth = _fine_depth(stem, images)
        return stem[:depth](images), lambda maps: _logits(model, stem[depth:](maps))
    tokens = _through(model, _with_class(model, stem(images)), 0, BLOCK)
    first, rows = tokens[:, :1], model.patch_embed.grid_size[0]
    maps = tokens[:, 1:].transpose(1, 2).unflatten(2, (rows, -1))

    def finish(maps: torch.Tensor) -> torch.Tensor:
        whole = torch.cat((first, maps.flatten(2).transpose(1, 2)), dim=1)
        return _head(model, _through(model, whole, BLOCK, len(model.blocks)))

    return maps, finish


def _fine_depth(stem: nn.Sequential, images: torch.Tensor) -> int:
    """Return how many of the stem's layers lead to its last map with FINE places a side."""
    maps, depth = images[:1], 0
    for number, layer in enumerate(stem, 1):
        maps = layer(maps)
        if min(maps.shape[2:]) < FINE:
            break
        if isinstance(layer, nn.MaxPool2d):
            depth = number
    return depth


def _with_class(model: nn.Module, patches: torch.Tensor) -> torch.Tensor:
    """Return the tokens (B, 1 + N, C) that enter the first block, of patches (B, C, h, w)."""
    tokens = patches.flatten(2).transpose(1, 2)
    tokens = torch.cat((model.cls_token.expand(len(tokens), -1, -1), tokens), dim=1)
    if model.pos_embed is not None:
        tokens = tokens + model.pos_embed
    return tokens


def _through(model: nn.Module, tokens: torch.Tensor, start: int, end: int) -> torch.Tensor:
    bias = model.rel_pos_bias() if model.rel_pos_bias is not None else None
    for layer in model.blocks[start:end]:
        tokens = layer(tokens, shared_rel_pos_bias=bias)
    return tokens


def _head(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    return model.forward_head(model.norm(tokens)).squeeze(-1)


def _logits(model: nn.Module, patches: torch.Tensor) -> torch.Tensor:
    tokens = _with_class(model, patches)
    return _head(model, _through(model, tokens, 0, len(model.blocks)))


def on_crop(found: np.ndarray, shape: tuple[int, int], size: int, crop: bool) -> np.ndarray:
    """Return relevance (rows, columns) as a heatmap (H, W) in 0..1 of the crop with this `shape`.

    With `crop` the network saw the centre only: what lies outside of it is 0.
    """
    height, width = shape
    heat = np.maximum(found, 0).astype(np.float32)
    heat /= max(float(heat.max()), 1e-12)
    scale = resize_size(size, crop) / min(height, width) if crop else None
    seen = (size / scale, size / scale) if crop else (width, height)
    w, h = (max(1, min(round(s), limit)) for s, limit in zip(seen, (width, height), strict=True))
    inner = np.clip(cv2.resize(heat, (w, h), interpolation=cv2.INTER_CUBIC), 0, 1)
    out = np.zeros((height, width), np.float32)
    top, left = (height - h) // 2, (width - w) // 2
    out[top : top + h, left : left + w] = inner
    return out


class Explainer:
    """Gives heatmaps of crops: `explainer("hand", [crop_bgr, ...])` returns (H, W) in 0..1 each.

    `classifiers` maps parts to networks on `device`; `config` is that of the scoring.
    """

    def __init__(self, classifiers: Mapping[str, nn.Module], config, batch_size: int = 8):
        self.classifiers, self.batch_size = classifiers, batch_size
        self.size, self.crop = config.DATA.IMG_SIZE, config.TEST.CROP
        self._order = -1 if config.TEST.CHANNELS == "rgb" else 1  # crops are BGR
        self._transform: Callable = build_eval_transform(
            size=self.size, crop=self.crop, interpolation=config.DATA.INTERPOLATION
        )

    def prepare(self, crops: Sequence[np.ndarray]) -> torch.Tensor:
        """Return the crops (h, w, 3) BGR as the network sees them, (B, 3, S, S)."""
        fed = [np.ascontiguousarray(crop[:, :, :: self._order]) for crop in crops]
        return torch.stack([self._transform(Image.fromarray(image)) for image in fed])

    def __call__(self, part: str, crops: Sequence[np.ndarray]) -> list[np.ndarray]:
        heats = []
        for start in range(0, len(crops), self.batch_size):
            chunk = crops[start : start + self.batch_size]
            found = relevance(self.classifiers[part], self.prepare(chunk)).numpy()
            heats += [
                on_crop(one, crop.shape[:2], self.size, self.crop)
                for one, crop in zip(found, chunk, strict=True)
            ]
        return heats

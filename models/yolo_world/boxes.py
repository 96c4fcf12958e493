"""Boxes from the detector's outputs, for a whole batch in one pass on a GPU.

mmyolo does this image by image, and waits for the GPU several times for each.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import nms

from human_anomaly.data.video import VideoError

NOT_FINITE = "the detector computes numbers that are not finite"


def find_boxes(
    head: nn.Module, logits: Sequence[Tensor], distances: Sequence[Tensor], metas: Sequence[dict]
) -> list[np.ndarray]:
    """Return for each image (N, 6) float32: box xyxy in its pixels, score and label, best first.

    `logits` (B, texts, h, w) and `distances` (B, 4, h, w) are those of each level that
    `YOLOWorldDetector.raw` returned, `metas` what `Letterbox` returned for each image. Boxes are
    mmyolo's except for the last bits. Raises VideoError for scores or boxes that are not numbers.
    """
    config, device = head.test_cfg, logits[0].device
    scores = torch.cat([x.flatten(2) for x in logits], 2).sigmoid()  # (B, texts, places)
    distances = torch.cat([x.flatten(2) for x in distances], 2)  # (B, 4, places)
    places = _places(head.prior_generator, tuple(x.shape[2:] for x in logits), device)
    total = scores.sum()  # NaN if one score is NaN
    # A weaker box never suppresses a stronger one, so the threshold can be applied before NMS.
    image, label, place = (scores > config.score_thr).nonzero(as_tuple=True)
    scores, distances = scores[image, label, place], distances[image, :, place]
    middles, strides = places[:, place]
    boxes = torch.addcmul(middles, distances, strides)
    geometry = torch.from_numpy(_geometry(metas)).to(device, non_blocking=True)
    pad, scale, size = geometry[:, image]
    boxes = (boxes - pad) / scale
    # One NMS for all images and labels: the boxes of each are moved far away from the others.
    # torchvision's batched_nms moves them in float32, or waits for the device for each.
    far = 16.0 * max(max(meta["ori_shape"]) for meta in metas)
    group = torch.add(label, image, alpha=logits[0].shape[1])[:, None]
    apart = boxes.double().add_(group, alpha=far)
    keep = nms(apart, scores.double(), config.nms.iou_threshold)
    boxes = boxes.clamp_(min=0).minimum(size)
    columns = (boxes, scores[:, None], label[:, None], image[:, None])
    found = torch.cat((torch.cat(columns, 1)[keep], total.expand(1, 7))).cpu().numpy()
    if np.isnan(found).any():
        raise VideoError(NOT_FINITE)
    *_, numbers = found[:-1].T
    return [found[:-1][numbers == i, :6][: config.max_per_img] for i in range(len(metas))]


@lru_cache(maxsize=8)
def _places(generator, sizes: tuple, device: torch.device) -> Tensor:
    """Return (2, places, 4): each place's middle, and its stride, negative for the low ends."""
    levels = zip(generator.grid_priors(sizes, device=device), generator.strides, strict=True)
    signs = torch.tensor((-1.0, -1.0, 1.0, 1.0)).to(device)
    both = [(x.repeat(1, 2), (signs * stride[0]).expand(len(x), 4)) for x, stride in levels]
    return torch.stack([torch.cat(parts) for parts in zip(*both, strict=True)])


def _geometry(metas: Sequence[dict]) -> np.ndarray:
    """Return (3, B, 4) float32: each image's padding, scale and size, in the order of xyxy."""
    pads = [(left, top) * 2 for top, _, left, _ in (meta["pad_param"] for meta in metas)]
    scales = [tuple(meta["scale_factor"]) * 2 for meta in metas]
    sizes = [meta["ori_shape"][::-1] * 2 for meta in metas]
    return np.array((pads, scales, sizes), np.float32)

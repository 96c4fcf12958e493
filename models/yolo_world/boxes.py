"""Boxes from the detector's outputs for a whole batch at once, for a GPU.

mmyolo does this image by image, and waits for the GPU several times for each.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms


def find_boxes(
    head: nn.Module, logits: Sequence[Tensor], distances: Sequence[Tensor], metas: Sequence[dict]
) -> list[np.ndarray]:
    """Return for each image (N, 6) float32: box xyxy in its pixels, score and label, best first.

    `logits` (B, texts, h, w) and `distances` (B, 4, h, w) are those of each level that
    `YOLOWorldDetector.raw` returned, `metas` what `Letterbox` returned for each image. Boxes are
    mmyolo's but for the last bits, with which NMS compares them.
    """
    config, device = head.test_cfg, logits[0].device
    scores = torch.cat([x.flatten(2) for x in logits], 2).sigmoid()  # (B, texts, places)
    boxes = _decode(head, distances)
    # A weaker box never suppresses a stronger one, so the threshold can be applied before NMS.
    image, label, place = (scores > config.score_thr).nonzero(as_tuple=True)
    scores, boxes = scores[image, label, place], boxes[image, place]
    pad, scale, size = torch.from_numpy(_geometry(metas)).to(device)[:, image]
    boxes = (boxes - pad) / scale
    keep = batched_nms(boxes, scores, image * logits[0].shape[1] + label, config.nms.iou_threshold)
    boxes = boxes.clamp(min=torch.zeros_like(size), max=size)
    columns = (boxes[keep], scores[keep, None], label[keep, None], image[keep, None])
    found = torch.cat(columns, 1).cpu().numpy()
    return [found[found[:, 6] == i, :6][: config.max_per_img] for i in range(len(metas))]


def _decode(head: nn.Module, distances: Sequence[Tensor]) -> Tensor:
    """Return (B, places, 4) xyxy in pixels of the letterboxed images."""
    like = distances[0]
    sizes = [x.shape[2:] for x in distances]
    priors = head.prior_generator.grid_priors(sizes, dtype=like.dtype, device=like.device)
    levels = zip(priors, head.featmap_strides, strict=True)
    strides = torch.cat([x.new_full((len(x),), stride) for x, stride in levels])
    flat = torch.cat([x.flatten(2) for x in distances], 2).transpose(1, 2)
    return head.bbox_coder.decode(torch.cat(priors)[None], flat, strides)


def _geometry(metas: Sequence[dict]) -> np.ndarray:
    """Return (3, B, 4) float32: each image's padding, scale and size, in the order of xyxy."""
    pads = [(left, top) * 2 for top, _, left, _ in (meta["pad_param"] for meta in metas)]
    scales = [tuple(meta["scale_factor"]) * 2 for meta in metas]
    sizes = [meta["ori_shape"][::-1] * 2 for meta in metas]
    return np.array((pads, scales, sizes), np.float32)

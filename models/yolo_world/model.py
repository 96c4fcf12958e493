"""YOLO-World on mmyolo's YOLOv8: image tower, text-guided neck, and scores against texts.

Importing this module registers its classes, which the config files name.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmyolo.models import YOLODetector, YOLOv8HeadModule
from mmyolo.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class YOLOWorldDetector(YOLODetector):
    """The whole network. Texts come as embeddings, because they are encoded once per prompt set."""

    def raw(self, image: Tensor, text: Tensor) -> tuple[list[Tensor], ...]:
        """Return the head's outputs for images (B, 3, H, W) in 0..1 RGB.

        `text` holds embeddings (B or 1, N, 512). In evaluation mode the outputs are, per level,
        logits (B, N, h, w) and box distances (B, 4, h, w): left, top, right, bottom, in strides.
        The head may compute in float32 while backbone and neck compute in 16 bits.
        """
        features = self.backbone(image)
        features = self.neck(features, text.to(features[0].dtype))
        return self.bbox_head.head_module([x.to(text.dtype) for x in features], text)


@MODELS.register_module()
class YOLOWorldBackbone(BaseModule):
    """YOLOv8's image tower under the name that official checkpoints give it."""

    def __init__(self, *, image_model: dict, init_cfg: dict | None = None):
        super().__init__(init_cfg)
        self.image_model = MODELS.build(image_model)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.image_model(image)


class BatchNormContrast(BaseModule):
    """Scores each position against each text: the scaled dot product of their embeddings."""

    def __init__(self, *, embed_channels: int, norm_cfg: dict):
        super().__init__()
        self.norm = build_norm_layer(norm_cfg, embed_channels)[1]
        self.bias = nn.Parameter(torch.zeros([]))
        self.logit_scale = nn.Parameter(-1.0 * torch.ones([]))

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """Return logits (B, N, h, w) of features (B, 512, h, w) and texts (B or 1, N, 512)."""
        batch, _, height, width = x.shape
        x = self.norm(x).flatten(2)  # (B, 512, hw)
        logits = F.normalize(text.float(), dim=-1) @ x  # (B, N, hw)
        logits = logits * self.logit_scale.exp() + self.bias
        return logits.view(batch, -1, height, width)


@MODELS.register_module()
class YOLOWorldHeadModule(YOLOv8HeadModule):
    """YOLOv8's head whose class branch ends in an embedding and a contrast with the texts."""

    def __init__(self, *, embed_channels: int = 512, **head):
        self.embed_channels = embed_channels
        super().__init__(**head)

    def _init_layers(self) -> None:
        super()._init_layers()
        for branch in self.cls_preds:
            branch[-1] = nn.Conv2d(branch[-1].in_channels, self.embed_channels, 1)
        self.cls_contrasts = nn.ModuleList(
            BatchNormContrast(embed_channels=self.embed_channels, norm_cfg=self.norm_cfg)
            for _ in self.cls_preds
        )

    def init_weights(self) -> None:
        BaseModule.init_weights(self)
        for box, contrast, stride in zip(
            self.reg_preds, self.cls_contrasts, self.featmap_strides, strict=True
        ):
            nn.init.constant_(box[-1].bias, 1.0)
            nn.init.constant_(contrast.bias, math.log(5 / 80 / (640 / stride) ** 2))

    def forward(self, features: Sequence[Tensor], text: Tensor) -> tuple[list[Tensor], ...]:
        """Return per level the logits (B, N, h, w) and box distances (B, 4, h, w) in strides.

        In training mode, also return the distances' bins (B, hw, 4, bins), for YOLOv8's loss.
        Scores and distances are computed in float32 even where the convolutions run in 16 bits: a
        less exact sum over 16 bins moves boxes by pixels.
        """
        outs = []
        for x, classes, boxes, contrast in zip(
            features, self.cls_preds, self.reg_preds, self.cls_contrasts, strict=True
        ):
            distances, bins = self._distances(boxes(x).float())
            level = (contrast(classes(x).float(), text), distances)
            outs.append((*level, bins) if self.training else level)
        return tuple(map(list, zip(*outs, strict=True)))

    def _distances(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return the expected distances (B, 4, h, w) and the bins (B, hw, 4, bins) of a level."""
        bins = raw.unflatten(1, (4, self.reg_max)).flatten(3).permute(0, 3, 1, 2)
        expected = bins.softmax(3) @ self.proj  # (B, hw, 4)
        return expected.transpose(1, 2).unflatten(2, raw.shape[2:]), bins

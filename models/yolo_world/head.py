"""YOLO-World's head: YOLOv8's boxes, and class scores by contrast with text embeddings."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmyolo.models import YOLOv8Head, YOLOv8HeadModule
from mmyolo.registry import MODELS
from torch import Tensor, nn


class BatchNormContrast(BaseModule):
    """Scores each position against each text: scaled dot product of normalised embeddings."""

    def __init__(self, *, embed_channels: int, norm_cfg: dict):
        super().__init__()
        self.norm = build_norm_layer(norm_cfg, embed_channels)[1]
        self.bias = nn.Parameter(torch.zeros([]))
        self.logit_scale = nn.Parameter(-1.0 * torch.ones([]))

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """Return logits (B, N, H, W) of features (B, 512, H, W) and texts (B or 1, N, 512)."""
        batch, _, height, width = x.shape
        x = self.norm(x).flatten(2)  # (B, 512, HW)
        logits = F.normalize(text.float(), dim=-1) @ x  # (B, N, HW)
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
        """Return per level the logits (B, N, H, W) and boxes (B, 4, H, W) in strides.

        In training the boxes' bins (B, HW, 4, bins) too. Contrast and box decoding run in float32
        whatever the convolutions' type: a coarser sum over 16 bins moves boxes by pixels.
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
        """Return the expected distances (B, 4, H, W) and the bins (B, HW, 4, bins) of a level."""
        bins = raw.unflatten(1, (4, self.reg_max)).flatten(3).permute(0, 3, 1, 2)
        expected = bins.softmax(3) @ self.proj  # (B, HW, 4)
        return expected.transpose(1, 2).unflatten(2, raw.shape[2:]), bins


@MODELS.register_module()
class YOLOWorldHead(YOLOv8Head):
    """YOLOv8's losses and decoding; the number of classes is the number of texts at each call."""

    def forward(self, features: Sequence[Tensor], text: Tensor) -> tuple[list[Tensor], ...]:
        self.num_classes = text.shape[1]
        return self.head_module(features, text)

    def loss(self, features: Sequence[Tensor], text: Tensor, batch_data_samples) -> dict:
        outs = self(features, text)
        return self.loss_by_feat(
            *outs, batch_data_samples["bboxes_labels"], batch_data_samples["img_metas"]
        )

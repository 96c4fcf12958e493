"""YOLO-World: YOLOv8's image tower, a frozen text tower or stored prompts, and a guided neck."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from mmyolo.models import YOLODetector
from mmyolo.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class YOLOWorldBackbone(BaseModule):
    """The image tower; prompts are encoded apart, once per prompt set."""

    def __init__(self, *, image_model: dict, init_cfg: dict | None = None):
        super().__init__(init_cfg)
        self.image_model = MODELS.build(image_model)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.image_model(image)


@MODELS.register_module()
class YOLOWorldDetector(YOLODetector):
    """YOLO-World; `texts` name the embeddings that training uses (prompt, then detect)."""

    def __init__(self, *, texts: Sequence[str] = (), embed_channels: int = 512, **yolo):
        super().__init__(**yolo)
        self.texts = tuple(texts)
        self.register_buffer(
            "embeddings", torch.zeros(len(self.texts), embed_channels), persistent=False
        )

    def features(self, image: Tensor, text: Tensor) -> tuple[Tensor, ...]:
        """Return the neck's maps for images (B, 3, H, W) in 0..1 RGB and texts (B or 1, N, 512)."""
        return self.neck(self.backbone(image), text)

    def raw(self, image: Tensor, text: Tensor) -> tuple[list[Tensor], ...]:
        """Return per level logits (B, N, H, W) and box distances (B, 4, H, W) in strides."""
        return self.bbox_head.head_module(self.features(image, text), text)

    def loss(self, batch_inputs: Tensor, batch_data_samples) -> dict:
        text = self.embeddings[None]
        return self.bbox_head.loss(self.features(batch_inputs, text), text, batch_data_samples)

"""YOLO-World's neck: YOLOv8's path aggregation with text-guided CSP layers."""

from collections.abc import Sequence

import torch
from mmyolo.models import YOLOv8PAFPN
from mmyolo.models.utils import make_divisible, make_round
from mmyolo.registry import MODELS
from torch import Tensor

from models.yolo_world.layers import TextGuidedCSPLayer


@MODELS.register_module()
class YOLOWorldPAFPN(YOLOv8PAFPN):
    """Path aggregation whose top-down and bottom-up steps see the text embeddings."""

    def __init__(
        self,
        *,
        guide_channels: int = 512,
        embed_channels: Sequence[int],
        num_heads: Sequence[int],
        **pafpn,
    ):
        self.guide_channels = guide_channels
        self.embed_channels = embed_channels
        self.num_heads = num_heads
        super().__init__(**pafpn)

    def _csp_layer(self, in_channels: int, level: int) -> TextGuidedCSPLayer:
        widen = self.widen_factor
        return TextGuidedCSPLayer(
            make_divisible(in_channels, widen),
            make_divisible(self.out_channels[level], widen),
            num_blocks=make_round(self.num_csp_blocks, self.deepen_factor),
            guide_channels=self.guide_channels,
            embed_channels=make_divisible(self.embed_channels[level], widen, 1),
            num_heads=make_divisible(self.num_heads[level], widen, 1),
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
        )

    def build_top_down_layer(self, idx: int) -> TextGuidedCSPLayer:
        return self._csp_layer(self.in_channels[idx - 1] + self.in_channels[idx], idx - 1)

    def build_bottom_up_layer(self, idx: int) -> TextGuidedCSPLayer:
        return self._csp_layer(self.out_channels[idx] + self.out_channels[idx + 1], idx + 1)

    def forward(self, features: Sequence[Tensor], text: Tensor) -> tuple[Tensor, ...]:
        """Return one map per level from the backbone's maps and texts (B or 1, N, 512)."""
        last = len(self.in_channels) - 1
        down = [features[last]]
        for step, level in enumerate(range(last, 0, -1)):
            up = self.upsample_layers[step](down[0])
            layer = self.top_down_layers[step]
            down.insert(0, layer(torch.cat([up, features[level - 1]], 1), text))
        outs = [down[0]]
        for level in range(last):
            low = self.downsample_layers[level](outs[-1])
            layer = self.bottom_up_layers[level]
            outs.append(layer(torch.cat([low, down[level + 1]], 1), text))
        return tuple(outs)

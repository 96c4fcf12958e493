"""YOLO-World v2's neck: YOLOv8's path aggregation, guided by texts (arXiv 2401.17270, 3.3)."""

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmyolo.models import CSPLayerWithTwoConv, YOLOv8PAFPN
from mmyolo.models.utils import make_divisible, make_round
from mmyolo.registry import MODELS
from torch import Tensor, nn


class MaxSigmoidAttention(BaseModule):
    """Weights features, in each head, by how well a position matches its best text."""

    def __init__(
        self,
        *,
        channels: int,
        guide_channels: int,
        embed_channels: int,
        num_heads: int,
        norm_cfg: dict,
    ):
        super().__init__()
        self.num_heads = num_heads
        self.head_width = embed_channels // num_heads
        plain = {"norm_cfg": norm_cfg, "act_cfg": None}
        self.embed_conv = (
            ConvModule(channels, embed_channels, 1, **plain) if embed_channels != channels else None
        )
        self.guide_fc = nn.Linear(guide_channels, embed_channels)
        self.bias = nn.Parameter(torch.zeros(num_heads))
        self.project_conv = ConvModule(channels, channels, 3, padding=1, **plain)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """Return `x` (B, C, h, w), convolved and weighted; `text` is (B or 1, N, 512)."""
        batch, _, height, width = x.shape
        embed = x if self.embed_conv is None else self.embed_conv(x)
        embed = embed.reshape(batch, self.num_heads, self.head_width, height * width)
        guide = self.guide_fc(text).unflatten(-1, (self.num_heads, self.head_width))
        guide = guide.permute(0, 2, 1, 3)  # (B, heads, N, c)
        match = (guide @ embed).amax(2)  # (B, heads, hw)
        weight = (match / self.head_width**0.5 + self.bias[:, None]).sigmoid()
        x = self.project_conv(x).unflatten(1, (self.num_heads, -1))
        return (x * weight.view(batch, self.num_heads, 1, height, width)).flatten(1, 2)


class TextGuidedCSPLayer(CSPLayerWithTwoConv):
    """YOLOv8's CSP layer with one more branch: max-sigmoid attention after the last block.

    `attention` are keywords of MaxSigmoidAttention.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        num_blocks: int,
        norm_cfg: dict,
        act_cfg: dict,
        **attention: int,
    ):
        style = {"norm_cfg": norm_cfg, "act_cfg": act_cfg}
        super().__init__(
            in_channels, out_channels, num_blocks=num_blocks, add_identity=False, **style
        )
        width = self.mid_channels
        self.final_conv = ConvModule((3 + num_blocks) * width, out_channels, 1, **style)
        self.attn_block = MaxSigmoidAttention(channels=width, norm_cfg=norm_cfg, **attention)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        branches = list(self.main_conv(x).chunk(2, 1))
        for block in self.blocks:
            branches.append(block(branches[-1]))
        branches.append(self.attn_block(branches[-1], text))
        return self.final_conv(torch.cat(branches, 1))


@MODELS.register_module()
class YOLOWorldPAFPN(YOLOv8PAFPN):
    """Path aggregation whose top-down and bottom-up layers also take the text embeddings."""

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
        """Return a map (B, C, h, w) per level of `features`; `text` is (B or 1, N, 512)."""
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

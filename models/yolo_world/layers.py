"""Text-guided layers that YOLO-World v2 adds to YOLOv8's neck (arXiv 2401.17270, section 3.3)."""

import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmyolo.models import CSPLayerWithTwoConv
from torch import Tensor, nn

NORM = {"type": "BN", "momentum": 0.03, "eps": 0.001}


class MaxSigmoidAttention(BaseModule):
    """Weighs features, head by head, by how well each position matches any of the texts."""

    def __init__(
        self,
        *,
        channels: int,
        guide_channels: int,
        embed_channels: int,
        num_heads: int,
        norm_cfg: dict = NORM,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
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
        """Return (B, C, H, W) from features (B, C, H, W) and text embeddings (B or 1, N, 512)."""
        batch, _, height, width = x.shape
        embed = x if self.embed_conv is None else self.embed_conv(x)
        embed = embed.reshape(batch, self.num_heads, self.head_width, height * width)
        guide = self.guide_fc(text).unflatten(-1, (self.num_heads, self.head_width))
        guide = guide.permute(0, 2, 1, 3)  # (B, heads, N, c)
        match = (guide @ embed).amax(2)  # (B, heads, HW)
        weight = (match / self.head_width**0.5 + self.bias[:, None]).sigmoid()
        x = self.project_conv(x).unflatten(1, (self.num_heads, -1))
        return (x * weight.view(batch, self.num_heads, 1, height, width)).flatten(1, 2)


class TextGuidedCSPLayer(CSPLayerWithTwoConv):
    """YOLOv8's CSP layer with one more branch: max-sigmoid attention on the last block."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        num_blocks: int,
        guide_channels: int,
        embed_channels: int,
        num_heads: int,
        norm_cfg: dict,
        act_cfg: dict,
    ):
        super().__init__(
            in_channels,
            out_channels,
            num_blocks=num_blocks,
            add_identity=False,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
        )
        self.final_conv = ConvModule(
            (3 + num_blocks) * self.mid_channels,
            out_channels,
            1,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
        )
        self.attn_block = MaxSigmoidAttention(
            channels=self.mid_channels,
            guide_channels=guide_channels,
            embed_channels=embed_channels,
            num_heads=num_heads,
            norm_cfg=norm_cfg,
        )

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        branches = list(self.main_conv(x).chunk(2, 1))
        for block in self.blocks:
            branches.append(block(branches[-1]))
        branches.append(self.attn_block(branches[-1], text))
        return self.final_conv(torch.cat(branches, 1))

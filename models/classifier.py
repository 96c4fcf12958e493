"""The anomaly classifier: SimMIM's ViT with one logit, p(abnormal) = sigmoid(logit)."""

import copy
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from timm.layers import resize_rel_pos_bias_table
from timm.models.beit import Beit
from torch import nn

from human_anomaly.configs.defaults import ConfigError
from human_anomaly.data.transforms import EvalTransform
from human_anomaly.models.checkpoint import (
    CheckpointError,
    State,
    assign_state,
    compare,
    pick_state,
    read_checkpoint,
)
from human_anomaly.models.cpu.int8 import Int8Linear
from human_anomaly.models.cpu.layers import replace_layers

# A pre-training file does not hold these, so they are newly initialised.
NEW_IN_FINETUNE = ("fc_norm.", "head.")


class AnomalyClassifier(Beit):
    """ViT with relative position bias and mean pooling: (B, 3, S, S) to (B,) abnormal logits."""

    def __init__(self, *, head_hidden: int = 0, conv_stem: bool = False, **beit):
        # Beit scales a new head by 0.001, which is too small for a network trained from scratch.
        scale = {"head_init_scale": 1.0} if conv_stem else {}
        super().__init__(num_classes=1, global_pool="avg", **scale, **beit)
        if conv_stem:
            self.patch_embed.proj = build_conv_stem(beit["patch_size"], beit["embed_dim"])
        if head_hidden:
            self.head = nn.Sequential(
                nn.Linear(self.num_features, head_hidden), nn.GELU(), nn.Linear(head_hidden, 1)
            )
            for layer in (self.head[0], self.head[2]):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return super().forward(image).squeeze(-1)  # (B, 1) to (B,)


def build_conv_stem(patch_size: int, embed_dim: int) -> nn.Sequential:
    """Return 3x3 convolutions and poolings: (B, 3, S, S) to one position per patch.

    They can be trained on a few thousand images, which are too few for a linear patch embedding
    (arXiv 2106.14881).
    """
    steps = int(math.log2(patch_size))
    if 2**steps != patch_size or steps < 2:
        raise ConfigError(
            f"MODEL.VIT.PATCH_SIZE: a convolutional stem needs 4, 8, 16, ..., got {patch_size}"
        )
    layers: list[nn.Module] = []
    channels = 3
    for step in range(1, steps):
        width, stride = embed_dim >> (steps - 1 - step), 2 if step == 1 else 1
        layers += [
            nn.Conv2d(channels, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        ]
        channels = width
    return nn.Sequential(*layers, nn.Conv2d(channels, embed_dim, 1))


def shape_of(config) -> dict:
    """Return the keywords of `AnomalyClassifier` that the settings describe."""
    vit = config.MODEL.VIT
    return {
        "img_size": config.DATA.IMG_SIZE,
        "patch_size": vit.PATCH_SIZE,
        "embed_dim": vit.EMBED_DIM,
        "depth": vit.DEPTH,
        "num_heads": vit.NUM_HEADS,
        "mlp_ratio": vit.MLP_RATIO,
        "qkv_bias": vit.QKV_BIAS,
        "init_values": vit.INIT_VALUES,
        "use_abs_pos_emb": vit.USE_APE,
        "use_rel_pos_bias": vit.USE_RPB,
        "use_shared_rel_pos_bias": vit.USE_SHARED_RPB,
        "drop_rate": config.MODEL.DROP_RATE,
        "drop_path_rate": config.MODEL.DROP_PATH_RATE,
        "head_hidden": config.MODEL.HEAD_HIDDEN,
        "conv_stem": vit.CONV_STEM,
    }


@dataclass(frozen=True)
class InputForm:
    """How a crop of a video frame becomes a classifier's input of (size, size) pixels.

    With `crop` the centre is cut after resizing. `channels` is their order, rgb or bgr.
    """

    size: int = 224
    crop: bool = True
    interpolation: str = "bicubic"
    channels: str = "rgb"

    def transform(self) -> EvalTransform:
        """Return the transform of evaluation."""
        return EvalTransform(size=self.size, crop=self.crop, interpolation=self.interpolation)


def input_of(config) -> InputForm:
    """Return the InputForm that the settings describe."""
    data, test = config.DATA, config.TEST
    return InputForm(data.IMG_SIZE, test.CROP, data.INTERPOLATION, test.CHANNELS)


def in_type(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return `model` in a floating `dtype`, or a copy of it whose blocks compute in int8.

    The copy takes and returns float32, and has no gradients.
    """
    if dtype != torch.int8:
        return model.to(dtype)
    model = copy.deepcopy(model)
    for block in model.blocks:
        block.attn.qkv_bias_separate = True  # else timm takes qkv's weight and skips the layer
    replace_layers(model.blocks, nn.Linear, Int8Linear)
    return model


def convert_finetuned(state: State, abnormal_index: int = 0) -> State:
    """Drop index buffers and fold a two-logit head into the abnormal logit.

    softmax over (a, n) gives p(a) = sigmoid(a - n), so the fold w[a] - w[n] is exact.
    """
    state = {k: v for k, v in state.items() if not k.endswith("relative_position_index")}
    weight, bias = state.get("head.weight"), state.get("head.bias")
    if weight is not None and bias is not None and weight.ndim == 2 and weight.shape[0] == 2:
        normal = 1 - abnormal_index
        state["head.weight"] = (weight[abnormal_index] - weight[normal])[None]
        state["head.bias"] = (bias[abnormal_index] - bias[normal])[None]
    return state


def convert_pretrained(state: State, model: nn.Module) -> State:
    """Map a SimMIM pre-training state to the classifier's names, without its final norm.

    Pre-training shares one bias table among all blocks: it is copied to each, and interpolated
    where `model` has another patch grid.
    """
    prefix = "encoder." if any(k.startswith("encoder.") for k in state) else ""
    state = {
        k.removeprefix(prefix): v
        for k, v in state.items()
        if k.startswith(prefix) and not k.endswith("relative_position_index")
    }
    shared = state.pop("rel_pos_bias.relative_position_bias_table", None)
    for name in ("mask_token", "norm.weight", "norm.bias"):
        state.pop(name, None)
    for name, table in model.named_parameters():
        if not name.endswith("relative_position_bias_table"):
            continue
        if shared is not None:
            state[name] = shared.clone()
        if name in state and state[name].shape != table.shape:
            state[name] = resize_rel_pos_bias_table(
                state[name].float(), model.patch_embed.grid_size, table.shape
            )
    return state


def load_pretrained(model: nn.Module, path: str | Path, abnormal_index: int = 0) -> list[str]:
    """Start `model` from SimMIM's file or a classifier's; return the names that stay random.

    The head of a classifier, released or ours, is kept if `model`'s has the same shape. After a
    pre-training file, the final norm and the head stay random. Raises CheckpointError if anything
    else is missing.
    """
    state = pick_state(read_checkpoint(path), ("model",), path)
    state = convert_pretrained(convert_finetuned(state, abnormal_index), model)
    wanted = model.state_dict()
    head = {k for k in state if k.startswith("head.")}
    if any(k not in wanted or state[k].shape != wanted[k].shape for k in head):
        state = {k: v for k, v in state.items() if k not in head}
    may_be_new = ("head.",) if head else NEW_IN_FINETUNE
    new = [k for k in wanted if k not in state and k.startswith(may_be_new)]
    compare(state, {k: v for k, v in wanted.items() if k not in new}, path)
    model.load_state_dict(state, strict=False)
    return new


def load_classifier(path: str | Path, config, device: str | torch.device) -> AnomalyClassifier:
    """Return the fine-tuned classifier at `path` in evaluation mode: (B, 3, S, S) to (B,) logits.

    Takes our own files and the released two-logit ones; raises CheckpointError for others.
    """
    state = pick_state(read_checkpoint(path), ("model",), path)
    if any(k.startswith("encoder.") for k in state):
        raise CheckpointError(
            f"{path}: expected a fine-tuned classifier, found a pre-training file"
        )

    model = AnomalyClassifier(**shape_of(config))
    assign_state(model, convert_finetuned(state, config.MODEL.ABNORMAL_INDEX), path)
    return model.requires_grad_(False).eval().to(device)

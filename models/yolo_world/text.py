"""CLIP ViT-B/32's text tower from open_clip, and the names that official files give its weights.

open_clip takes seconds to import, so import this module only where a text must be encoded.
"""

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import QuickGELU, TextTransformer
from torch import Tensor, nn

_RENAMES = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}
_LAYER = re.compile(r"text_model\.encoder\.layers\.(\d+)\.(.+)")
_IN_LAYER = {
    "self_attn.out_proj.": "attn.out_proj.",
    "layer_norm1.": "ln_1.",
    "layer_norm2.": "ln_2.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
}


def build_text_tower() -> nn.Module:
    """Return the text tower with random weights, named as in open_clip."""
    return TextTransformer(77, 49408, 512, 8, 12, output_dim=512, act_layer=QuickGELU)


def convert_text_tower(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Map official names (without prefix) to open_clip's; unknown names stay as they are."""
    out, projections = {}, {}
    for name, value in state.items():
        if name.endswith("position_ids"):
            continue
        if name == "text_projection.weight":
            out["text_projection"] = value.T
            continue
        layer = _LAYER.fullmatch(name)
        if layer is None:
            out[_RENAMES.get(name, name)] = value
            continue
        block, rest = f"transformer.resblocks.{layer[1]}.", layer[2]
        if (part := re.fullmatch(r"self_attn\.([qkv])_proj\.(weight|bias)", rest)) is not None:
            projections.setdefault(f"{block}attn.in_proj_{part[2]}", {})[part[1]] = value
            continue
        for old, new in _IN_LAYER.items():
            if rest.startswith(old):
                rest = new + rest.removeprefix(old)
        out[block + rest] = value
    for name, parts in projections.items():
        if len(parts) == 3:
            out[name] = torch.cat([parts[k] for k in "qkv"])
    return out


@torch.no_grad()
def encode_texts(tower: nn.Module, texts: Sequence[str]) -> Tensor:
    """Return the embeddings (len(texts), 512) of `texts`, each of length 1."""
    tokens = SimpleTokenizer()(list(texts))  # (N, 77), start and end tokens added
    return F.normalize(tower(tokens), dim=-1)

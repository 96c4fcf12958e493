"""What drove p: the relevance of patches, and its place on the crop."""

import numpy as np
import pytest
import torch

from human_anomaly.configs.defaults import get_config
from human_anomaly.models.classifier import AnomalyClassifier, InputForm, shape_of
from human_anomaly.models.report.heatmap import (
    Explainer,
    early_layer,
    gradient_at,
    on_crop,
    relevance,
)

SMALL = [
    "DATA.IMG_SIZE",
    "32",
    "MODEL.VIT.PATCH_SIZE",
    "8",
    "MODEL.VIT.EMBED_DIM",
    "16",
    "MODEL.VIT.DEPTH",
    "3",
    "MODEL.VIT.NUM_HEADS",
    "2",
    "MODEL.VIT.INIT_VALUES",
    "1.0",
]


def small_model(*opts):
    torch.manual_seed(0)
    shape = shape_of(get_config(None, [*SMALL, *opts]))
    model = AnomalyClassifier(**shape).eval().requires_grad_(False)
    for parameter in model.parameters():  # the start values are too small to show anything
        if parameter.ndim == 2:
            torch.nn.init.xavier_uniform_(parameter, gain=1.5)
    return model


def bright_model(sign=1.0):
    """A network whose logit rises (or falls) with the brightness of the image, patch by patch."""
    model = small_model()
    for block in model.blocks:
        block.attn.proj.weight.zero_()
        block.mlp.fc2.weight.zero_()
    model.patch_embed.proj.weight.zero_()
    model.patch_embed.proj.weight[0] = 1 / 192
    model.patch_embed.proj.bias.copy_(torch.linspace(-1, 1, 16))
    model.head.weight.zero_()
    model.head.weight[0, 0] = sign
    return model


def spot(row, column):
    image = torch.zeros(1, 3, 32, 32)
    image[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 1
    return image


@pytest.mark.parametrize("place", [(0, 0), (1, 2), (3, 1)])
def test_the_patch_that_raises_the_logit_is_found(place):
    found = relevance(bright_model(), spot(*place))[0]
    assert found.shape == (4, 4) and np.unravel_index(found.argmax(), (4, 4)) == place
    assert found[place] > 5 * found.flatten().sort().values[-2].abs()
    against = relevance(bright_model(-1.0), spot(*place))[0]
    assert np.unravel_index(against.argmin(), (4, 4)) == place  # here it lowers the logit


OTHERS = {
    "patches": [],
    "shared bias and positions": [
        *("MODEL.VIT.USE_SHARED_RPB", "True", "MODEL.VIT.USE_RPB", "False"),
        *("MODEL.VIT.USE_APE", "True"),
    ],
    "convolutional stem": [
        *("MODEL.VIT.CONV_STEM", "True", "MODEL.VIT.PATCH_SIZE", "16"),
        *("DATA.IMG_SIZE", "64"),
    ],
}


@pytest.mark.parametrize("kind", OTHERS)
def test_relevances_add_up_to_what_the_places_changed(kind):
    """The sum over places is the logit less that of the crop's mean feature everywhere."""
    model = small_model(*OTHERS[kind])
    for parameter in (model.pos_embed, *model.buffers()):
        if parameter is not None and parameter.is_floating_point() and parameter.ndim == 3:
            parameter.normal_()
    side = 64 if "stem" in kind else 32
    images = torch.randn(3, 3, side, side)
    found = relevance(model, images, steps=200)
    assert found.shape == ((3, 16, 16) if "stem" in kind else (3, 4, 4))
    layer = early_layer(model, images)
    mean, whole = (gradient_at(model, layer, images, share)[0] for share in (0.0, 1.0))
    change = whole - mean
    assert torch.allclose(whole, model(images), atol=1e-5)
    assert torch.allclose(found.sum((1, 2)), change, atol=5e-3) and change.abs().max() > 0.02


def test_batch_equals_single_and_leaves_the_network_alone():
    model, images = small_model(), torch.randn(5, 3, 32, 32)
    with torch.inference_mode():  # as at scoring
        together = relevance(model, images)
        alone = torch.cat([relevance(model, image[None]) for image in images])
    assert torch.allclose(together, alone, atol=1e-5)
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert relevance(model.bfloat16(), images).dtype == torch.float32


def test_heat_lies_where_the_patch_is():
    found = np.zeros((4, 4), np.float32)
    found[1, 2], found[3, 3] = 2.0, -5.0
    heat = on_crop(found, (80, 80), 32, crop=False)
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    assert 20 <= y < 40 and 40 <= x < 60 and heat.max() == pytest.approx(1, abs=0.2)
    assert heat[65:, 65:].max() < 0.01  # what lowers the logit is no heat


@pytest.mark.parametrize("shape", [(256, 256), (100, 100), (100, 101)])
def test_outside_of_the_centre_that_was_seen_is_no_heat(shape):
    heat = on_crop(np.ones((14, 14), np.float32), shape, 224, crop=True)
    assert heat.shape == shape
    seen = np.argwhere(heat > 0)
    side = 0.875 * min(shape)
    assert np.allclose(seen.max(0) - seen.min(0) + 1, side, atol=2)
    assert np.allclose(seen.mean(0), (np.array(shape) - 1) / 2, atol=1)
    assert not on_crop(np.zeros((14, 14), np.float32), shape, 224, crop=True).any()


def test_crops_are_fed_as_at_scoring():
    crop = np.zeros((40, 40, 3), np.uint8)
    crop[:, :, 2] = 255  # red
    seen = {}
    for channels in ("rgb", "bgr"):
        explain = Explainer({"hand": small_model()}, InputForm(32, False, channels=channels))
        seen[channels] = explain.prepare([crop])[0, :, 16, 16]
    assert seen["rgb"][0] > 2 and seen["rgb"][2] < -1.5
    assert seen["bgr"][2] > 2 and seen["bgr"][0] < -1.5


def test_explainer_takes_crops_of_all_sizes():
    explain = Explainer({"hand": small_model()}, InputForm(32, False), batch_size=2)
    crops = [np.random.default_rng(i).integers(0, 255, (30 + i, 31, 3), np.uint8) for i in range(3)]
    heats = explain("hand", crops)
    assert [h.shape for h in heats] == [(30, 31), (31, 31), (32, 31)]
    assert np.allclose(heats[2], explain("hand", crops[2:])[0], atol=1e-4)
    assert all(h.min() >= 0 and h.max() <= 1 for h in heats) and explain("hand", []) == []

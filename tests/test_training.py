"""The recipe against the goldens: groups, rates, one training step; and the parts it is made of."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from human_anomaly.configs.defaults import get_config
from human_anomaly.data.transforms import Augment, EvalTransform, normalize
from human_anomaly.models.classifier import AnomalyClassifier, convert_finetuned, shape_of
from human_anomaly.models.device import set_matmul_precision
from human_anomaly.models.training.engine import train_step
from human_anomaly.models.training.recipe import build_augment, build_optimizer, build_schedule

GOLDENS = Path(__file__).parent / "goldens"
sys.path.insert(0, str(GOLDENS))
from seeded_weights import seeded_tensor, wave_image  # noqa: E402

OPTIM = json.loads((GOLDENS / "finetune_optim.expected.json").read_text())
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def vit_b():
    return AnomalyClassifier(**shape_of(get_config()))


def built(model):
    """Return the optimiser and schedule that the golden describes."""
    train = get_config(flags={"TRAIN.EPOCHS": OPTIM["epochs"]}).TRAIN
    optimizer = build_optimizer(model, train, 1.0)
    return optimizer, build_schedule(optimizer, train, OPTIM["steps_per_epoch"], 1.0)


def test_parameter_groups(vit_b):
    optimizer, _ = built(vit_b)
    names = {id(p): n for n, p in vit_b.named_parameters()}
    assert len(optimizer.param_groups) == len(OPTIM["groups"]) == 28
    for found, expected in zip(optimizer.param_groups, OPTIM["groups"], strict=True):
        assert sorted(names[id(p)] for p in found["params"]) == sorted(expected["params"])
        assert found["weight_decay"] == expected["weight_decay"]
        assert found["initial_lr"] == pytest.approx(expected["lr"], rel=1e-9)
        assert found["betas"] == tuple(OPTIM["betas"])
        assert found["eps"] == OPTIM["eps"]
    assert OPTIM["clip_grad"] == get_config().TRAIN.CLIP_GRAD


def test_rates_after_each_step(vit_b):
    optimizer, schedule = built(vit_b)
    number = {group["group_name"]: i for i, group in enumerate(OPTIM["groups"])}
    assert {group["lr"] for group in optimizer.param_groups} == {2.5e-7}  # before step 0
    for step, rates in OPTIM["lr_after_step_update"].items():
        schedule.step_update(int(step))
        for name, rate in rates.items():
            assert optimizer.param_groups[number[name]]["lr"] == pytest.approx(rate, rel=1e-9)


def test_training_step(vit_b):
    """Loss and gradients of one batch, as the original computes them from the two-logit head."""
    shapes = json.loads((GOLDENS / "simmim_finetune_vitb.keys.json").read_text())
    golden = json.loads((GOLDENS / "simmim_vitb.expected.json").read_text())["training_step"]
    state = {
        name: seeded_tensor(f"human/{name}", tuple(shape))
        for name, shape in shapes.items()
        if not name.endswith("relative_position_index")
    }
    vit_b.load_state_dict(convert_finetuned(state, golden["abnormal_index"]))

    transform = EvalTransform()
    images = torch.stack([transform(Image.fromarray(wave_image(224, 224, i))) for i in range(4)])
    targets = torch.tensor(golden["abnormal_targets"])
    vit_b.eval()  # no drop path
    loss = nn.BCEWithLogitsLoss()(vit_b(images), targets)
    loss.backward()
    assert loss.item() == pytest.approx(golden["loss"], rel=1e-5)
    for name, norm in golden["grad_norm"].items():
        assert vit_b.get_parameter(name).grad.norm().item() == pytest.approx(norm, rel=1e-3)
    vit_b.zero_grad()


def test_normalize_is_the_evaluation_transform():
    image = wave_image(224, 224, 3)
    transform = EvalTransform(size=224, crop=False)
    mine = normalize(torch.from_numpy(image.copy())[None])
    assert mine.shape == (1, 3, 224, 224)
    assert mine.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(mine[0], transform(Image.fromarray(image)), atol=1e-5, rtol=0)


BYTES = torch.arange(4 * 8 * 8 * 3, dtype=torch.int64).remainder(256).byte().reshape(4, 8, 8, 3)
TARGETS = torch.tensor([0, 1, 1, 1])


def augment_with(smoothing=0.0, mixup=0.0, cutmix=0.0, mode="batch", erase=0.0) -> Augment:
    """Return the recipe's augmentation; by default it only normalises."""
    flags = {"MODEL.LABEL_SMOOTHING": smoothing, "AUG.MIXUP": mixup, "AUG.CUTMIX": cutmix}
    flags |= {"AUG.MIXUP_MODE": mode, "AUG.REPROB": erase}
    return build_augment(get_config(flags=flags), CPU)


def test_smoothing_without_mixing():
    images, soft = augment_with(smoothing=0.1)(BYTES, TARGETS)
    torch.testing.assert_close(images, normalize(BYTES))
    torch.testing.assert_close(soft, torch.tensor([0.05, 0.95, 0.95, 0.95]))


@pytest.mark.parametrize("mixup, cutmix", [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_soft_targets_are_the_share_of_abnormal(mixup, cutmix, mode):
    """Pixels 0 and 255 by class: the mean of a mixed image is its share of abnormal."""
    np.random.seed(5)
    augment = augment_with(smoothing=0.1, mixup=mixup, cutmix=cutmix, mode=mode)
    flat = torch.zeros(4, 8, 8, 3, dtype=torch.uint8) + 255 * TARGETS.view(4, 1, 1, 1).byte()
    low, high = normalize(flat)[0].mean(), normalize(flat)[1].mean()
    seen = set()
    for _ in range(8):
        images, soft = augment(flat, TARGETS)
        share = (images.mean((1, 2, 3)) - low) / (high - low)
        torch.testing.assert_close(soft, share * 0.9 + 0.05, atol=1e-5, rtol=0)
        seen.add(round(soft[0].item(), 4))
    assert len(seen) > 2  # it mixes, each time differently


def test_random_erasing():
    np.random.seed(0)
    images, _ = augment_with(erase=1.0)(BYTES, TARGETS)
    changed = (images != normalize(BYTES)).any(1).float().mean((1, 2))
    assert ((changed > 0) & (changed < 0.5)).all()


class Tiny(nn.Module):
    """A network small enough to follow: (B, 3, 8, 8) to (B,) logits."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3 * 8 * 8, 1)

    def forward(self, images):
        return self.head(images.flatten(1)).squeeze(-1)


def tiny_step(*batches, clip_grad=0.0, precision="fp32"):
    """Return (new network after one step of SGD on the batches, loss, gradient norm)."""
    torch.manual_seed(0)
    model = Tiny()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss, norm = train_step(
        model,
        nn.BCEWithLogitsLoss(),
        batches,
        optimizer,
        augment=augment_with(),
        device=CPU,
        precision=precision,
        clip_grad=clip_grad,
    )
    return model, loss.item(), norm.item()


def test_two_micro_batches_are_one_batch():
    torch.manual_seed(0)
    expected = nn.BCEWithLogitsLoss()(Tiny()(normalize(BYTES)), TARGETS.float()).item()
    one, *whole = tiny_step((BYTES, TARGETS))
    assert whole[0] == pytest.approx(expected)
    two, *halves = tiny_step((BYTES[:2], TARGETS[:2]), (BYTES[2:], TARGETS[2:]))
    assert whole == pytest.approx(halves, rel=1e-6)
    torch.testing.assert_close(one.head.weight, two.head.weight)


def test_clipping():
    """SGD moves by lr times the gradient, whose norm is at most what is allowed."""
    torch.manual_seed(0)
    before = torch.cat([p.detach().flatten() for p in Tiny().parameters()])
    for clip, moved in ((0.5, 0.05), (0.0, None)):  # 0: no clipping
        model, _, norm = tiny_step((BYTES, TARGETS), clip_grad=clip)
        after = torch.cat([p.detach().flatten() for p in model.parameters()])
        assert norm > 0.5  # the norm that is told is the one before clipping
        expected = moved if moved is not None else 0.1 * norm
        assert (after - before).norm().item() == pytest.approx(expected, rel=1e-4)


def test_gradient_checkpointing_changes_nothing():
    config = get_config(
        None,
        flags={
            "DATA.IMG_SIZE": 32,
            "MODEL.VIT.EMBED_DIM": 32,
            "MODEL.VIT.DEPTH": 2,
            "MODEL.VIT.NUM_HEADS": 2,
            "MODEL.DROP_PATH_RATE": 0.5,
        },
    )
    torch.manual_seed(0)
    model = AnomalyClassifier(**shape_of(config)).train()
    images = torch.randn(8, 3, 32, 32)
    grads = []
    for checkpointing in (False, True):
        model.set_grad_checkpointing(checkpointing)
        model.zero_grad()
        torch.manual_seed(1)  # the same paths are dropped, also when computed again
        model(images).sum().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    for plain, again in zip(*grads, strict=True):
        torch.testing.assert_close(plain, again)


def test_precision_switch():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        set_matmul_precision("fp32")
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cudnn.allow_tf32
        set_matmul_precision("tf32")
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def test_bf16_keeps_float32_weights():
    model, loss, norm = tiny_step((BYTES, TARGETS), precision="bf16")
    _, exact, exact_norm = tiny_step((BYTES, TARGETS))
    assert loss != exact and loss == pytest.approx(exact, rel=0.02)
    assert norm == pytest.approx(exact_norm, rel=0.02)
    assert model.head.weight.dtype == torch.float32

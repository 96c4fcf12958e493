"""The recipe of training: data, augmentation, network, loss, optimiser and schedule.

The first functions take plain values. The others read the settings, each in one place; the default
values are in configs/defaults.py.
"""

import logging

import torch
from timm.optim import param_groups_layer_decay
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.utils.data import DataLoader

from data.dataset import CropDataset, Manifest, build_train_loader, build_val_loader
from data.transforms import (
    Augment,
    build_eval_transform,
    build_train_transform,
    smallest_useful_side,
)
from models.classifier import build_classifier, load_pretrained
from models.training.run_folder import TrainingState
from utils import UsageError, world_size

logger = logging.getLogger(__name__)

REFERENCE_BATCH = 128  # the images per optimiser step for which the settings give learning rates


def images_per_step(batch_size: int, accumulation: int) -> int:
    """Return the images of one optimiser step over all processes."""
    return batch_size * world_size() * accumulation


def count_steps(crops: int, batch_size: int, accumulation: int) -> int:
    """Return the optimiser steps in an epoch; raise UsageError if the crops fill not even one."""
    images = images_per_step(batch_size, accumulation)
    if crops < images:
        raise UsageError(
            f"--batch-size: the training data has {crops} crops, fewer than the {images} of one "
            f"step ({batch_size} x {world_size()} processes x {accumulation} accumulated)"
        )
    return crops // images


def build_criterion() -> nn.Module:
    """Return the loss of logits (B,) and targets (B,) in 0..1: mean binary cross-entropy."""
    return nn.BCEWithLogitsLoss()


def build_optimizer(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    layer_decay: float,
    betas: tuple[float, float],
    eps: float,
) -> torch.optim.AdamW:
    """Return fused AdamW with one group per (layer, decayed or not), the first layers first.

    The head learns with rate `lr`, each layer below it with `layer_decay` times the rate of the
    layer above. Biases, norms and the class token are not decayed.
    """
    groups = param_groups_layer_decay(
        model, weight_decay, no_weight_decay_list=("cls_token",), layer_decay=layer_decay
    )
    for group in groups:
        # timm's schedule would multiply its minimum and its first rate by `lr_scale` too. In this
        # recipe they are the same for all layers, so the groups carry their rates instead.
        group["lr"] = lr * group.pop("lr_scale")
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)


def build_schedule(
    optimizer: torch.optim.Optimizer,
    *,
    steps_per_epoch: int,
    epochs: int,
    warmup_epochs: int,
    min_lr: float,
    warmup_lr: float,
) -> CosineLRScheduler:
    """Return a cosine over all steps; a linear warm-up replaces its first part.

    Call `step_update(n)` after step n (from 0), as the released training did.
    """
    return CosineLRScheduler(
        optimizer,
        t_initial=epochs * steps_per_epoch,
        lr_min=min_lr,
        warmup_lr_init=warmup_lr,
        warmup_t=warmup_epochs * steps_per_epoch,
        t_in_epochs=False,
        cycle_limit=1,
        warmup_prefix=False,
    )


def load_train(config, crops: Manifest, epochs: range) -> DataLoader:
    """Return the loader of this process's training batches of all `epochs`."""
    data, aug = config.DATA, config.AUG
    transform = build_train_transform(
        size=data.IMG_SIZE,
        interpolation=data.INTERPOLATION,
        auto_augment=aug.AUTO_AUGMENT,
        color_jitter=aug.COLOR_JITTER,
        min_crop=aug.MIN_CROP,
    )
    min_side = smallest_useful_side(data.IMG_SIZE, aug.MIN_CROP)
    dataset = CropDataset(crops, transform, seed=config.SEED, min_side=min_side)
    return build_train_loader(
        dataset,
        batch_size=data.BATCH_SIZE,
        accumulation=config.TRAIN.ACCUMULATION_STEPS,
        epochs=epochs,
        workers=data.NUM_WORKERS,
        pin_memory=data.PIN_MEMORY,
    )


def load_val(config, crops: Manifest) -> DataLoader:
    """Return the loader of this process's share of the validation crops."""
    # The files are RGB. TEST.CHANNELS is about video frames and does nothing here.
    size, interpolation = config.DATA.IMG_SIZE, config.DATA.INTERPOLATION
    transform = build_eval_transform(size=size, crop=config.TEST.CROP, interpolation=interpolation)
    return build_val_loader(
        CropDataset(crops, transform),
        batch_size=config.DATA.BATCH_SIZE,
        workers=config.DATA.NUM_WORKERS,
        pin_memory=config.DATA.PIN_MEMORY,
    )


def build_augment(config, device: torch.device) -> Augment:
    """Return the part of the augmentation that works on whole batches."""
    aug = config.AUG
    return Augment(
        smoothing=config.MODEL.LABEL_SMOOTHING,
        mixup=aug.MIXUP,
        cutmix=aug.CUTMIX,
        mix_prob=aug.MIXUP_PROB,
        switch_prob=aug.MIXUP_SWITCH_PROB,
        mix_mode=aug.MIXUP_MODE,
        erase_prob=aug.REPROB,
        erase_mode=aug.REMODE,
        erase_count=aug.RECOUNT,
        device=device,
    )


def build_model(config, device: torch.device) -> torch.nn.Module:
    """Return the network to train, from the pre-training file if one is set."""
    torch.manual_seed(config.SEED)  # the same new weights in every process
    model = build_classifier(config)
    if config.PRETRAINED:
        new = load_pretrained(model, config.PRETRAINED)
        logger.info(f"loaded {config.PRETRAINED}; new: {', '.join(new)}")
    else:
        logger.warning("no --pretrained: training starts from random weights")
    model.set_grad_checkpointing(config.TRAIN.USE_CHECKPOINT)
    model.to(device)
    if config.TRAIN.COMPILE:
        model.compile()
    return model


def build_state(config, crops_count: int, device: torch.device) -> TrainingState:
    """Return the network, its optimiser and its schedule before the first step."""
    train, batch_size = config.TRAIN, config.DATA.BATCH_SIZE
    images = images_per_step(batch_size, train.ACCUMULATION_STEPS)
    steps = count_steps(crops_count, batch_size, train.ACCUMULATION_STEPS)
    scale = images / REFERENCE_BATCH
    model = build_model(config, device)
    optimizer = build_optimizer(
        model,
        lr=train.BASE_LR * scale,
        weight_decay=train.WEIGHT_DECAY,
        layer_decay=train.LAYER_DECAY,
        betas=train.OPTIMIZER.BETAS,
        eps=train.OPTIMIZER.EPS,
    )
    schedule = build_schedule(
        optimizer,
        steps_per_epoch=steps,
        epochs=train.EPOCHS,
        warmup_epochs=train.WARMUP_EPOCHS,
        min_lr=train.MIN_LR * scale,
        warmup_lr=train.WARMUP_LR * scale,
    )
    return TrainingState(model, optimizer, schedule, device, images, steps)

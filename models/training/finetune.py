"""The parts of a training run, built from its settings."""

import logging
import math

import torch
from torch.utils.data import DataLoader, Sampler

from data.dataset import CropDataset, EpochBatches, Manifest
from data.transforms import build_eval_transform, build_train_transform
from models.classifier import build_classifier, load_pretrained
from models.training import recipe
from utils import (
    UsageError,
    cores_per_process,
    rank,
    world_size,
)

logger = logging.getLogger(__name__)


def images_per_step(config) -> int:
    """Return the images of one optimiser step over all processes."""
    return config.DATA.BATCH_SIZE * world_size() * config.TRAIN.ACCUMULATION_STEPS


def count_steps(config, manifest: Manifest) -> int:
    """Return the optimiser steps in an epoch; UsageError if the data set fills not even one."""
    steps = len(manifest) // images_per_step(config)
    if not steps:
        raise UsageError(
            f"--batch-size: {manifest.path} has {len(manifest)} crops, fewer than the "
            f"{images_per_step(config)} of one step ({config.DATA.BATCH_SIZE} x {world_size()} "
            f"processes x {config.TRAIN.ACCUMULATION_STEPS} accumulated)"
        )
    return steps


def build_loader(config, dataset: CropDataset, order, device: torch.device) -> DataLoader:
    """Return the loader of `order`: a sampler of batches, or a list of rows."""
    workers = min(config.DATA.NUM_WORKERS, cores_per_process())
    share = {"sampler": order, "batch_size": config.DATA.BATCH_SIZE}
    return DataLoader(
        dataset,
        **({"batch_sampler": order} if isinstance(order, Sampler) else share),
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        pin_memory=config.DATA.PIN_MEMORY and device.type == "cuda",
        generator=torch.Generator(),  # else it draws from ours, and a resumed run once more
    )


def build_train_loader(config, manifest: Manifest, epochs: range, device) -> DataLoader:
    """Return the loader of this process's batches of all `epochs`, one after the other."""
    transform = build_train_transform(
        size=config.DATA.IMG_SIZE,
        interpolation=config.DATA.INTERPOLATION,
        auto_augment=config.AUG.AUTO_AUGMENT,
        color_jitter=config.AUG.COLOR_JITTER,
        min_crop=config.AUG.MIN_CROP,
    )
    order = EpochBatches(
        len(manifest),
        batch_size=config.DATA.BATCH_SIZE,
        epochs=epochs,
        seed=config.SEED,
        rank=rank(),
        world=world_size(),
        accumulation=config.TRAIN.ACCUMULATION_STEPS,
    )
    # The smallest random crop is still shrunk to the network's input, by half or more.
    least = math.ceil(2 * config.DATA.IMG_SIZE / math.sqrt(config.AUG.MIN_CROP or 1))
    crops = CropDataset(manifest, transform, seed=config.SEED, least=least)
    return build_loader(config, crops, order, device)


def build_val_loader(config, manifest: Manifest, device) -> DataLoader:
    """Return the loader of this process's share of the crops: nothing padded, nothing twice."""
    # Files are RGB; TEST.CHANNELS is about frames at scoring and does not act here.
    transform = build_eval_transform(
        size=config.DATA.IMG_SIZE, crop=config.TEST.CROP, interpolation=config.DATA.INTERPOLATION
    )
    rows = list(range(rank(), len(manifest), world_size()))
    return build_loader(config, CropDataset(manifest, transform), rows, device)


def build_model(config, device: torch.device) -> torch.nn.Module:
    """Return the network to train, from the pre-training file if one is set."""
    torch.manual_seed(config.SEED)  # the same new weights in every process
    model = build_classifier(config)
    if config.PRETRAINED:
        new = load_pretrained(model, config.PRETRAINED)
        logger.info("loaded %s; new: %s", config.PRETRAINED, ", ".join(new))
    else:
        logger.warning("no --pretrained: training starts from random weights")
    if config.TRAIN.USE_CHECKPOINT:
        model.set_grad_checkpointing(True)
    model.to(device)
    if config.TRAIN.COMPILE:
        model.compile()
    return model


def build_trainer(config, model, device, steps_per_epoch: int) -> recipe.Trainer:
    """Return the trainer of the recipe in `config`, rates scaled with the images in a step."""
    scale = images_per_step(config) / recipe.REFERENCE_BATCH
    optimizer = recipe.build_optimizer(
        model,
        lr=config.TRAIN.BASE_LR * scale,
        weight_decay=config.TRAIN.WEIGHT_DECAY,
        layer_decay=config.TRAIN.LAYER_DECAY,
        betas=config.TRAIN.OPTIMIZER.BETAS,
        eps=config.TRAIN.OPTIMIZER.EPS,
    )
    schedule = recipe.build_schedule(
        optimizer,
        steps_per_epoch=steps_per_epoch,
        epochs=config.TRAIN.EPOCHS,
        warmup_epochs=config.TRAIN.WARMUP_EPOCHS,
        min_lr=config.TRAIN.MIN_LR * scale,
        warmup_lr=config.TRAIN.WARMUP_LR * scale,
    )
    augment = recipe.Augment(
        smoothing=config.MODEL.LABEL_SMOOTHING,
        mixup=config.AUG.MIXUP,
        cutmix=config.AUG.CUTMIX,
        mix_prob=config.AUG.MIXUP_PROB,
        switch_prob=config.AUG.MIXUP_SWITCH_PROB,
        mode=config.AUG.MIXUP_MODE,
        erase_prob=config.AUG.REPROB,
        erase_mode=config.AUG.REMODE,
        erase_count=config.AUG.RECOUNT,
        device=device,
    )
    return recipe.Trainer(
        model,
        optimizer,
        schedule,
        augment=augment,
        criterion=recipe.build_criterion(
            focal=config.LOSS.FOCAL, alpha=config.LOSS.FOCAL_ALPHA, gamma=config.LOSS.FOCAL_GAMMA
        ),
        device=device,
        precision=config.TRAIN.PRECISION,
        clip_grad=config.TRAIN.CLIP_GRAD,
    )

"""The recipe of training: data, augmentation, network, optimiser and schedule.

The defaults of the settings are in configs/defaults.py.
"""

import logging
from collections.abc import Callable
from functools import partial

import torch
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from timm.optim import param_groups_layer_decay
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.utils.data import DataLoader

from human_anomaly.data.dataset import CropDataset, EpochBatches, Manifest, build_loader
from human_anomaly.data.transforms import (
    Augment,
    build_train_transform,
    smallest_useful_side,
)
from human_anomaly.models.classifier import (
    AnomalyClassifier,
    input_of,
    load_pretrained,
    shape_of,
)
from human_anomaly.models.training import engine
from human_anomaly.models.training.run_folder import TrainingState
from human_anomaly.utils import UsageError, rank, world_size

logger = logging.getLogger(__name__)

# The settings give learning rates for this many images per optimiser step. SimMIM's code has 512,
# but the released classifiers were trained with 128; 512 would make every rate a quarter of theirs.
REFERENCE_BATCH = 128


def count_steps(crops: int, batch_size: int, accumulation: int) -> tuple[int, int]:
    """Return the images of an optimiser step over all processes, and the steps in an epoch.

    Raises UsageError if there are too few crops for one step.
    """
    images = batch_size * world_size() * accumulation
    if crops < images:
        raise UsageError(
            f"--batch-size: the training data has {crops} crops, fewer than the {images} of one "
            f"step ({batch_size} x {world_size()} processes x {accumulation} accumulated)"
        )
    return images, crops // images


def build_optimizer(model: nn.Module, train, scale: float) -> torch.optim.AdamW:
    """Return fused AdamW with one group per (layer, decayed or not), the first layers first.

    `train` are the settings TRAIN. The head learns with BASE_LR times `scale`, each layer below it
    with LAYER_DECAY times the rate of the layer above. Biases, norms, class token do not decay.
    """
    groups = param_groups_layer_decay(
        model,
        train.WEIGHT_DECAY,
        no_weight_decay_list=("cls_token",),
        layer_decay=train.LAYER_DECAY,
    )
    lr, adam = train.BASE_LR * scale, train.OPTIMIZER
    for group in groups:
        # timm's schedule would multiply the minimum and warm-up rates by `lr_scale` too. In this
        # recipe these are the same for all layers, so only the groups' own rates are scaled.
        group["lr"] = lr * group.pop("lr_scale")
    return torch.optim.AdamW(groups, lr=lr, betas=adam.BETAS, eps=adam.EPS, fused=True)


def build_schedule(
    optimizer: torch.optim.Optimizer, train, steps: int, scale: float
) -> CosineLRScheduler:
    """Return a cosine over all steps, whose first part is replaced by a linear warm-up.

    Call `step_update(n)` after step n (from 0), as the released training did.
    """
    return CosineLRScheduler(
        optimizer,
        t_initial=train.EPOCHS * steps,
        lr_min=train.MIN_LR * scale,
        warmup_lr_init=train.WARMUP_LR * scale,
        warmup_t=train.WARMUP_EPOCHS * steps,
        t_in_epochs=False,
        cycle_limit=1,
        warmup_prefix=False,
    )


def load_train(config, crops: Manifest, epochs: range) -> DataLoader:
    """Return one loader of this process's training batches of all `epochs`.

    Its workers load beyond the end of an epoch, so that the next one starts without waiting.
    """
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
    order = EpochBatches(
        len(crops),
        batch_size=data.BATCH_SIZE,
        epochs=epochs,
        seed=config.SEED,
        rank=rank(),
        world=world_size(),
        accumulation=config.TRAIN.ACCUMULATION_STEPS,
    )
    return build_loader(dataset, data.NUM_WORKERS, data.PIN_MEMORY, batch_sampler=order)


def load_val(config, crops: Manifest) -> DataLoader:
    """Return the loader of this process's share of the crops; each crop is in one share."""
    # The files are RGB. TEST.CHANNELS is about video frames and has no effect here.
    data, transform = config.DATA, input_of(config).transform()
    rows = range(rank(), len(crops), world_size())
    order = {"sampler": rows, "batch_size": data.BATCH_SIZE}
    return build_loader(CropDataset(crops, transform), data.NUM_WORKERS, data.PIN_MEMORY, **order)


def build_augment(config, device: torch.device) -> Augment:
    """Return the augmentation of whole batches."""
    aug, smoothing, erase, mix = config.AUG, config.MODEL.LABEL_SMOOTHING, None, None
    if aug.REPROB:
        erase = RandomErasing(
            aug.REPROB, mode=aug.REMODE, max_count=aug.RECOUNT, device=str(device)
        )
    if aug.MIXUP or aug.CUTMIX:
        mix = Mixup(
            mixup_alpha=aug.MIXUP,
            cutmix_alpha=aug.CUTMIX,
            prob=aug.MIXUP_PROB,
            switch_prob=aug.MIXUP_SWITCH_PROB,
            mode=aug.MIXUP_MODE,
            label_smoothing=smoothing,
            num_classes=2,
        )
    return Augment(erase, mix, smoothing)


def build_state(config, crops_count: int, device: torch.device) -> TrainingState:
    """Return the network, its optimiser and its schedule before the first step.

    The network starts from the file PRETRAINED, if one is set.
    """
    train = config.TRAIN
    images, steps = count_steps(crops_count, config.DATA.BATCH_SIZE, train.ACCUMULATION_STEPS)
    torch.manual_seed(config.SEED)  # the same new weights in every process
    model = AnomalyClassifier(**shape_of(config))
    if config.PRETRAINED:
        new = load_pretrained(model, config.PRETRAINED, config.MODEL.ABNORMAL_INDEX)
        logger.info(f"loaded {config.PRETRAINED}; new: {', '.join(new) or 'nothing'}")
    else:
        logger.warning("no --pretrained: training starts from random weights")
    model.set_grad_checkpointing(train.USE_CHECKPOINT)
    model.to(device)
    if train.COMPILE:
        model.compile()
    scale = images / REFERENCE_BATCH
    optimizer = build_optimizer(model, train, scale)
    schedule = build_schedule(optimizer, train, steps, scale)
    return TrainingState(model, optimizer, schedule, device, images, steps)


def build_step(config, network: nn.Module, state: TrainingState) -> Callable:
    """Return `train_step` with all arguments but the micro-batches given."""
    return partial(
        engine.train_step,
        network,
        nn.BCEWithLogitsLoss(),
        optimizer=state.optimizer,
        augment=build_augment(config, state.device),
        device=state.device,
        precision=config.TRAIN.PRECISION,
        clip_grad=config.TRAIN.CLIP_GRAD,
    )

"""The recipe of one training step: loss, mixing, optimiser, schedule, precision."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from timm.optim import param_groups_layer_decay
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn

from data.transforms import normalize
from utils import sum_over_processes, world_size

REFERENCE_BATCH = 128  # the global batch for which the settings give learning rates


def param_groups(
    model: nn.Module, *, lr: float, weight_decay: float, layer_decay: float
) -> list[dict]:
    """Return one group per (layer, decay or not), first layers first, each with its own rate."""
    groups = param_groups_layer_decay(
        model, weight_decay, no_weight_decay_list=("cls_token",), layer_decay=layer_decay
    )
    # timm's schedule would scale the minimum and the warm-up's start by lr_scale too.
    return [{**group, "lr": lr * group["lr_scale"]} for group in groups]


def build_optimizer(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.05,
    layer_decay: float = 0.65,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> torch.optim.AdamW:
    """Return fused AdamW with layer-wise learning rates; `lr` is the last layer's."""
    groups = param_groups(model, lr=lr, weight_decay=weight_decay, layer_decay=layer_decay)
    for group in groups:
        del group["lr_scale"]
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
    """Return a cosine over all steps whose first part a linear warm-up covers.

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


class Augment:
    """Images (B, H, W, 3) uint8 and 0/1 targets (B,), to normalised images and soft targets.

    Random erasing, then mixup or cutmix, on the images' device. Soft targets are the probability
    of abnormal, smoothed; the batch must be even where mixing is on.
    """

    def __init__(
        self,
        *,
        smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        mix_prob: float = 1.0,
        switch_prob: float = 0.5,
        mode: str = "batch",
        erase_prob: float = 0.0,
        erase_mode: str = "pixel",
        erase_count: int = 1,
        device: torch.device | str = "cpu",
    ):
        self.smoothing = smoothing
        self.erase = (
            RandomErasing(erase_prob, mode=erase_mode, max_count=erase_count, device=str(device))
            if erase_prob
            else None
        )
        self.mix = (
            Mixup(mixup, cutmix, None, mix_prob, switch_prob, mode, True, smoothing, 2)
            if mixup or cutmix
            else None
        )

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        images = normalize(images)
        if self.erase is not None:
            images = self.erase(images)
        if self.mix is None:
            return images, targets.float() * (1 - self.smoothing) + self.smoothing / 2
        images, soft = self.mix(images, targets)  # (B, 2): normal, abnormal
        return images, soft[:, 1]


def build_criterion(
    *, focal: bool = False, alpha: float = 0.25, gamma: float = 2.0
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the mean loss of (B,) logits and soft targets: BCE, or the focal loss."""
    if focal:
        from torchvision.ops import sigmoid_focal_loss

        return lambda logits, targets: sigmoid_focal_loss(
            logits, targets, alpha=alpha, gamma=gamma, reduction="mean"
        )
    return F.binary_cross_entropy_with_logits


def autocast(device: torch.device, precision: str):
    """Return the context in which the network computes: bf16 autocast, or nothing."""
    if precision != "bf16":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def share_buffers(model: nn.Module) -> None:
    """Give every process the running statistics of process 0, which the checkpoint holds."""
    if world_size() > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)


@dataclass
class StepResult:
    """Loss (mean over all processes) and gradient norm of a step, on their way to the CPU."""

    values: Tensor
    event: torch.cuda.Event | None

    def read(self) -> tuple[float, float]:
        if self.event is not None:
            self.event.synchronize()
        return tuple(self.values.tolist())


class Trainer:
    """Runs optimiser steps of one or more micro-batches; everything a step changes is in here."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: CosineLRScheduler | None = None,
        *,
        augment: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        criterion: Callable[[Tensor, Tensor], Tensor],
        device: torch.device,
        precision: str = "fp32",
        clip_grad: float = 5.0,
    ):
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.augment, self.criterion = augment, criterion
        self.device, self.precision = device, precision
        self.clip_grad = clip_grad or float("inf")
        self.network = model
        if world_size() > 1:
            ids = [device.index] if device.type == "cuda" else None
            self.network = nn.parallel.DistributedDataParallel(
                model, device_ids=ids, gradient_as_bucket_view=True
            )

    def step(self, batches: Sequence[tuple[Tensor, Tensor]], number: int) -> StepResult:
        """Take step `number` (from 0) on the micro-batches (uint8 images, 0/1 targets)."""
        self.model.train()
        total = torch.zeros((), device=self.device)
        for last, (images, targets) in zip(
            [*[False] * (len(batches) - 1), True], batches, strict=True
        ):
            images = images.to(self.device, non_blocking=True)
            targets = targets.to(self.device, non_blocking=True)
            images, targets = self.augment(images, targets)
            # Gradients travel between processes once a step.
            wait = nullcontext() if last or self.network is self.model else self.network.no_sync()
            with wait:
                with autocast(self.device, self.precision):
                    logits = self.network(images)
                loss = self.criterion(logits.float(), targets) / len(batches)
                loss.backward()
            total += loss.detach()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.schedule is not None:
            self.schedule.step_update(number)
        loss = sum_over_processes(total) / world_size()
        values = torch.stack([loss, norm.float()]).to("cpu", non_blocking=True)
        event = torch.cuda.Event() if self.device.type == "cuda" else None
        if event is not None:
            event.record()
        return StepResult(values, event)

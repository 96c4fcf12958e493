"""One epoch of training, and one optimiser step."""

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from timm.scheduler.scheduler import Scheduler
from timm.utils import distribute_bn
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from human_anomaly.models.training.history import History
from human_anomaly.models.training.run_folder import BEST, TrainingState, checkpoints
from human_anomaly.utils import gather_objects, rank, stop_all, sum_over_processes, world_size

logger = logging.getLogger(__name__)


def wrap_for_processes(model: nn.Module, device: torch.device) -> nn.Module:
    """Return `model`, wrapped to average its gradients over all processes if there are several."""
    if world_size() == 1:
        return model
    ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)


def train_one_epoch(
    network: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor, Tensor]],
    take_step: Callable[[Sequence[tuple[Tensor, Tensor]]], tuple[Tensor, Tensor]],
    schedule: Scheduler,
    *,
    accumulation: int,
    epoch: int,
    log: "StepLog",
) -> float:
    """Take the optimiser steps of `epoch`; return their mean loss.

    `batches` yields this process's micro-batches: images (B, H, W, 3) uint8 RGB; targets (B,), 1
    for abnormal; rows (B,), the crops' places in their list. A step takes `accumulation` of them.
    `take_step(crops)` is `train_step` with its other arguments given. A loss or gradient that is
    not finite ends the run with UsageError.
    """
    steps, optimizer = log.steps, schedule.optimizer
    network.train()
    log.begin(epoch)
    for step in range(steps):
        micro_batches = list(itertools.islice(batches, accumulation))
        crops = [(images, targets) for images, targets, _ in micro_batches]
        loss, norm = take_step(crops)
        schedule.step_update(epoch * steps + step)
        rows = torch.cat([rows for _, _, rows in micro_batches])
        log.add(step, loss, norm, rows, lr=optimizer.param_groups[-1]["lr"])
    if world_size() > 1:  # all processes measure with process 0's statistics, which are saved
        distribute_bn(network, world_size())
    return float(np.mean(log.losses))


def train_step(
    network: nn.Module,
    criterion: Callable[[Tensor, Tensor], Tensor],
    micro_batches: Sequence[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    *,
    augment: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    device: torch.device,
    precision: str,
    clip_grad: float,
) -> tuple[Tensor, Tensor]:
    """Take one optimiser step on micro-batches of (images (B, H, W, 3) uint8, targets (B,) 0 or 1).

    The gradient is the mean over all of them and over all processes, clipped to the norm
    `clip_grad` (0: not clipped). `network` maps normalised images (B, 3, H, W) to logits (B,).
    Returns this process's loss and the gradient's norm before clipping, still on the device.
    """
    loss_sum = torch.zeros((), device=device)
    for number, (images, targets) in enumerate(micro_batches, 1):
        images, targets = augment(
            images.to(device, non_blocking=True), targets.to(device, non_blocking=True)
        )
        # The processes exchange gradients once a step, with the last micro-batch.
        is_last = number == len(micro_batches)
        is_shared = isinstance(network, DistributedDataParallel)
        with network.no_sync() if is_shared and not is_last else nullcontext():
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                logits = network(images)
            loss = criterion(logits.float(), targets) / len(micro_batches)
            loss.backward()
        loss_sum += loss.detach()
    norm = nn.utils.clip_grad_norm_(network.parameters(), clip_grad or math.inf)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss_sum, norm.detach().float()


@dataclass
class StepLog:
    """Reads losses and gradient norms every `print_freq` steps, logs them, and stops a bad run.

    Until then they stay on the device, so that a GPU seldom waits for Python. Process 0 logs, and
    adds to `history`. `names` are the crops' file names.
    """

    history: History
    names: Sequence[str]
    epochs: int
    steps: int  # of an epoch
    print_freq: int

    def begin(self, epoch: int) -> None:
        """Start a new epoch."""
        self.epoch, self.start, self.images = epoch, time.perf_counter(), 0
        self.losses: list[float] = []  # of the steps read so far, each the mean over processes
        self.unread: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, step: int, loss: Tensor, norm: Tensor, rows: Tensor, lr: float) -> None:
        """Note the results of `step`, in which this process saw the crops `rows` (n,)."""
        self.unread.append((loss, norm, rows))
        if step % self.print_freq and step < self.steps - 1:
            return
        own_losses, norms, batches = zip(*self.unread, strict=True)
        losses = (sum_over_processes(torch.stack(own_losses)) / world_size()).tolist()
        norms = torch.stack(norms).tolist()
        for i, values in enumerate(zip(losses, norms, strict=True)):
            if not all(map(math.isfinite, values)):
                self._stop(step - len(losses) + 1 + i, *values, batches[i])
        self.losses += losses
        self.images += sum(map(len, batches)) * world_size()
        self.unread.clear()
        if rank() == 0:
            self._write(step, losses[-1], norms[-1], lr)

    def _stop(self, step: int, loss: float, norm: float, rows: Tensor) -> None:
        """End the run and list the step's files; all processes have the same loss and norm."""
        own_names = [self.names[row] for row in rows.tolist()]
        names = list(itertools.chain.from_iterable(gather_objects(own_names)))
        listing = self.history.folder / "nonfinite_batch.txt"
        if rank() == 0:
            listing.write_text("\n".join(names) + "\n", encoding="utf-8")
        value = f"gradient norm is {norm}" if math.isfinite(loss) else f"loss is {loss}"
        kept = next(iter(checkpoints(self.history.folder)), "none yet")
        stop_all(
            f"{value} in step {step} of epoch {self.epoch}; stopped, last good checkpoint: {kept}; "
            f"the step's {len(names)} files are in {listing}: {', '.join(names[:4])}"
            + (", ..." if len(names) > 4 else "")
        )

    def _write(self, step: int, loss: float, norm: float, lr: float) -> None:
        seconds = time.perf_counter() - self.start
        steps_left = (self.epochs - self.epoch) * self.steps - step - 1
        memory = ""
        if torch.cuda.is_available():
            memory = f" memory {torch.cuda.max_memory_allocated() / 2**20:.0f} MB"
        logger.info(
            f"epoch {self.epoch} [{step}/{self.steps}] loss {loss:.4f} norm {norm:.3f} lr {lr:.6f}"
            f" {self.images / seconds:.0f} images/s{memory}"
            f" {seconds / (step + 1) * steps_left / 60:.1f} min left"
        )
        row = {
            "epoch": self.epoch,
            "step": self.epoch * self.steps + step,
            "at": self.epoch + (step + 1) / self.steps,
            "loss": loss,
            "grad_norm": norm,
            "lr": lr,
        }
        self.history.add(row)


def log_epoch(history: History, train_loss: float, metrics: dict, state: TrainingState) -> None:
    """Add the epoch's row to `history` and log its figures."""
    epoch, best = state.next_epoch - 1, state.best["epoch"]
    history.add({"epoch": epoch, "train_loss": train_loss, "val": metrics, "best_epoch": best})
    logger.info(
        f"epoch {epoch}: training loss {train_loss:.4f}; validation loss {metrics['loss']:.4f} "
        f"AUROC {metrics['auroc']:.4f} average precision {metrics['average_precision']:.4f} "
        f"accuracy {metrics['accuracy']:.4f} F1 {metrics['f1']:.4f} at {metrics['threshold']:.4g}; "
        f"best AUROC {state.best['auroc']:.4f} in epoch {best}"
    )


def tell_best(last: Path, metrics: dict, best: dict | None) -> None:
    """Log the file of the last epoch, which has these `metrics`, and the file of the best one."""
    logger.info(f"last epoch: {last}, AUROC {metrics['auroc']:.4f}")
    if best:
        path = last.with_name(BEST)
        logger.info(f"best epoch: {path}, epoch {best['epoch']}, AUROC {best['auroc']:.4f}")

"""A training run: its epochs, its checkpoints, its report; and the report of any checkpoint."""

import itertools
import json
import logging
import random
import time
from pathlib import Path

import numpy as np
import torch

from configs.defaults import thresholds
from data.dataset import Manifest, read_batches
from models.classifier import load_classifier
from models.training import run_folder
from models.training.finetune import (
    build_model,
    build_train_loader,
    build_trainer,
    build_val_loader,
    count_steps,
    images_per_step,
)
from models.training.metrics import measure, predict
from models.training.recipe import share_buffers
from models.training.report import write_report
from utils import UsageError, gather_objects, rank, read_jsonl

logger = logging.getLogger(__name__)

UNKNOWN_PART_THRESHOLD = 0.5


def threshold_of(config, manifest: Manifest) -> float:
    """Return the threshold of the crops' part; 0.5 where the part is unknown."""
    return thresholds(config).get(manifest.part, UNKNOWN_PART_THRESHOLD)


class Run:
    """One training run in the folder `config.OUTPUT`; `train` leaves it finished."""

    def __init__(self, config, train: Manifest, val: Manifest, device: torch.device):
        self.config, self.manifest, self.val, self.device = config, train, val, device
        self.folder = Path(config.OUTPUT)
        self.metrics_file = self.folder / "metrics.jsonl"
        self.steps = count_steps(config, train)
        self.model = build_model(config, device)
        self.trainer = build_trainer(config, self.model, device, self.steps)
        self.threshold = threshold_of(config, val)
        self.start, self.best = 0, None
        # From here on the processes' random numbers differ, as their crops do.
        seed = config.SEED + rank()
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)

    def resume(self, *, own: bool = True) -> None:
        """Go on from the folder's newest whole checkpoint (if `own`), else from MODEL.RESUME."""
        found = run_folder.newest_whole(self.folder) if own else None
        if found is None and self.config.MODEL.RESUME:
            path = Path(self.config.MODEL.RESUME)
            found = path, run_folder.read_checkpoint(path)
        if found is not None:
            path, content = found
            self.start, self.best = run_folder.restore(
                self.trainer,
                content,
                path,
                global_batch=images_per_step(self.config),
                steps_per_epoch=self.steps,
            )
            logger.info("going on from %s with epoch %d", path, self.start)
        if len(set(starts := gather_objects(self.start))) > 1:
            raise UsageError(f"--output: not shared by all machines, they go on at {starts}")

    def train(self) -> None:
        """Train the epochs that are left, then write the report if it is not there."""
        epochs = range(self.start, self.config.TRAIN.EPOCHS)
        if rank() == 0:
            run_folder.keep_metrics(self.metrics_file, self.start)
        val_loader = build_val_loader(self.config, self.val, self.device)
        logits = None
        if epochs:
            batches = read_batches(
                build_train_loader(self.config, self.manifest, epochs, self.device)
            )
        for epoch in epochs:
            train_loss = self._train_epoch(epoch, batches)
            # Measuring may draw random numbers (an import does); training must not notice.
            states = run_folder.random_states(self.device)
            logits = self._predict(val_loader)
            self._finish_epoch(epoch, train_loss, logits, states)
            run_folder.set_random_states(states, self.device)
        if not (self.folder / "report" / "metrics.json").is_file():
            logits = self._predict(val_loader) if logits is None else logits
            if rank() == 0:
                self._report(logits)

    def _predict(self, loader) -> np.ndarray:
        share_buffers(self.model)
        return predict(
            self.model,
            loader,
            len(self.val),
            device=self.device,
            precision=self.config.TRAIN.PRECISION,
        )

    def _train_epoch(self, epoch: int, batches) -> float:
        """Run the steps of one epoch; return the mean loss."""
        losses: list[float] = []
        pending = None  # a step is looked at while the next one runs: no waiting for the GPU
        clock = time.perf_counter()
        for step in range(self.steps):
            micro = list(itertools.islice(batches, self.config.TRAIN.ACCUMULATION_STEPS))
            rows = torch.cat([batch[2] for batch in micro])
            result = self.trainer.step(
                [(images, targets) for images, targets, _ in micro], epoch * self.steps + step
            )
            lr = self.trainer.optimizer.param_groups[-1]["lr"]
            if pending is not None:
                losses.append(self._look_at(*pending, clock, epoch))
            pending = result, rows, step, lr
        losses.append(self._look_at(*pending, clock, epoch))
        return float(np.mean(losses))

    def _look_at(self, result, rows, step: int, lr: float, clock: float, epoch: int) -> float:
        """Return the step's loss and log it now and then; stop the run if it is not finite."""
        loss, norm = result.read()
        if not np.isfinite([loss, norm]).all():
            self._stop(loss, norm, rows, step, epoch)
        if rank() == 0 and (step % self.config.PRINT_FREQ == 0 or step == self.steps - 1):
            rate = (step + 1) * images_per_step(self.config) / (time.perf_counter() - clock)
            left = (self.config.TRAIN.EPOCHS - epoch) * self.steps - step - 1
            minutes = left * images_per_step(self.config) / rate / 60
            memory = ""
            if self.device.type == "cuda":
                memory = f" memory {torch.cuda.max_memory_allocated() / 2**20:.0f} MB"
            logger.info(
                f"epoch {epoch} [{step}/{self.steps}] loss {loss:.4f} norm {norm:.3f} lr {lr:.6f}"
                f" {rate:.0f} images/s{memory} {minutes:.1f} min left"
            )
            row = {
                "epoch": epoch,
                "step": epoch * self.steps + step,
                "at": epoch + (step + 1) / self.steps,
                "loss": loss,
                "grad_norm": norm,
                "lr": lr,
            }
            self._add_row(row)
        return loss

    def _stop(self, loss: float, norm: float, rows: torch.Tensor, step: int, epoch: int):
        """Raise UsageError with the step and its files (the whole list goes into a file)."""
        mine = [self.manifest.names[row] for row in rows.tolist()]
        names = list(itertools.chain.from_iterable(gather_objects(mine)))
        listing = self.folder / "nonfinite_batch.txt"
        if rank() == 0:
            listing.write_text("\n".join(names) + "\n", encoding="utf-8")
        what = f"loss is {loss}" if not np.isfinite(loss) else f"gradient norm is {norm}"
        kept = next(iter(run_folder.checkpoints(self.folder)), "none yet")
        raise UsageError(
            f"{what} in step {step} of epoch {epoch}; stopped, last good checkpoint: {kept}; the "
            f"step's {len(names)} files are in {listing}: {', '.join(names[:4])}"
            + (", ..." if len(names) > 4 else "")
        )

    def _add_row(self, row: dict) -> None:
        try:
            with self.metrics_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise UsageError(f"{self.metrics_file}: cannot write: {error}") from error

    def _finish_epoch(self, epoch: int, train_loss: float, logits: np.ndarray, states) -> None:
        """Measure, log and save one epoch."""
        metrics = measure(self.val.targets, logits, self.threshold)
        if self.best is None or metrics["auroc"] > self.best["auroc"]:
            self.best = {"epoch": epoch, **metrics}
        states = gather_objects(states)
        if rank() != 0:
            return
        self._add_row({"epoch": epoch, "train_loss": train_loss, "val": metrics})
        logger.info(
            "epoch %d: training loss %.4f; validation loss %.4f AUROC %.4f average precision %.4f"
            " accuracy %.4f F1 %.4f at %.4g; best AUROC %.4f in epoch %d",
            *(epoch, train_loss, metrics["loss"], metrics["auroc"], metrics["average_precision"]),
            *(metrics["accuracy"], metrics["f1"], self.threshold),
            *(self.best["auroc"], self.best["epoch"]),
        )
        content = {
            "model": self.model.state_dict(),
            "epoch": epoch,
            "metrics": metrics,
            "best": self.best,
            "config": self.config.dump(),
            "abnormal_label": self.manifest.abnormal_label,
            "global_batch": images_per_step(self.config),
            "steps_per_epoch": self.steps,
        }
        last = epoch == self.config.TRAIN.EPOCHS - 1
        if last or (epoch + 1) % self.config.SAVE_FREQ == 0:
            run_folder.save(self.folder / f"ckpt{epoch}.pth", content)
        content["optimizer"] = self.trainer.optimizer.state_dict()
        content["schedule"] = self.trainer.schedule.state_dict()
        content["random_states"] = states
        run_folder.save(self.folder / "last.pth", content)

    def _report(self, logits: np.ndarray) -> None:
        metrics = measure(self.val.targets, logits, self.threshold)
        epoch = self.config.TRAIN.EPOCHS - 1
        write_report(
            self.folder / "report",
            self.val,
            logits,
            metrics,
            history=read_jsonl(self.metrics_file) if self.metrics_file.is_file() else [],
            origin=report_origin(self.folder / f"ckpt{epoch}.pth", self.val),
        )
        logger.info("report: %s", self.folder / "report")


def report_origin(checkpoint: Path, val: Manifest) -> dict:
    """Return what a report is about, for its metrics.json."""
    return {
        "checkpoint": str(checkpoint),
        "val_path": str(val.path),
        "part": val.part,
        "abnormal_label": val.abnormal_label,
    }


def evaluate(config, val: Manifest, device: torch.device, *, overwrite: bool = False) -> dict:
    """Judge MODEL.RESUME, or the newest checkpoint in OUTPUT, on `val`; write OUTPUT/report."""
    folder = Path(config.OUTPUT)
    path = Path(config.MODEL.RESUME) if config.MODEL.RESUME else None
    if path is None:
        found = run_folder.newest_whole(folder)
        if found is None:
            raise UsageError(f"--eval: --resume is missing and {folder} holds no checkpoint")
        path = found[0]
    model = load_classifier(path, config, device)
    origin = report_origin(path, val)
    run_folder.check_report(folder / "report", origin, overwrite=overwrite)
    if config.TRAIN.COMPILE:
        model.compile()
    loader = build_val_loader(config, val, device)
    logits = predict(model, loader, len(val), device=device, precision=config.TRAIN.PRECISION)
    metrics = measure(val.targets, logits, threshold_of(config, val))
    if rank() == 0:
        history = folder / "metrics.jsonl"
        own = path.resolve().parent == folder.resolve() and history.is_file()
        rows = read_jsonl(history) if own else []
        write_report(folder / "report", val, logits, metrics, history=rows, origin=origin)
    return metrics

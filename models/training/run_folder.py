"""The folder of a training run: its settings, its checkpoints, and how a run resumes from them."""

import logging
import pickle
import re
import shutil
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from timm.scheduler.scheduler import Scheduler

from human_anomaly.configs.defaults import differences, get_config
from human_anomaly.models.checkpoint import CheckpointError, compare, pick_state, read_checkpoint
from human_anomaly.models.training.history import BOARD, keep_metrics
from human_anomaly.models.training.random_states import set_random_states
from human_anomaly.utils import UsageError, atomic_write, gather_objects, message_of, rank

logger = logging.getLogger(__name__)


@dataclass
class TrainingState:
    """What training changes, and two sizes that must equal those of a checkpoint to resume."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Scheduler
    device: torch.device
    images_per_step: int
    steps_per_epoch: int
    next_epoch: int = 0
    best: dict | None = None  # epoch and metrics of best.pth, which has the highest AUROC

    def finish_epoch(self, epoch: int, metrics: dict) -> None:
        """Note that `epoch` is trained and has these `metrics`."""
        self.next_epoch = epoch + 1
        if self.best is None or metrics["auroc"] > self.best["auroc"]:
            self.best = {"epoch": epoch, **metrics}


BEST = "best.pth"
STATES = ("optimizer", "schedule", "random_states")  # only last.pth holds these

# Settings that may change when a run resumes: results stay the same, except for rounding.
MAY_CHANGE = {
    "BASE",
    "OUTPUT",
    "TAG",
    "PRINT_FREQ",
    "SAVE_FREQ",
    "MODEL.RESUME",
    "DATA.NUM_WORKERS",
    "DATA.PIN_MEMORY",
    "TRAIN.USE_CHECKPOINT",
    "TRAIN.COMPILE",
    # These two set the images per step, which `restore` compares with the checkpoint's.
    "DATA.BATCH_SIZE",
    "TRAIN.ACCUMULATION_STEPS",
}


def checkpoints(folder: Path) -> list[Path]:
    """Return the folder's checkpoints, newest first: last.pth, then ckpt{epoch}.pth by number."""
    numbered = {}
    for path in folder.glob("ckpt*.pth"):
        if match := re.fullmatch(r"ckpt(\d+)\.pth", path.name):
            numbered[int(match[1])] = path
    last = folder / "last.pth"
    return [*([last] if last.is_file() else []), *(numbered[n] for n in sorted(numbered)[::-1])]


def newest_whole(folder: Path) -> tuple[Path, dict] | None:
    """Return the newest checkpoint that can be read, and its content; warn of damaged ones."""
    found = ((path, read_whole(path)) for path in checkpoints(folder))
    return next(((path, content) for path, content in found if content), None)


def read_whole(path: Path) -> dict | None:
    """Return a checkpoint's content; None for no file, or, with a warning, for a damaged one."""
    try:
        return read_checkpoint(path) if path.is_file() else None
    except CheckpointError as error:
        logger.warning(f"checkpoint skipped: {error}")
    return None


def find_conflict(folder: Path, config) -> str:
    """Return why a run with these settings cannot resume in `folder`, or an empty string."""
    if not checkpoints(folder):
        return ""
    saved = folder / "config.yaml"
    if not saved.is_file():
        return (
            f"--output: {folder} holds checkpoints but no config.yaml to resume their run with; "
            "choose another folder, or --overwrite to delete them"
        )
    changed = [
        f"{key} {old!r}, now {new!r}"
        for key, (old, new) in differences(config, get_config(saved)).items()
        if key not in MAY_CHANGE
    ]
    if not changed:
        return ""
    return (
        f"--output: {folder} holds a run with other settings ({', '.join(changed)}); "
        "choose another folder, or --overwrite to delete that run"
    )


def prepare(folder: Path, config, *, overwrite: bool) -> bool:
    """Create the run's folder; return whether it holds another run, which `begin` then deletes.

    Raises UsageError where it holds another run and `overwrite` is not set.
    """
    conflict = find_conflict(folder, config)
    if conflict and not overwrite:
        raise UsageError(conflict)
    if rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(".*.part"):  # a killed run's half-written files
            path.unlink(missing_ok=True)
    return bool(conflict)


def begin(
    folder: Path, config, state: TrainingState, content: dict | None, *, clear_first: bool
) -> None:
    """Write the settings, and cut metrics.jsonl at the epoch where training starts.

    `content` is the folder's checkpoint from which training goes on. A killed run may have left
    some of its copies unwritten; they are written now.
    """
    if clear_first:
        clear(folder)
    with atomic_write(folder / "config.yaml") as file:
        file.write(config.dump())
    keep_metrics(folder / "metrics.jsonl", state.next_epoch)
    for path in copies(folder, config, state.best, content) if content else ():
        if (read_whole(path) or {}).get("epoch") != content["epoch"]:
            save_copy(path, content)


def clear(folder: Path) -> None:
    """Delete the files of the run in `folder` except its log; leave other files alone."""
    names = ("config.yaml", "metrics.jsonl", "nonfinite_batch.txt", BEST, "best.calibrated.pth")
    calibrated = folder.glob("ckpt*.calibrated.pth")
    for path in [*checkpoints(folder), *calibrated, *(folder / name for name in names)]:
        path.unlink(missing_ok=True)
    for name in ("report", BOARD):
        shutil.rmtree(folder / name, ignore_errors=True)


def save(path: Path, content: dict) -> None:
    """Write a checkpoint atomically; raises UsageError where it cannot be written (disk full)."""
    try:
        with atomic_write(path, "wb") as file:
            torch.save(content, file)
    except (OSError, RuntimeError, pickle.PicklingError) as error:
        # On a full disk, torch's own error names a position in the file; its cause names the disk.
        reason = next((e for e in (error.__context__, error.__cause__) if e), error)
        free = shutil.disk_usage(path.parent).free / 1e6
        kept = "the one before it is untouched" if path.exists() else "none was there before"
        raise UsageError(
            f"{path}: cannot save the checkpoint ({reason}; {free:.1f} MB free there); {kept}"
        ) from error


def save_epoch(
    folder: Path, config, state: TrainingState, metrics: dict, states: dict, *, abnormal_label: int
) -> None:
    """Write last.pth of the epoch just trained, which has these `metrics`, and its copies.

    `states` are this process's random states. Every process must call this; process 0 writes.
    """
    all_states = gather_objects(states)
    if rank() != 0:
        return
    content = {
        "epoch": state.next_epoch - 1,
        "metrics": metrics,
        "config": config.dump(),
        "abnormal_label": abnormal_label,
        "model": state.model.state_dict(),
        "best": state.best,
        "global_batch": state.images_per_step,
        "steps_per_epoch": state.steps_per_epoch,
        "optimizer": state.optimizer.state_dict(),
        "schedule": state.schedule.state_dict(),
        "random_states": all_states,
    }
    # last.pth comes first, because the other files can be made from it, but not it from them.
    save(folder / "last.pth", content)
    for path in copies(folder, config, state.best, content):
        save_copy(path, content)


def copies(folder: Path, config, best: dict | None, content: dict) -> list[Path]:
    """Return the other files, ckptN.pth or best.pth, that keep the weights in `content`."""
    epoch = content["epoch"]
    numbered = [folder / f"ckpt{epoch}.pth"] if is_numbered(epoch, config) else []
    return [
        *numbered,
        *([folder / BEST] if best == {"epoch": epoch} | content.get("metrics", {}) else []),
    ]


def save_copy(path: Path, content: dict) -> None:
    """Write the `content` of last.pth without the state of optimiser and generators."""
    save(path, {key: value for key, value in content.items() if key not in STATES})


def is_numbered(epoch: int, config) -> bool:
    """Return whether a checkpoint of this epoch is kept: every SAVE_FREQ-th one, and the last."""
    return epoch == config.TRAIN.EPOCHS - 1 or (epoch + 1) % config.SAVE_FREQ == 0


def find_checkpoint(folder: Path, path: str) -> Path:
    """Return `path` (from --resume) or else the newest whole checkpoint in `folder`."""
    if path:
        return Path(path)
    found = newest_whole(folder)
    if found is None:
        raise UsageError(f"--eval: --resume is missing and {folder} holds no checkpoint")
    return found[0]


def resume(state: TrainingState, folder: Path | None, path: str) -> dict | None:
    """Restore the newest whole checkpoint in `folder`, else the one at `path`, if there is one.

    Returns the content of the folder's checkpoint; None if training does not go on from one.
    """
    found = own = newest_whole(folder) if folder else None
    if found is None and path:
        found = Path(path), read_checkpoint(path)
    if found is None:
        return None
    restore(state, *found)
    state.best = best_kept(folder, own[1]) if own else None
    logger.info(f"resuming from {found[0]} at epoch {state.next_epoch}")
    return own[1] if own else None


def best_kept(folder: Path, content: dict) -> dict | None:
    """Return number and metrics of the best epoch whose weights are in best.pth or `content`."""
    both = [found or {} for found in (read_whole(folder / BEST), content)]
    known = [{"epoch": c["epoch"]} | c["metrics"] for c in both if "auroc" in c.get("metrics", ())]
    return max(known, key=lambda metrics: metrics["auroc"], default=None)


def restore(state: TrainingState, path: Path, content: dict) -> None:
    """Restore `state` and the random generators from a checkpoint's `content`.

    A numbered checkpoint has no optimiser state: training resumes with its weights and new moments,
    and a warning says so. Raises UsageError if the file is not from main_finetune.py, or if the
    images per step or the steps per epoch differ.
    """
    if "epoch" not in content or "global_batch" not in content:
        raise UsageError(f"{path}: expected a checkpoint that main_finetune.py wrote")
    weights = pick_state(content, ("model",), path)
    compare(weights, state.model.state_dict(), path)
    state.model.load_state_dict(weights)
    if content["global_batch"] != state.images_per_step:
        raise UsageError(
            f"{path}: trained with {content['global_batch']} images a step, now "
            f"{state.images_per_step}; keep batch size x processes x accumulation as it was"
        )
    if content["steps_per_epoch"] != state.steps_per_epoch:
        raise UsageError(
            f"{path}: trained with {content['steps_per_epoch']} steps an epoch, now "
            f"{state.steps_per_epoch}: the training data has changed; use another --output"
        )
    try:
        _restore_progress(state, path, content)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = message_of(error)[:200]
        raise UsageError(f"{path}: its optimiser or random state is damaged: {reason}") from error


def _restore_progress(state: TrainingState, path: Path, content: dict) -> None:
    state.next_epoch = content["epoch"] + 1
    if "optimizer" not in content:
        logger.warning(f"{path} holds no optimiser state, so the optimiser starts anew")
        state.schedule.step_update(max(state.next_epoch * state.steps_per_epoch - 1, 0))
        return
    # Copied, because they are mapped from disk and the optimiser changes its moments in place.
    state.optimizer.load_state_dict(deepcopy(content["optimizer"]))
    state.schedule.load_state_dict(content["schedule"])
    states = content["random_states"]
    if rank() < len(states):
        set_random_states(states[rank()], state.device)
    else:
        logger.warning(f"{path}: {len(states)} processes wrote it, so random numbers differ now")

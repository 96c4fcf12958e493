"""The folder of a training run: which settings it holds, its checkpoints, and going on."""

import json
import logging
import pickle
import random
import re
import shutil
from pathlib import Path

import numpy as np
import torch

from configs.defaults import differences, get_config
from models.checkpoint import CheckpointError, compare, pick_state, read_checkpoint
from utils import UsageError, atomic_write, rank, write_jsonl

logger = logging.getLogger(__name__)

# Settings that may change between two parts of one run: they change no result but by rounding.
FREE = {
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
    # Their product with the number of processes must stay; `restore` sees to that.
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
    """Return the newest checkpoint that can be read, and its content; warn about damaged ones."""
    for path in checkpoints(folder):
        try:
            return path, read_checkpoint(path)
        except CheckpointError as error:
            logger.warning("passed over: %s", error)
    return None


def find_conflict(folder: Path, config) -> str:
    """Return why the checkpoints in `folder` are of no run with these settings, or nothing."""
    if not checkpoints(folder):
        return ""
    saved = folder / "config.yaml"
    if not saved.is_file():
        return (
            f"--output: {folder} holds checkpoints but no config.yaml of a run that could go on; "
            "choose another folder, or --overwrite to delete them"
        )
    changed = differences(config, get_config(saved))
    changed = {key: pair for key, pair in changed.items() if key not in FREE}
    if not changed:
        return ""
    listed = ", ".join(f"{key} {old!r}, now {new!r}" for key, (old, new) in changed.items())
    return (
        f"--output: {folder} holds a run with other settings ({listed}); "
        "choose another folder, or --overwrite to delete that run"
    )


def clear(folder: Path) -> None:
    """Delete the files of the run in `folder`, its log apart, and nothing else."""
    names = ("config.yaml", "metrics.jsonl", "nonfinite_batch.txt")
    for path in [*checkpoints(folder), *(folder / name for name in names)]:
        path.unlink(missing_ok=True)
    shutil.rmtree(folder / "report", ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Delete the half-written files that a killed run left behind."""
    for path in folder.glob(".*.part"):
        path.unlink(missing_ok=True)


def save(path: Path, content: dict) -> None:
    """Write a checkpoint at once; raises UsageError where the disk does not take it."""
    try:
        with atomic_write(path, "wb") as file:
            torch.save(content, file)
    except (OSError, RuntimeError, pickle.PicklingError) as error:
        # torch's own words for a full disk are about positions in the archive.
        reason = next((e for e in (error.__context__, error.__cause__) if e), error)
        free = shutil.disk_usage(path.parent).free / 1e6
        kept = "the one before it is untouched" if path.exists() else "none was there before"
        raise UsageError(
            f"{path}: cannot save the checkpoint ({reason}; {free:.1f} MB free there); {kept}"
        ) from error


def random_states(device: torch.device) -> dict:
    """Return this process's random states as plain data."""
    kind, keys, *rest = np.random.get_state()
    version, words, gauss = random.getstate()
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def set_random_states(states: dict, device: torch.device) -> None:
    """Put back what `random_states` returned."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"].clone())
    if device.type == "cuda" and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"].clone(), device)


def load_weights(model: torch.nn.Module, content: dict, path: Path) -> None:
    """Copy a run's weights into `model`; another architecture raises CheckpointError."""
    state = pick_state(content, ("model",), path)
    compare(state, model.state_dict(), path)
    model.load_state_dict(state)


def check_report(folder: Path, origin: dict, *, overwrite: bool) -> None:
    """Raise UsageError if `folder` holds the report of something else than `origin`."""
    path = folder / "metrics.json"
    if overwrite or not path.is_file():
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    other = [key for key in origin if found.get(key) != origin[key]]
    if other:
        raise UsageError(
            f"--output: {folder} is a report of {other[0]} {found.get(other[0])!r}, not "
            f"{origin[other[0]]!r}; choose another folder, or --overwrite"
        )


def restore(
    trainer, content: dict, path: Path, *, global_batch: int, steps_per_epoch: int
) -> tuple[int, dict | None]:
    """Bring `trainer` to where the checkpoint was written; return (next epoch, best metrics).

    A numbered checkpoint has no optimiser state: its weights go on with fresh moments, and a
    warning says so. Raises UsageError if the images in a step differ, or it is no run of ours.
    """
    if "epoch" not in content or "global_batch" not in content:
        raise UsageError(f"{path}: expected a checkpoint that main_finetune.py wrote")
    load_weights(trainer.model, content, path)
    if content["global_batch"] != global_batch:
        raise UsageError(
            f"{path}: trained with {content['global_batch']} images a step, now {global_batch}; "
            "keep batch size x processes x accumulation as it was"
        )
    if content["steps_per_epoch"] != steps_per_epoch:
        raise UsageError(
            f"{path}: trained with {content['steps_per_epoch']} steps an epoch, now "
            f"{steps_per_epoch}: the training data has changed; use another --output"
        )
    done = content["epoch"] + 1
    if "optimizer" not in content:
        logger.warning("%s holds no optimiser state: its moments start new", path)
        trainer.schedule.step_update(max(done * content["steps_per_epoch"] - 1, 0))
        return done, content.get("best")
    # A file's tensors are mapped from disk; the optimiser must own what it changes in place.
    trainer.optimizer.load_state_dict(_copied(content["optimizer"]))
    trainer.schedule.load_state_dict(content["schedule"])
    states = content["random_states"]
    if rank() < len(states):
        set_random_states(states[rank()], trainer.device)
    else:
        logger.warning("%s: written by %d processes: random numbers differ", path, len(states))
    return done, content.get("best")


def _copied(tree):
    if isinstance(tree, torch.Tensor):
        return tree.clone()
    if isinstance(tree, dict):
        return {key: _copied(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_copied(value) for value in tree]
    return tree


def keep_metrics(path: Path, before_epoch: int) -> None:
    """Drop the rows of epochs that will be trained again, and a half-written last row."""
    rows = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if row["epoch"] < before_epoch:
                rows.append(row)
        write_jsonl(path, rows)

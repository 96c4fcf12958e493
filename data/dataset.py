"""Labelled crops: the lines of a JSONL, their images, and the loaders that serve them in order."""

import json
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from human_anomaly.configs.defaults import PARTS
from human_anomaly.configs.machine import cores_per_process
from human_anomaly.configs.values import short
from human_anomaly.data.pictures import PictureError, as_rgb, open_picture
from human_anomaly.data.sources import printable
from human_anomaly.utils import UsageError, stream_jsonl

PUBLIC_DATA_SET = "VBench-2.0_human_anomaly"  # its label 0 means abnormal
GUESSED = "the default"  # the reason where nothing says which label means abnormal


@dataclass(frozen=True)
class Manifest:
    """The rows of one JSONL file; `targets` are 1 for abnormal, whatever its labels mean."""

    path: Path
    root: Path
    part: str  # "" if the file's name does not begin with one
    abnormal_label: int
    label_source: str  # why `abnormal_label` is what it is
    names: tuple[str, ...]
    labels: np.ndarray  # (N,) int64, as in the file
    lines: tuple[int, ...]  # the number of each row's line in the file

    def __len__(self) -> int:
        return len(self.names)

    @property
    def targets(self) -> np.ndarray:
        return (self.labels == self.abnormal_label).astype(np.int64)

    def image_path(self, index: int) -> Path:
        return self.root / self.names[index]

    def place(self, index: int) -> str:
        return f"{self.path}:{self.lines[index]}"


def find_image_root(path: Path, part: str) -> Path:
    """Return all_images/ beside the JSONL, else the folder named like the part, else its own."""
    folders = [path.parent / "all_images", *([path.parent / part] if part else [])]
    return next((folder for folder in folders if folder.is_dir()), path.parent)


def find_abnormal_label(path: Path, setting: str = "auto") -> tuple[int, str]:
    """Return which label of the JSONL at `path` means abnormal, and why."""
    if setting != "auto":
        return int(setting), "as set"
    for folder in (path.resolve().parent, path.resolve().parent.parent):
        note = folder / "dataset.json"
        if note.is_file():
            try:
                label = json.loads(note.read_text(encoding="utf-8"))["abnormal_label"]
            except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
                raise UsageError(f"{note}: expected {{'abnormal_label': 0 or 1}}") from error
            if label not in (0, 1):
                raise UsageError(f"{note}: abnormal_label: expected 0 or 1, got {label!r}")
            return int(label), f"by {note}"
    if PUBLIC_DATA_SET in (*path.parts, *path.resolve().parts):
        return 0, f"the path holds {PUBLIC_DATA_SET}"
    return 1, GUESSED


def row_problem(row) -> str | None:
    """Return what is wrong with a row of a JSONL of labelled crops, or None."""
    if not isinstance(row, list) or len(row) < 2 or not isinstance(row[0], str) or not row[0]:
        return f'expected ["name.jpg", label, score], got {short(row)}'
    if "\0" in row[0] or printable(row[0]) != row[0]:
        return f"expected the name of a file, got {ascii(row[0])[:80]}"
    if row[1] is None:
        return "label is null: this crop is not labelled yet, label it or leave it out"
    if isinstance(row[1], bool) or not isinstance(row[1], int) or row[1] not in (0, 1):
        return f"label: expected 0, 1 or null, got {json.dumps(row[1])[:40]}"
    return None


def read_manifest(
    path: str | Path, *, image_root: str = "", part: str = "", abnormal_label: str = "auto"
) -> Manifest:
    """Read and check every line of a JSONL of labelled crops; `data.checks` opens the images.

    Raises UsageError, which names the line of a row of another form or a label that is not 0 or 1,
    and the file if it is empty or all its labels are equal.
    """
    path = Path(path)
    rows = list(stream_jsonl(path))
    wrong = [(line, problem) for line, row in rows if (problem := row_problem(row))]
    if wrong:
        more = f" (and {len(wrong) - 1} more lines)" if len(wrong) > 1 else ""
        raise UsageError(f"{path}:{wrong[0][0]}: {wrong[0][1]}{more}")
    if not rows:
        raise UsageError(f"{path}: empty, expected one crop a line")
    labels = np.array([row[1] for _, row in rows], dtype=np.int64)
    if len(set(labels.tolist())) == 1:
        raise UsageError(
            f"{path}: all {len(labels)} lines have label {labels[0]}, expected both 0 and 1"
        )
    part = part or max((p for p in PARTS if path.name.startswith(p)), key=len, default="")
    root = Path(image_root) if image_root else find_image_root(path, part)
    if not root.is_dir():
        raise UsageError(f"--image-root: no such folder: {root}")
    label, source = find_abnormal_label(path, abnormal_label)
    return Manifest(
        path=path,
        root=root,
        part=part,
        abnormal_label=label,
        label_source=source,
        names=tuple(row[0] for _, row in rows),
        labels=labels,
        lines=tuple(line for line, _ in rows),
    )


def read_image(path: str | Path, place: str, min_side: int = 0) -> Image.Image:
    """Return the decoded RGB image; raises UsageError that begins with `place`.

    With `min_side`, a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, which is faster, but
    to at least `min_side` pixels a side.
    """
    if not (path := Path(path)).exists():
        raise UsageError(f"{place}: no such image: {path}")
    try:
        with open_picture(path) as image:
            if min_side:
                image.draft("RGB", (min_side, min_side))
            return as_rgb(image)
    except PictureError as error:
        raise UsageError(f"{place}: cannot read image {path}: {error}") from error


@contextmanager
def seeded(*entropy: int) -> Iterator[None]:
    """Seed Python's, numpy's and torch's CPU generators inside, and restore them afterwards."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed seeds GPUs too
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


class CropDataset(Dataset):
    """Gives (transformed image, target, index) by (epoch, index) or by index; target 1 is abnormal.

    The random part of a transform depends on (seed, epoch, index) alone, so it does not change with
    the number of workers and processes, nor in a resumed run. `min_side`: see `read_image`.
    """

    def __init__(
        self, manifest: Manifest, transform: Callable, *, seed: int = 0, min_side: int = 0
    ):
        self.manifest = manifest
        self.targets = manifest.targets
        self.transform = transform
        self.seed = seed
        self.min_side = min_side

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, key: tuple[int, int] | int):
        epoch, index = key if isinstance(key, tuple) else (0, key)
        path, place = self.manifest.image_path(index), self.manifest.place(index)
        image = read_image(path, place, self.min_side)
        with seeded(self.seed, epoch, index):
            return self.transform(image), int(self.targets[index]), index


class EpochBatches(Sampler):
    """The batches of one process for all of `epochs`: lists of (epoch, index), one after another.

    Each epoch's crops are shuffled and cut into steps of batch_size x world x accumulation. Within
    a step, each batch_size x world successive crops are split between the processes in order of
    rank. Crops at the end that fill no whole step are left out in that epoch.
    """

    def __init__(
        self,
        size: int,
        *,
        batch_size: int,
        epochs: range,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        accumulation: int = 1,
    ):
        self.size, self.batch_size, self.epochs, self.seed = size, batch_size, epochs, seed
        self.rank, self.world = rank, world
        self.batches_per_epoch = size // (batch_size * world * accumulation) * accumulation

    def __len__(self) -> int:
        return len(self.epochs) * self.batches_per_epoch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for epoch in self.epochs:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.size).tolist()
            for batch in range(self.batches_per_epoch):
                start = (batch * self.world + self.rank) * self.batch_size
                yield [(epoch, i) for i in order[start : start + self.batch_size]]


def build_loader(dataset: CropDataset, workers: int, pin_memory: bool, **order) -> DataLoader:
    """Return a loader with at most `workers` workers.

    `order` are DataLoader's arguments: a batch sampler, or a sampler and a batch size.
    """
    workers = min(workers, cores_per_process())
    return DataLoader(
        dataset,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        pin_memory=pin_memory and torch.cuda.is_available(),
        # Each iterator draws a seed. From torch's global generator, a resumed run would draw once
        # more than an unbroken one, and its later random numbers would differ.
        generator=torch.Generator(),
        **order,
    )


def read_batches(loader) -> Iterator:
    """Yield the loader's batches; its errors are those of `worker_errors`."""
    with worker_errors():
        yield from loader


@contextmanager
def worker_errors() -> Iterator[None]:
    """Reduce torch's errors about a loader's worker to one line.

    If a worker dies, torch raises that wherever the main process is at that time.
    """
    try:
        yield
    except (UsageError, RuntimeError) as error:
        text = str(error)
        if isinstance(error, UsageError):
            if "\n" not in text:
                raise
            # torch puts the worker's traceback before the message.
            raise UsageError(text.strip().rsplit("UsageError: ", 1)[-1]) from None
        text = f"{error.__cause__}\n{text}"  # the cause names the signal
        if re.search("shared memory|Bus error|shm", text):
            raise UsageError(
                "data workers: /dev/shm is full; start the container with `--shm-size 8g`, or give "
                "`--opts DATA.NUM_WORKERS 0`, which needs none"
            ) from error
        if death := re.search(r"DataLoader worker \(pid(?:\(s\))? [0-9, ]+\) (.*)", text):
            raise UsageError(
                f"a data worker {death[1].strip(' .')}; out of memory? `--opts DATA.NUM_WORKERS 0` "
                "needs less"
            ) from error
        raise

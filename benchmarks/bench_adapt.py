"""A classifier adapted to another style with few labels, against training from nothing:
`nice -n 15 python -m benchmarks.bench_adapt [--crops 200] [--seeds 2]`.

The demo's hand classifier has seen the drawn world only. Here that world is drawn in another style:
lines two and a half times as wide, and the colour channels exchanged. A few hundred hands of that
style, half of them abnormal, are cut out by their true boxes. main_finetune.py trains on them, with
`--pretrained` or without. AUROC is measured on hands of other drawings, in that style and in the
old one, with best.pth and with the last epoch.
"""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from benchmarks.machine import describe
from human_anomaly import main_finetune
from human_anomaly.configs.defaults import get_config
from human_anomaly.configs.places import home
from human_anomaly.data.crops import cut, square_box
from human_anomaly.data.dataset import read_manifest
from human_anomaly.demo.paths import CONFIG, WEIGHTS
from human_anomaly.demo.truth import true_parts
from human_anomaly.demo.world.canvas import Canvas
from human_anomaly.demo.world.video import draw_still
from human_anomaly.models.classifier import load_classifier
from human_anomaly.models.training import recipe
from human_anomaly.models.training.metrics import predict

WIDER = 2.5  # lines
SEEDS = {"train": 700_000, "val": 720_000, "test": 740_000}  # no training of the demo draws these
# Small steps, because few crops fill few large ones.
FEW = ["DATA.BATCH_SIZE", "20", "TRAIN.WARMUP_EPOCHS", "2", "PRINT_FREQ", "1000"]


@contextmanager
def other_lines() -> Iterator[None]:
    """Draw with wider lines inside."""
    union, line = Canvas.union, Canvas.line

    def wide_union(self, *args, width=1, **options):
        union(self, *args, width=width * WIDER, **options)

    def wide_line(self, points, color, width=1.0):
        line(self, points, color, width * WIDER)

    Canvas.union, Canvas.line = wide_union, wide_line
    try:
        yield
    finally:
        Canvas.union, Canvas.line = union, line


def other_colours(frame: np.ndarray) -> np.ndarray:
    """Return a frame (H, W, 3) uint8 with its colour channels exchanged."""
    return np.ascontiguousarray(frame[..., [1, 2, 0]])


def hands(seed: int, styled: bool) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield (crop (h, w, 3) uint8 BGR, is it abnormal) of a still's hands."""
    if styled:
        with other_lines():
            frame, people = draw_still(seed)
        frame = other_colours(frame)
    else:
        frame, people = draw_still(seed)
    height, width = frame.shape[:2]
    for box, abnormal, _ in true_parts(people, "hand"):
        if (square := square_box(box, width, height)) is not None:
            yield cut(frame, square), abnormal


def draw_crops(folder: Path, purpose: str, count: int, *, styled: bool) -> Path:
    """Write `count` crops, half of them abnormal, and their list; return the list."""
    path = folder / f"hand_{purpose}{'' if styled else '_as_before'}.jsonl"
    if path.exists() and len(path.read_text().splitlines()) == count:
        return path
    (folder / "all_images").mkdir(parents=True, exist_ok=True)
    left, rows, seed = {True: count // 2, False: count - count // 2}, [], SEEDS[purpose]
    while any(left.values()):
        for crop, abnormal in hands(seed, styled):
            if left[abnormal]:
                left[abnormal] -= 1
                rows.append([f"{path.stem}_{len(rows):05d}.png", int(abnormal), None])
                cv2.imwrite(str(folder / "all_images" / rows[-1][0]), crop)
        seed += 1
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def auroc(checkpoint: Path, path: Path) -> float:
    """Return the AUROC of a classifier on the crops listed at `path`."""
    config, crops = get_config(CONFIG, ["DATA.NUM_WORKERS", "0"]), read_manifest(path)
    model, device = load_classifier(checkpoint, config, "cpu"), torch.device("cpu")
    logits = predict(model, recipe.load_val(config, crops), len(crops), device=device)
    return float(roc_auc_score(crops.targets, logits))


def train(lists: dict[str, Path], output: Path, *flags: str, opts: list[str]) -> Path:
    """Train into the folder `output` unless it holds a finished run; return the folder."""
    command = ["--cfg", str(CONFIG), "--output", str(output), "--skip-check", *flags]
    command += ["--train-path", str(lists["train"]), "--val-path", str(lists["val"])]
    main_finetune.main([*command, "--opts", "DATA.NUM_WORKERS", "0", *FEW, *opts])
    return output


def tell(name: str, found: list[list[float]]) -> None:
    """Print a row: the mean of each column, and the least and greatest of several runs."""
    cells = []
    for values in zip(*found, strict=True):
        spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
        cells.append(f"{np.mean(values):.3f}{spread}")
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--work", type=Path, default=home() / "build/adapt", help="folder for crops and runs")
    add("--crops", type=int, default=200, help="labelled crops to train on (200)")
    add("--val", type=int, default=100, help="more labelled crops, to choose the epoch by (100)")
    add("--test", type=int, default=600, help="crops to measure on (600)")
    add("--epochs", type=int, default=10, help="epochs (10)")
    add("--rate", default="2e-3", help="TRAIN.BASE_LR when adapting (2e-3)")
    add("--seeds", type=int, default=2, help="runs of each kind (2)")
    args = parser.parse_args()
    start, counts = time.time(), {"train": args.crops, "val": args.val, "test": args.test}
    lists = {
        name: draw_crops(args.work, name, count, styled=True) for name, count in counts.items()
    }
    before = draw_crops(args.work, "test", args.test, styled=False)
    tests, known = (lists["test"], before), WEIGHTS / "hand.pth"
    print(f"{describe(torch.device('cpu'))}; {args.crops} crops, {args.val} to choose the epoch by")
    print("| hand classifier | AUROC, other style | AUROC, style it was made for |\n|---|---|---|")
    tell("the demo's, as it is", [[auroc(known, path) for path in tests]])
    # From nothing with the demo's own rate, and for three times as many epochs as well.
    adapt = ["--pretrained", str(known)]
    kinds = {
        "adapted": (adapt, ["TRAIN.BASE_LR", args.rate, "TRAIN.EPOCHS", str(args.epochs)]),
        "from nothing": ([], ["TRAIN.EPOCHS", str(args.epochs)]),
        "from nothing, 3 x the epochs": ([], ["TRAIN.EPOCHS", str(3 * args.epochs)]),
    }
    for kind, (flags, opts) in kinds.items():
        runs = []
        for seed in range(args.seeds):
            name = f"{kind}_{args.crops}_{args.epochs}_{args.rate}_{seed}".replace(" ", "_")
            words = [*flags, "--seed", str(seed)]
            runs.append(train(lists, args.work / name, *words, opts=opts))
        last = f"ckpt{get_config(CONFIG, opts).TRAIN.EPOCHS - 1}.pth"
        for which, file in (("best epoch", "best.pth"), ("last epoch", last)):
            tell(f"{kind}, {which}", [[auroc(run / file, p) for p in tests] for run in runs])
    print(f"{time.time() - start:.0f} s in all")


if __name__ == "__main__":
    main()

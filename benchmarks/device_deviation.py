"""How far fast mode on a GPU is from exact mode; its operations are imitated on the CPU.

    python -m benchmarks.device_deviation                      # the demo's videos and weights
    python -m benchmarks.device_deviation --video clip.mp4 --size s

Pictures are cut and resized as on a GPU; only TF32 in the detector's head is left out.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from benchmarks.bench_scoring import (
    ROOT,
    config_of,
    detector_files,
    load_classifiers,
    write_weights,
)
from human_anomaly.configs.parts import PARTS
from human_anomaly.data.video import Source
from human_anomaly.demo.paths import VIDEOS
from human_anomaly.demo.truth import overlaps
from human_anomaly.models.detector import PartDetector
from human_anomaly.models.scoring.scorer import VideoScorer

WAYS = {
    "exact": {},
    "bfloat16 alone": {"dtype": torch.bfloat16},
    "resized as on a GPU": {"on_device": True},
    "both": {"dtype": torch.bfloat16, "on_device": True},
}


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--video", type=Path, nargs="+", default=sorted(VIDEOS.glob("*.mp4")))
    p.add_argument("--size", default="demo", choices=("demo", "s", "xl"), help="weights (demo)")
    p.add_argument("--stride", type=int, default=1, help="take every n-th frame (1)")
    args = p.parse_args()
    args.device, args.weights = torch.device("cpu"), ROOT / "build" / "bench"
    return args


def parts_of(row: dict, part: str) -> list[dict]:
    return [found for one in row["people"] for found in one["parts"] if found["part"] == part]


def compare(exact: list[dict], other: list[dict]) -> tuple[int, int, int, float, float]:
    """Return how many boxes there are, how many lost or new ones and how many other squares.

    Then follow the largest move of a box (px) and the largest change of p.
    """
    boxes = lost = squares = 0
    move = change = 0.0
    for before, after in zip(exact, other, strict=True):
        for part in PARTS:
            old, new = parts_of(before, part), parts_of(after, part)
            boxes += len(old)
            lost += abs(len(new) - len(old))
            if not old or not new:
                continue
            found = overlaps([p["bbox"] for p in old], [p["bbox"] for p in new]).argmax(1)
            for box, i in zip(old, found, strict=True):
                squares += box["square"] != new[i]["square"]
                move = max(move, np.abs(np.subtract(box["bbox"], new[i]["bbox"])).max())
                change = max(change, abs(box["p_abnormal"] - new[i]["p_abnormal"]))
    return boxes, lost, squares, move, change


def main() -> None:
    args = parse_args()
    write_weights(args.weights, args.size)
    rows = {}
    for name, options in WAYS.items():
        detector = PartDetector(*detector_files(args), **options)
        models = load_classifiers(args)  # again, because the scorer converts them in place
        scorer = VideoScorer(detector, models, config_of(args), stride=args.stride)
        rows[name] = [
            row for path in args.video for row in scorer.score(Source(path, path.stem)).frames
        ]
    print("| way | boxes | lost or new | other squares | boxes move at most | p at most |")
    print("|---|---|---|---|---|---|")
    for name in list(WAYS)[1:]:
        boxes, lost, squares, move, change = compare(rows["exact"], rows[name])
        print(f"| {name} | {boxes} | {lost} | {squares} | {move:.3f} px | {change:.4f} |")


if __name__ == "__main__":
    main()

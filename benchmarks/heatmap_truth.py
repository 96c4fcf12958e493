"""Does the heatmap's peak lie on the anomaly? Measured on the drawn world, whose truth is known.

    python -m demo.world --output build/heatmap/random --videos 60 --seed 910000
    python -m benchmarks.heatmap_truth build/heatmap/random

Abnormal parts are cut out by their true boxes, as in scoring. Of the crops that the demo's
classifiers flag, those are counted whose heatmap's peak lies in an anomaly's box. Boxes of half the
crop or more are left out: they are hit by chance. Chance is the mean share of the crop that the
boxes cover.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from human_anomaly.configs.defaults import PARTS, get_config, thresholds
from human_anomaly.data.crops import cut, square_box
from human_anomaly.data.video import FrameReader, Source
from human_anomaly.demo.paths import CONFIG, WEIGHTS
from human_anomaly.utils import UsageError, read_jsonl, run_main

MOST_AREA = 0.5


@dataclass
class Case:
    """A crop (BGR) of an abnormal part, and its anomaly's boxes in 0..1 of the crop."""

    video: str
    part: str
    crop: np.ndarray
    boxes: list[tuple[float, float, float, float]]

    def area(self, cells: int = 100) -> float:
        """Return the share of the crop that the boxes cover."""
        centres = (np.arange(cells) + 0.5) / cells
        covered = np.zeros((cells, cells), bool)
        for x1, y1, x2, y2 in self.boxes:
            rows, columns = (y1 <= centres) & (centres <= y2), (x1 <= centres) & (centres <= x2)
            covered |= rows[:, None] & columns[None]
        return float(covered.mean())

    def hit(self, heat: np.ndarray) -> bool:
        """Return whether the peak of `heat` (H, W) lies in a box."""
        y, x = np.unravel_index(int(heat.argmax()), heat.shape)
        x, y = (x + 0.5) / heat.shape[1], (y + 0.5) / heat.shape[0]
        return any(x1 <= x <= x2 and y1 <= y <= y2 for x1, y1, x2, y2 in self.boxes)


def inside(box: Sequence[float], square: Sequence[int]) -> tuple[float, ...] | None:
    """Return `box` in 0..1 of `square`, cut to it; None where they do not meet."""
    x1, y1, x2, y2 = square
    left, right = max(box[0], x1), min(box[2], x2)
    top, bottom = max(box[1], y1), min(box[3], y2)
    if left >= right or top >= bottom:
        return None
    width, height = x2 - x1, y2 - y1
    return (left - x1) / width, (top - y1) / height, (right - x1) / width, (bottom - y1) / height


def person_cases(video: str, frame: np.ndarray, person: Mapping) -> Iterator[Case]:
    """Yield the crops of a person's abnormal parts that show an anomaly's box."""
    height, width = frame.shape[:2]
    for part in person["abnormal_parts"]:
        for box in [person["human"]] if part == "human" else person[part]:
            if part == "hand" and box not in person["anomaly_boxes"]:
                continue  # the other hand
            square = square_box(box, width, height)
            if square is None:
                continue
            boxes = [inside(b, square) for b in person["anomaly_boxes"]]
            if boxes := [b for b in boxes if b is not None]:
                yield Case(video, part, cut(frame, square).copy(), boxes)


def read_cases(folder: Path, stride: int) -> list[Case]:
    """Return the cases of every `stride`-th frame of the drawn videos in `folder`."""
    truth = defaultdict(dict)
    for row in read_jsonl(folder / "truth.jsonl"):
        truth[row["video"]][row["frame"]] = row["people"]
    cases = []
    for video, frames in truth.items():
        if any(person["abnormal_parts"] for people in frames.values() for person in people):
            for frame in FrameReader(Source(folder / video, video), stride=stride):
                for person in frames.get(frame.index, []):
                    cases += person_cases(video, frame.image, person)
    return cases


def flagged(cases: Sequence[Case], part: str, model, explainer, limit: float) -> list[Case]:
    """Return the cases of `part` whose p is above `limit`."""
    import torch

    mine = [case for case in cases if case.part == part]
    kept = []
    for start in range(0, len(mine), 64):
        chunk = mine[start : start + 64]
        with torch.inference_mode():
            p = model(explainer.prepare([case.crop for case in chunk])).sigmoid()
        kept += [case for case, value in zip(chunk, p.tolist(), strict=True) if value > limit]
    return kept


def measure(folders: Sequence[Path], weights: Path, cfg: Path, stride: int) -> list[dict]:
    """Return a row per part, and one of all: cases, flagged, judged, hits and chance."""
    from human_anomaly.models.classifier import input_of, load_classifier
    from human_anomaly.models.report.heatmap import Explainer

    config = get_config(cfg)
    models = {part: load_classifier(weights / f"{part}.pth", config, "cpu") for part in PARTS}
    explainer = Explainer(models, input_of(config))
    limits = thresholds(config)
    cases = [case for folder in folders for case in read_cases(folder, stride)]
    rows = []
    for part in PARTS:
        found = flagged(cases, part, models[part], explainer, limits[part])
        judged = [case for case in found if case.area() < MOST_AREA]
        heats = explainer(part, [case.crop for case in judged])
        rows.append(
            {
                "part": part,
                "cases": sum(case.part == part for case in cases),
                "flagged": len(found),
                "judged": len(judged),
                "hits": sum(c.hit(h) for c, h in zip(judged, heats, strict=True)),
                "chance": sum(case.area() for case in judged),
                "videos": len({case.video for case in judged}),
            }
        )
    keys = [key for key in rows[0] if key != "part"]
    return [*rows, {"part": "all", **{key: sum(row[key] for row in rows) for key in keys}}]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+", help="folders that `demo.world` wrote")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of classifiers")
    parser.add_argument("--cfg", type=Path, default=CONFIG, help="their settings")
    parser.add_argument("--stride", type=int, default=6, help="take every n-th frame (6)")
    args = parser.parse_args()
    for folder in args.data:
        if not (folder / "truth.jsonl").is_file():
            raise UsageError(f"{folder}: no truth.jsonl; draw with python -m demo.world")
    print("| part | abnormal crops | flagged | small box | videos | peak in box | chance |")
    print("|---|---|---|---|---|---|---|")
    for row in measure(args.data, args.weights, args.cfg, args.stride):
        judged = row["judged"]
        shares = [f"{100 * row[k] / judged:.1f}%" if judged else "-" for k in ("hits", "chance")]
        counts = [str(row[k]) for k in ("part", "cases", "flagged", "judged", "videos")]
        print(f"| {' | '.join([*counts, *shares])} |", flush=True)
    return 0


if __name__ == "__main__":
    run_main(main)

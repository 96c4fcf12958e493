"""Measure the demo's weights on drawn videos of unseen seeds: `python -m demo.evaluate`.

Draws the videos, scores them with the shipped weights, and prints what the detector finds, how
the classifiers order true crops, and whether the video scores tell normal from abnormal.
"""

import argparse
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from configs.defaults import PARTS
from demo.paths import ROOT, WEIGHTS, load_scorer, shown_part
from utils import UsageError, read_jsonl, run_main, write_json

FIRST_SEED = 900_000  # training draws from 0 on
LIMITS = {  # what the demo must show: (name, at least or at most)
    "human_recall": (0.95, None),
    "face_recall": (0.85, None),
    "hand_recall": (0.70, None),
    "false_people_per_frame": (None, 0.2),
    "human_auroc": (0.95, None),
    "face_auroc": (0.95, None),
    "hand_auroc": (0.90, None),
    "video_auroc": (0.90, None),
    "right_part": (0.80, None),
}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m demo.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--videos", type=int, default=200, help="how many (default 200)")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="seed of the first video")
    parser.add_argument("--stride", type=int, default=1, help="score every n-th frame")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build/demo/evaluation", help="folder for the videos"
    )
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of the four files")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    return parser.parse_args(argv)


def draw(args: argparse.Namespace) -> dict[str, list[list[dict]]]:
    """Draw what is missing; return {video: people per frame}."""
    from demo.world.__main__ import main

    words = ["--output", args.work, "--videos", args.videos, "--seed", args.seed]
    if main([*map(str, words), "--workers", str(args.workers)]):
        raise UsageError("demo.world could not draw the videos")
    truth = defaultdict(list)
    for row in read_jsonl(args.work / "truth.jsonl"):
        truth[row["video"]].append(row["people"])
    return truth


class Detections:
    """Counts true parts, those found at IoU 0.5, and people where there are none."""

    def __init__(self):
        self.true, self.found = dict.fromkeys(PARTS, 0), dict.fromkeys(PARTS, 0)
        self.frames = self.false_people = 0

    def add(self, people: Sequence[Mapping], truth: Sequence[Mapping]) -> None:
        """Count one frame: `people` as in frames.jsonl, `truth` as in truth.jsonl.

        Faces and hands count where their person was found, in that person's crop or another's.
        """
        from demo.truth import match, true_parts

        self.frames += 1
        boxes = [part for person in people for part in person["parts"]]
        seen = None
        for name in PARTS:
            found = [box for box in boxes if box["part"] == name]
            known = [t for t in true_parts(truth, name) if seen is None or t[2] in seen]
            matches = match(
                [box["bbox"] for box in found],
                [box["detector_score"] for box in found],
                [box for box, *_ in known],
            )
            hits = {m for m in matches if m is not None}
            self.true[name] += len(known)
            self.found[name] += len(hits)
            if name == "human":
                seen = {known[m][2] for m in hits}
                self.false_people += len(matches) - len(hits)

    def figures(self) -> dict[str, float]:
        recall = {f"{p}_recall": self.found[p] / max(1, self.true[p]) for p in PARTS}
        return recall | {"false_people_per_frame": self.false_people / max(1, self.frames)}


class TrueCrops:
    """Judges the squares around the truth's own boxes, on a few frames of each video."""

    EVERY = 12

    def __init__(self, scorer):
        self.scorer = scorer
        self.labels, self.judged = defaultdict(list), defaultdict(list)

    def add(self, frame, truth: Sequence[Mapping]) -> None:
        from data.crops import square_box
        from demo.truth import true_parts

        if frame.index % self.EVERY:
            return
        height, width = frame.image.shape[:2]
        for part in PARTS:
            crops = []
            for box, abnormal, _ in true_parts(truth, part):
                if (square := square_box(box, width, height)) is not None:
                    x1, y1, x2, y2 = square
                    crops.append(frame.image[y1:y2, x1:x2, ::-1])
                    self.labels[part].append(abnormal)
            if crops:
                self.judged[part] += self._judge(part, crops)

    def _judge(self, part: str, crops: Sequence) -> list[float]:
        """Return p(abnormal) of RGB crops."""
        import torch
        from PIL import Image

        images = [Image.fromarray(crop.copy()) for crop in crops]
        with torch.inference_mode():
            batch = torch.stack([self.scorer.transform(image) for image in images])
            return self.scorer.classifiers[part](batch).sigmoid().tolist()

    def figures(self) -> dict[str, float]:
        return {f"{p}_auroc": auroc(self.labels[p], self.judged[p]) for p in PARTS}


def auroc(labels: Sequence[bool], scores: Sequence[float]) -> float:
    """Return the share of (abnormal, normal) pairs in the right order, ties half."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores))


def right_part(rows: Mapping[str, Mapping], parts: Mapping[str, str | None]) -> float:
    """Return the share of abnormal videos whose largest rise in flags is in their own part.

    The rise of a part is over its mean share of flagged people in the normal videos.
    """
    normal = [rows[v]["abnormal_by_part"] for v, part in parts.items() if part is None]
    usual = {p: sum(row[p] for row in normal) / len(normal) for p in PARTS}
    hits = [
        max(PARTS, key=lambda p: rows[video]["abnormal_by_part"][p] - usual[p]) == part
        for video, part in parts.items()
        if part is not None
    ]
    return sum(hits) / len(hits)


def score(args: argparse.Namespace, truth) -> tuple[Detections, TrueCrops, dict[str, dict]]:
    from tqdm import tqdm

    scorer = load_scorer(args.weights, stride=args.stride)
    detections, crops, rows = Detections(), TrueCrops(scorer), {}
    for video in tqdm(sorted(truth), unit="video"):

        def look(frame, row, frames=truth[video]):
            detections.add(row["people"], frames[frame.index])
            crops.add(frame, frames[frame.index])

        rows[video] = scorer.score(args.work / video, on_frame=look, keep_frames=False).summary
    return detections, crops, rows


def interval(labels, scores, draws: int = 1000) -> tuple[float, float]:
    """Return the 95% bootstrap interval of the AUROC over videos."""
    rng = random.Random(0)
    values = []
    pairs = list(zip(labels, scores, strict=True))
    while len(values) < draws:
        drawn = rng.choices(pairs, k=len(pairs))
        if len({label for label, _ in drawn}) == 2:
            values.append(auroc(*zip(*drawn, strict=True)))
    values.sort()
    return values[int(0.025 * draws)], values[int(0.975 * draws)]


def main() -> int:
    args = parse_args()
    truth = draw(args)
    names = [f"figures_{seed:06d}.mp4" for seed in range(args.seed, args.seed + args.videos)]
    truth = {name: truth[name] for name in names}
    detections, crops, rows = score(args, truth)
    parts = {video: shown_part(frames) for video, frames in truth.items()}
    labels = [parts[video] is not None for video in names]
    soft = [rows[video]["score_soft"] for video in names]
    doubts = [1.0 if s is None else 1 - s for s in soft]
    figures = detections.figures() | crops.figures()
    figures |= {"video_auroc": auroc(labels, doubts), "right_part": right_part(rows, parts)}
    print_figures(figures, interval(labels, doubts))
    print(
        f"{len(names)} videos ({sum(labels)} abnormal), {detections.frames} frames; true parts: "
        + ", ".join(f"{detections.true[p]} {p}" for p in PARTS)
        + "; judged true crops: "
        + ", ".join(f"{len(crops.labels[p])} {p}" for p in PARTS)
    )
    if args.output:
        write_json(args.output, {"figures": figures, "parts": parts, "videos": rows})
    return 0


def print_figures(figures: Mapping[str, float], ci: tuple[float, float]) -> None:
    print("| figure | measured | must be | |\n|---|---|---|---|")
    for name, (least, most) in LIMITS.items():
        value = figures[name]
        good = value >= least if most is None else value <= most
        limit = f">= {least:.2f}" if most is None else f"<= {most:.2f}"
        more = f" [{ci[0]:.3f}, {ci[1]:.3f}]" if name == "video_auroc" else ""
        print(f"| {name} | {value:.3f}{more} | {limit} | {'met' if good else 'NOT MET'} |")


if __name__ == "__main__":
    run_main(main, (OSError,))

"""Measure the demo's weights on drawn videos that no training saw: `python -m demo.evaluate`.

Draws the videos, scores them, and prints a table: how much the detector finds, how well the
classifiers tell abnormal from normal crops, and how well the scores tell abnormal from normal
videos.
"""

import argparse
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from configs.defaults import PARTS
from demo.paths import ROOT, WEIGHTS, load_scorer
from demo.truth import abnormal_part, match, true_parts
from utils import UsageError, run_main, write_json

FIRST_SEED = 900_000  # training draws from 0 on
AT_LEAST = {
    "human_recall": 0.95,
    "face_recall": 0.85,
    "hand_recall": 0.70,
    "human_auroc": 0.95,
    "face_auroc": 0.95,
    "hand_auroc": 0.90,
    "video_auroc": 0.90,
    "right_part": 0.80,
}
AT_MOST = {"false_people_per_frame": 0.2}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m demo.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--videos", type=int, default=200, help="how many to draw (default 200)")
    parser.add_argument(
        "--seed",
        type=int,
        default=FIRST_SEED,
        help=f"seed of the first video (default {FIRST_SEED})",
    )
    parser.add_argument("--stride", type=int, default=1, help="score every n-th frame (default 1)")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw (default 2)")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build/demo/evaluation", help="folder for the videos"
    )
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of the four files")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    return parser.parse_args(argv)


class Detections:
    """Counts true parts, how many of them are found (IoU of 0.5 or more), and false people."""

    def __init__(self):
        self.true, self.found = dict.fromkeys(PARTS, 0), dict.fromkeys(PARTS, 0)
        self.frames = self.false_people = 0

    def add(self, people: Sequence[Mapping], truth: Sequence[Mapping]) -> None:
        """Count one frame: `people` as in frames.jsonl, `truth` as in truth.jsonl.

        Faces and hands count only where their person was found. They may be found in the crop of
        another person.
        """
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
        """Return each part's recall, and how many people were found where there are none."""
        recall = {f"{p}_recall": self.found[p] / max(1, self.true[p]) for p in PARTS}
        return recall | {"false_people_per_frame": self.false_people / max(1, self.frames)}


class TrueCrops:
    """Has the classifiers judge squares around the true boxes, on every 12th frame of a video."""

    EVERY = 12

    def __init__(self, scorer):
        self.scorer = scorer
        self.labels, self.judged = defaultdict(list), defaultdict(list)

    def add(self, frame, truth: Sequence[Mapping]) -> None:
        """Judge one `frame` (data.video.Frame), `truth` as in truth.jsonl."""
        from data.crops import square_box

        if frame.index % self.EVERY:
            return
        height, width = frame.image.shape[:2]
        for part in PARTS:
            crops = []
            for box, abnormal, _ in true_parts(truth, part):
                if (square := square_box(box, width, height)) is not None:
                    x1, y1, x2, y2 = square
                    crops.append(frame.image[y1:y2, x1:x2])
                    self.labels[part].append(abnormal)
            if crops:
                self.judged[part] += self.scorer.judge(part, crops)

    def figures(self) -> dict[str, float]:
        """Return each part's AUROC."""
        return {f"{p}_auroc": auroc(self.labels[p], self.judged[p]) for p in PARTS}


def auroc(labels: Sequence[bool], scores: Sequence[float]) -> float:
    """Return the area under the ROC curve; `labels` are true for abnormal ones."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores))


def right_part(rows: Mapping[str, Mapping], parts: Mapping[str, str | None]) -> float:
    """Return the share of abnormal videos in which flags rise most in the part that is abnormal.

    The rise of a part is its share of flagged person views less the mean of that share over the
    normal videos. `rows` are summaries of videos, `parts` their abnormal parts, None if normal.
    """
    normal = [rows[v]["abnormal_by_part"] for v, part in parts.items() if part is None]
    usual = {p: sum(row[p] for row in normal) / len(normal) for p in PARTS}
    hits = [
        max(PARTS, key=lambda p: rows[video]["abnormal_by_part"][p] - usual[p]) == part
        for video, part in parts.items()
        if part is not None
    ]
    return sum(hits) / len(hits)


def score(
    args: argparse.Namespace, truth: Mapping[str, list]
) -> tuple[Detections, TrueCrops, dict[str, dict]]:
    """Score the videos of `truth`; return what was counted and each video's summary."""
    from tqdm import tqdm

    scorer = load_scorer(args.weights, stride=args.stride)
    detections, crops, rows = Detections(), TrueCrops(scorer), {}
    for video in tqdm(sorted(truth), unit="video"):

        def look(frame, row, frames=truth[video]):
            detections.add(row["people"], frames[frame.index])
            crops.add(frame, frames[frame.index])

        rows[video] = scorer.score(args.work / video, on_frame=look, keep_frames=False).summary
    return detections, crops, rows


def interval(
    labels: Sequence[bool], scores: Sequence[float], draws: int = 1000
) -> tuple[float, float]:
    """Return the 95% bootstrap interval of the AUROC; videos are resampled."""
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
    from demo.world.files import draw_videos

    args = parse_args()
    seeds = range(args.seed, args.seed + args.videos)
    truth = draw_videos(args.work, seeds, workers=args.workers)
    parts = {video: abnormal_part(frames) for video, frames in truth.items()}
    labels = [part is not None for part in parts.values()]
    if len(set(labels)) < 2:
        raise UsageError(f"--videos {args.videos}: expected normal and abnormal ones; draw more")
    detections, crops, rows = score(args, truth)
    soft = [rows[video]["score_soft"] for video in parts]
    doubts = [1.0 if s is None else 1 - s for s in soft]
    figures = detections.figures() | crops.figures()
    figures |= {"video_auroc": auroc(labels, doubts), "right_part": right_part(rows, parts)}
    print_figures(figures, interval(labels, doubts))
    true = ", ".join(f"{detections.true[p]} {p}" for p in PARTS)
    judged = ", ".join(f"{len(crops.labels[p])} {p}" for p in PARTS)
    print(
        f"{len(parts)} videos ({sum(labels)} abnormal), {detections.frames} frames; "
        f"true parts: {true}; judged true crops: {judged}"
    )
    if args.output:
        write_json(args.output, {"figures": figures, "parts": parts, "videos": rows})
    return 0


def print_figures(figures: Mapping[str, float], ci: tuple[float, float]) -> None:
    """Print a Markdown table; `ci` is the interval of video_auroc."""
    print("| figure | measured | must be | |\n|---|---|---|---|")
    for name, value in figures.items():
        if name in AT_MOST:
            good, bound = value <= AT_MOST[name], f"<= {AT_MOST[name]:.2f}"
        else:
            good, bound = value >= AT_LEAST[name], f">= {AT_LEAST[name]:.2f}"
        more = f" [{ci[0]:.3f}, {ci[1]:.3f}]" if name == "video_auroc" else ""
        print(f"| {name} | {value:.3f}{more} | {bound} | {'met' if good else 'NOT MET'} |")


if __name__ == "__main__":
    run_main(main, (OSError,))

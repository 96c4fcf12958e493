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

from tqdm import tqdm

from human_anomaly.configs.parts import BASE_PARTS
from human_anomaly.configs.places import home
from human_anomaly.demo.paths import WEIGHTS, load_scorer
from human_anomaly.demo.truth import abnormal_part, match, true_parts
from human_anomaly.demo.views import Views, confidence
from human_anomaly.demo.world.files import draw_videos
from human_anomaly.models.scoring.results import SCORES, mean_known
from human_anomaly.utils import UsageError, command_parser, run_main

FIRST_SEED = 900_000  # training draws from 0 on
AT_LEAST = {
    "human_recall": 0.95,
    "face_recall": 0.85,
    "hand_recall": 0.70,
    "human_auroc": 0.95,
    "face_auroc": 0.95,
    "hand_auroc": 0.90,
    "abnormal_views_flagged": 0.85,
    "normal_videos": 0.93,
    "video_auroc": 0.96,
    "right_part": 0.80,
}
AT_MOST = {"false_people_per_frame": 0.1, "normal_views_flagged": 0.05}


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__, "demo.evaluate")
    add = parser.add_argument
    add("--videos", type=int, default=200, help="how many to draw (200)")
    add("--seed", type=int, default=FIRST_SEED, help=f"seed of the first video ({FIRST_SEED})")
    add("--stride", type=int, default=1, help="score every n-th frame (1)")
    add("--workers", type=int, default=2, help="processes that draw (2)")
    work = home() / "build/demo/evaluation"
    add("--work", type=Path, default=work, help="folder for the videos")
    add("--weights", type=Path, default=WEIGHTS, help="folder of the four files")
    return parser.parse_args()


class Detections:
    """Counts true parts, how many of them are found (IoU of 0.5 or more), and false people."""

    def __init__(self):
        self.true, self.found = dict.fromkeys(BASE_PARTS, 0), dict.fromkeys(BASE_PARTS, 0)
        self.frames = self.false_people = 0

    def add(self, people: Sequence[Mapping], truth: Sequence[Mapping]) -> None:
        """Count one frame: `people` as in frames.jsonl, `truth` as in truth.jsonl.

        Faces and hands count only where their person was found, but a box from another person's
        crop may match them.
        """
        self.frames += 1
        boxes = [part for person in people for part in person["parts"]]
        seen = None
        for name in BASE_PARTS:
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
        """Return each part's recall, and the false people per frame."""
        recall = {f"{p}_recall": self.found[p] / max(1, self.true[p]) for p in BASE_PARTS}
        return recall | {"false_people_per_frame": self.false_people / max(1, self.frames)}


class TrueCrops:
    """Judges the squares around the true boxes, on every 12th frame of a video."""

    EVERY = 12

    def __init__(self, scorer):
        self.scorer = scorer
        self.labels, self.judged = defaultdict(list), defaultdict(list)

    def add(self, frame, truth: Sequence[Mapping]) -> None:
        """Judge one `frame` (data.video.Frame), `truth` as in truth.jsonl."""
        from human_anomaly.data.crops import cut, square_box

        if frame.index % self.EVERY:
            return
        height, width = frame.image.shape[:2]
        for part in BASE_PARTS:
            crops = []
            for box, abnormal, _ in true_parts(truth, part):
                if (square := square_box(box, width, height)) is not None:
                    crops.append(cut(frame.image, square))
                    self.labels[part].append(abnormal)
            self.judged[part] += self.scorer.judge(part, crops)

    def figures(self) -> dict[str, float]:
        """Return each part's AUROC."""
        return {f"{p}_auroc": auroc(self.labels[p], self.judged[p]) for p in BASE_PARTS}


def auroc(labels: Sequence[bool], scores: Sequence[float]) -> float:
    """Return the area under the ROC curve; `labels` are True where abnormal."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores))


def right_part(rows: Mapping[str, Mapping], parts: Mapping[str, str | None]) -> float:
    """Return the share of abnormal videos in which flags rise most in the part that is abnormal.

    The rise of a part is its share of flagged views minus the mean of that share over the
    normal videos. `rows` are summaries of videos, `parts` their abnormal parts, None if normal.
    """
    normal = [rows[v]["abnormal_by_part"] for v, part in parts.items() if part is None]
    usual = {p: sum(row[p] for row in normal) / len(normal) for p in BASE_PARTS}
    hits = [
        max(BASE_PARTS, key=lambda p: rows[video]["abnormal_by_part"][p] - usual[p]) == part
        for video, part in parts.items()
        if part is not None
    ]
    return sum(hits) / len(hits)


def score(args: argparse.Namespace, truth: Mapping[str, list]) -> tuple[list, dict[str, dict]]:
    """Score the videos of `truth`; return the counters of their frames, and their summaries."""
    scorer = load_scorer(args.weights, stride=args.stride)
    counts, crops, rows = [Detections(), Views()], TrueCrops(scorer), {}
    for video in tqdm(sorted(truth), unit="video"):
        people = []

        def look(frame, row, frames=truth[video], people=people):
            for count in counts:
                count.add(row["people"], frames[frame.index])
            crops.add(frame, frames[frame.index])
            people += row["people"]

        rows[video] = scorer.score(args.work / video, on_frame=look, keep_frames=False).summary
        rows[video]["detector confidence"] = confidence(people)
    return [*counts, crops], rows


def interval(labels: Sequence[bool], scores: Sequence[float]) -> tuple[float, float]:
    """Return the 95% bootstrap interval of the AUROC; videos are resampled."""
    rng, values, draws = random.Random(0), [], 1000
    pairs = list(zip(labels, scores, strict=True))
    while len(values) < draws:
        drawn = rng.choices(pairs, k=len(pairs))
        if len({label for label, _ in drawn}) == 2:
            values.append(auroc(*zip(*drawn, strict=True)))
    values.sort()
    return values[int(0.025 * draws)], values[int(0.975 * draws)]


def main() -> int:
    args = parse_args()
    seeds = range(args.seed, args.seed + args.videos)
    truth = draw_videos(args.work, seeds, workers=args.workers)
    parts = {video: abnormal_part(frames) for video, frames in truth.items()}
    labels = [part is not None for part in parts.values()]
    if len(set(labels)) < 2:
        raise UsageError(f"--videos {args.videos}: expected normal and abnormal ones; draw more")
    counts, rows = score(args, truth)
    figures = {name: value for count in counts for name, value in count.figures().items()}
    normal = [rows[video]["video_results"] for video, part in parts.items() if part is None]
    aurocs = score_aurocs([rows[video] for video in parts], labels)
    figures |= {
        "normal_videos": mean_known(normal),
        "video_auroc": aurocs["video_results"][0],
        "right_part": right_part(rows, parts),
    }
    print_figures(figures)
    print_aurocs(aurocs)
    detections, _, crops = counts
    true = ", ".join(f"{detections.true[p]} {p}" for p in BASE_PARTS)
    judged = ", ".join(f"{len(crops.labels[p])} {p}" for p in BASE_PARTS)
    print(
        f"\n{len(parts)} videos ({sum(labels)} abnormal), {detections.frames} frames; "
        f"true parts: {true}; judged true crops: {judged}"
    )
    return 0


def score_aurocs(rows: Sequence[Mapping], labels: Sequence[bool]) -> dict[str, tuple]:
    """Return, for each score in the videos' summaries, its AUROC and the ends of the interval.

    A video without people has no score and is ranked like one that scores 0.
    """
    found = {}
    for name in (*SCORES, "detector confidence"):
        doubts = [1.0 if row[name] is None else 1 - row[name] for row in rows]
        found[name] = (auroc(labels, doubts), *interval(labels, doubts))
    return found


def print_aurocs(aurocs: Mapping[str, tuple]) -> None:
    """Print a Markdown table of `score_aurocs`."""
    print("\n| score | AUROC, abnormal against normal videos [95%] |\n|---|---|")
    for name, (value, low, high) in aurocs.items():
        print(f"| {name} | {value:.3f} [{low:.3f}, {high:.3f}] |")


def print_figures(figures: Mapping[str, float]) -> None:
    """Print a Markdown table of what was measured and what it must be."""
    print("| figure | measured | must be | |\n|---|---|---|---|")
    for name, value in figures.items():
        if name in AT_MOST:
            verdict, bound = value <= AT_MOST[name], f"<= {AT_MOST[name]:.2f}"
        elif name in AT_LEAST:
            verdict, bound = value >= AT_LEAST[name], f">= {AT_LEAST[name]:.2f}"
        else:
            verdict, bound = None, ""
        shown = {True: "met", False: "NOT MET", None: ""}[verdict]
        print(f"| {name} | {value:.3f} | {bound} | {shown} |")


if __name__ == "__main__":
    run_main(main, (OSError,))

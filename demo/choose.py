"""Choose the demo's four videos: typical ones of their kind, by a rule: `python -m demo.choose`.

Draws 40 videos of each kind and scores every sixth frame. Of the eight whose score is nearest to
the median of their kind, the smallest files are taken.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from demo.paths import ROOT, VIDEOS, WEIGHTS, load_scorer
from utils import run_main, write_jsonl

FIRST_SEED = 960_000  # neither training, calibration nor evaluation draws from here on
NAMES = {
    "none": ("normal_1", "normal_2"),
    "fused_fingers": ("hand_fused",),
    "third_arm": ("body_third_arm",),
}
NEAREST = 8


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m demo.choose",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--videos", type=int, default=40, help="how many of each kind (40)")
    parser.add_argument("--stride", type=int, default=6, help="score every n-th frame (6)")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw (2)")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build/demo/choice", help="folder for the videos"
    )
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of the four files")
    return parser.parse_args(argv)


def typical(scores: dict[str, float], sizes: dict[str, int], count: int) -> list[str]:
    """Return `count` names: the smallest files of the NEAREST that are nearest to the median."""
    median = float(np.median(list(scores.values())))
    near = sorted(scores, key=lambda name: (abs(scores[name] - median), name))[:NEAREST]
    return sorted(near, key=lambda name: (sizes[name], name))[:count]


def main(argv: Sequence[str] | None = None) -> int:
    from tqdm import tqdm

    from demo.world.files import draw_videos

    args = parse_args(argv)
    seeds = range(FIRST_SEED, FIRST_SEED + args.videos)
    scorer, truth_rows = load_scorer(args.weights, stride=args.stride), []
    for anomaly, names in NAMES.items():
        truth = draw_videos(args.work / anomaly, seeds, anomaly=anomaly, workers=args.workers)
        files = {video: args.work / anomaly / video for video in truth}
        scores = {
            video: scorer.score(path, keep_frames=False).summary["video_results"] or 0.0
            for video, path in tqdm(files.items(), anomaly)
        }
        sizes = {video: path.stat().st_size for video, path in files.items()}
        print(f"{anomaly}: median of {len(scores)} videos {np.median(list(scores.values())):.3f}")
        for name, video in zip(names, typical(scores, sizes, len(names)), strict=True):
            print(f"  {name}: {video}, score {scores[video]:.3f}, {sizes[video]:,} bytes")
            shutil.copyfile(files[video], VIDEOS / f"{name}.mp4")
            truth_rows += [
                {"video": f"{name}.mp4", "frame": index, "people": people}
                for index, people in enumerate(truth[video])
            ]
    truth_rows.sort(key=lambda row: (row["video"], row["frame"]))
    write_jsonl(ROOT / "demo/truth.jsonl", truth_rows)
    return 0


if __name__ == "__main__":
    run_main(main, (OSError,))

"""Choose the demo's four videos by a rule: `python -m demo.choose`.

Draws videos of each kind, scores them with the demo's weights, and takes those whose video_results
are nearest to their kind's median; of equally near ones, those of the smaller seeds.
"""

import argparse
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from demo.paths import ROOT, VIDEOS, load_scorer
from demo.world.files import draw_videos, video_name
from utils import command_parser, run_main, write_jsonl

FIRST_SEED = 950_000  # neither training nor evaluation draws these
KINDS = {
    "none": ("normal_1", "normal_2"),
    "fused_fingers": ("hand_fused",),
    "third_arm": ("body_third_arm",),
}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__, "demo.choose")
    parser.add_argument("--videos", type=int, default=40, help="how many of each kind (40)")
    parser.add_argument("--work", type=Path, default=ROOT / "build/demo/choose", help="for videos")
    parser.add_argument("--output", type=Path, default=VIDEOS, help="folder of the chosen ones")
    return parser.parse_args(argv)


def typical(scores: Mapping[int, float], count: int) -> list[int]:
    """Return the `count` seeds whose scores are nearest to the median, in rising order."""
    median = statistics.median(scores.values())
    return sorted(sorted(scores, key=lambda seed: (abs(scores[seed] - median), seed))[:count])


def main() -> int:
    from tqdm import tqdm

    args = parse_args()
    scorer, truth = load_scorer(), []
    seeds = range(FIRST_SEED, FIRST_SEED + args.videos)
    args.output.mkdir(parents=True, exist_ok=True)
    for kind, names in KINDS.items():
        drawn = draw_videos(args.work, seeds, anomaly=kind, workers=2)
        scores = {}
        for seed in tqdm(seeds, desc=kind, unit="video"):
            video = args.work / video_name(seed, kind)
            scores[seed] = scorer.score(video, keep_frames=False).summary["video_results"]
        for name, seed in zip(names, typical(scores, len(names)), strict=True):
            file = video_name(seed, kind)
            shutil.copyfile(args.work / file, args.output / f"{name}.mp4")
            truth += [
                {"video": f"{name}.mp4", "frame": index, "people": people}
                for index, people in enumerate(drawn[file])
            ]
            median = statistics.median(scores.values())
            print(f"{name}: seed {seed}, {scores[seed]:.3f}; median of its kind {median:.3f}")
    write_jsonl(args.output.parent / "truth.jsonl", sorted(truth, key=lambda row: row["video"]))
    return 0


if __name__ == "__main__":
    run_main(main, (OSError, RuntimeError))

"""Choose the demo's four videos by a rule: `python -m demo.choose`.

Draws videos of each kind, scores them with the demo's weights, and takes those whose video_results
are nearest to their kind's median; where two are equally near, the one of the smaller seed.
"""

import shutil
import statistics
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from human_anomaly.configs.places import home
from human_anomaly.demo.paths import VIDEOS, load_scorer
from human_anomaly.demo.truth import write_truth
from human_anomaly.demo.world.files import draw_videos, video_name
from human_anomaly.utils import command_parser, run_main

WORK = home() / "build/demo/choose"
SEEDS = range(950_000, 950_040)  # neither training nor evaluation draws these
KINDS = {
    "none": ("normal_1", "normal_2"),
    "fused_fingers": ("hand_fused",),
    "third_arm": ("body_third_arm",),
}


def typical(scores: Mapping[int, float], count: int) -> list[int]:
    """Return the `count` seeds whose scores are nearest to the median, in rising order."""
    median = statistics.median(scores.values())
    return sorted(sorted(scores, key=lambda seed: (abs(scores[seed] - median), seed))[:count])


def main() -> int:
    parser = command_parser(__doc__, "demo.choose")
    text = "folder of the chosen videos; truth.jsonl is written beside it"
    parser.add_argument("--output", type=Path, default=VIDEOS, help=text)
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    scorer, truth = load_scorer(), {}
    for kind, names in KINDS.items():
        drawn = draw_videos(WORK, SEEDS, anomaly=kind, workers=2)
        scores = {}
        for seed in tqdm(SEEDS, desc=kind, unit="video"):
            video = WORK / video_name(seed, kind)
            scores[seed] = scorer.score(video, keep_frames=False).summary["video_results"]
        median = statistics.median(scores.values())
        for name, seed in zip(names, typical(scores, len(names)), strict=True):
            file = video_name(seed, kind)
            shutil.copyfile(WORK / file, output / f"{name}.mp4")
            truth[f"{name}.mp4"] = drawn[file]
            print(f"{name}: seed {seed}, {scores[seed]:.3f}; median of its kind {median:.3f}")
    write_truth(output.parent / "truth.jsonl", truth)
    return 0


if __name__ == "__main__":
    run_main(main, (OSError, RuntimeError))

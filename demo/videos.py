"""Draw the demo's four videos and their truth into demo/: `python -m demo.videos`."""

import sys
from pathlib import Path

from demo.paths import VIDEOS
from utils import write_jsonl

SEEDS = {  # no training and no evaluation draws these
    "body_third_arm.mp4": 950_018,
    "hand_fused.mp4": 950_014,
    "normal_1.mp4": 950_001,
    "normal_2.mp4": 950_002,
}


def draw_videos(folder: Path = VIDEOS) -> None:
    """Write the videos into `folder` and truth.jsonl beside it."""
    from demo.world import iter_video
    from demo.world.__main__ import write_video
    from demo.world.video import FPS

    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, seed in SEEDS.items():
        drawn = list(iter_video(seed, anomaly="random"))
        write_video(folder / name, (frame for frame, _ in drawn), FPS)
        rows += [
            {"video": name, "frame": index, "people": people}
            for index, (_, people) in enumerate(drawn)
        ]
    write_jsonl(folder.parent / "truth.jsonl", rows)


if __name__ == "__main__":
    sys.exit(draw_videos())

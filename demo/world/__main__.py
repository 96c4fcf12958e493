"""Draw videos with known truth: `python -m demo.world --output DIR --videos 20 --seed 0`.

Writes DIR/<name>.mp4 and DIR/truth.jsonl. Video i is drawn from the seed `--seed` + i and is named
after it. Finished videos are kept, so the same command resumes an interrupted run.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from human_anomaly.utils import command_parser, run_main

from .anomalies import KINDS, PART_OF
from .files import draw_videos


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__, "demo.world")
    add, words = parser.add_argument, ["random", "none", *KINDS, *PART_OF]
    add("--output", type=Path, required=True, help="folder for videos and truth")
    add("--videos", type=int, default=20, help="how many to draw (20)")
    add("--seed", type=int, default=0, help="seed of the first video (0)")
    text = "what one person of each video shows (random: an anomaly in half of the videos): "
    text += ", ".join(words)
    add("--anomaly", default="random", choices=words, metavar="WORD", help=text)
    add("--workers", type=int, default=1, help="processes that draw (1)")
    args = parser.parse_args(argv)
    for flag, least in (("videos", 1), ("seed", 0), ("workers", 1)):
        if (value := getattr(args, flag)) < least:
            parser.error(f"--{flag}: expected {least} or more, got {value}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    seeds = range(args.seed, args.seed + args.videos)
    draw_videos(args.output, seeds, anomaly=args.anomaly, workers=args.workers)
    return 0


if __name__ == "__main__":
    run_main(main, (OSError, RuntimeError))

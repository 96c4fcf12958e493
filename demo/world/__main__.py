"""Draw videos with known truth: `python -m demo.world --output DIR --videos 20 --seed 0`.

Writes DIR/<name>.mp4 and DIR/truth.jsonl. Video i is drawn from the seed `--seed` + i and is named
after it. Finished videos are kept, so the same command continues an interrupted run.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from utils import command_parser, run_main

from .anomalies import KINDS, PART_OF


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__, "demo.world")
    words = ["random", "none", *KINDS, *PART_OF]
    parser.add_argument("--output", type=Path, required=True, help="folder for videos and truth")
    parser.add_argument("--videos", type=int, default=20, help="how many to draw (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first video (default 0)")
    parser.add_argument(
        "--anomaly",
        default="random",
        choices=words,
        metavar="WORD",
        help="what one person of each video shows (default random: something in half of the "
        f"videos): {', '.join(words)}",
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that draw (default 1)")
    args = parser.parse_args(argv)
    for flag in ("videos", "workers"):
        if getattr(args, flag) < 1:
            parser.error(f"--{flag}: expected 1 or more, got {getattr(args, flag)}")
    if args.seed < 0:
        parser.error(f"--seed: expected 0 or more, got {args.seed}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    from .files import draw_videos

    args = parse_args(argv)
    seeds = range(args.seed, args.seed + args.videos)
    draw_videos(args.output, seeds, anomaly=args.anomaly, workers=args.workers)
    return 0


if __name__ == "__main__":
    run_main(main, (OSError, RuntimeError))

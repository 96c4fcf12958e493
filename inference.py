"""Score videos: which share of the people in them has plausible bodies, faces and hands.

One process:   python inference.py --video a.mp4 folder/ 'clips/*.webm' --output results
N processes:   torchrun --nproc-per-node N inference.py --video folder/ --output results

Run again with the same settings to continue. Results: scores.json and <stem>.frames.jsonl.
"""

import argparse
import logging
from pathlib import Path

from configs.defaults import PARTS, ConfigError, get_config
from third_party.deferred import deferred_imports
from utils import quiet_libraries, run_main, setup_logging

logger = logging.getLogger("inference")

ROOT = Path(__file__).resolve().parent


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="\n".join(__doc__.splitlines()[2:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("--video", nargs="+", metavar="PATH", help="files, folders and globs to score "
                   "(default: the demo's videos)")  # fmt: skip
    p.add_argument("--output", default="results", help="the folder for results (results)")
    p.add_argument("--cfg", help="YAML with the classifiers' shape and the scoring rules")
    for name in ("detector-config", "detector-weights", *(f"{part}-model" for part in PARTS)):
        what = "YOLO-World's config" if name == "detector-config" else "checkpoint"
        p.add_argument(f"--{name}", f"--{name.replace('-', '_')}", metavar="FILE",
                       help=f"the {name.split('-')[0]} {what}")  # fmt: skip
    p.add_argument("--release", action="store_true", help="use the released weights in pretrain/ "
                   "and checkpoint/release/ with configs/vbench2_release.yaml")  # fmt: skip
    p.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS),
                   help="judge these parts only (all)")  # fmt: skip
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    p.add_argument("--batch-size", type=int, help="frames per detector batch (2 on CPU, else 8)")
    p.add_argument("--frame-stride", type=int, default=1, help="score every n-th frame (1)")
    p.add_argument("--fps", type=float, default=25.0, help="frame rate of image folders (25)")
    p.add_argument("--fast", action="store_true", help="16-bit networks where fast, and frames "
                   "padded less than to a square: scores deviate (tests/benchmarks)")  # fmt: skip
    p.add_argument("--compile", action="store_true", help="compile the networks: a minute at the "
                   "start, for long runs")  # fmt: skip
    p.add_argument("--annotate", action="store_true", help="write an annotated video per video")
    p.add_argument("--report", action="store_true", help="write report/index.html: the evidence "
                   "per video, annotated videos included")  # fmt: skip
    p.add_argument("--overwrite", action="store_true", help="replace results of other settings")
    p.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE",
                   help="settings, such as SCORE.THRESHOLDS.HAND 0.5")  # fmt: skip
    args = p.parse_args(argv)
    for name in ("batch_size", "frame_stride"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            p.error(f"--{name.replace('_', '-')}: expected at least 1, got {getattr(args, name)}")
    if not 0 < args.fps < 1000:
        p.error(f"--fps: expected a number between 0 and 1000, got {args.fps}")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    setup_logging()
    quiet_libraries()
    with deferred_imports():
        from models.scoring_run import ScoringRun
        from models.weights import choose_weights

    weights = choose_weights(
        parts=args.parts,
        cfg=args.cfg,
        detector_config=args.detector_config,
        detector_weights=args.detector_weights,
        models={part: getattr(args, f"{part}_model") for part in PARTS},
        release=args.release,
        root=ROOT,
    )
    config = get_config(weights.cfg, args.opts)
    if args.video is None:
        args.video = [str(ROOT / "demo" / "videos")]
        logger.info("no --video given: scoring the demo's videos")
    return ScoringRun(args, weights, config).run()


if __name__ == "__main__":
    run_main(main, (ConfigError,))

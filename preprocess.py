"""Crop people, faces and hands out of videos or images, for labelling and training.

One process:   python preprocess.py --input videos/ --output crops \\
                   --detector-config third_party/YOLO-World/NAME.py --detector-weights WEIGHTS.pth
N processes:   torchrun --nproc-per-node N preprocess.py ... (on several machines too: they share
               the output folder, nothing else)

Writes crops/{human,face,hand}/, boxes.jsonl and {human,face,hand}.jsonl. Run again with the same
settings to continue, or with more inputs to add to it. `python -m data.label crops` then collects
the labels that a person gave.
"""

import argparse
import hashlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

from configs.defaults import ConfigError, get_config
from utils import (
    UsageError,
    cores_per_process,
    quiet_libraries,
    rank,
    run_main,
    setup_logging,
    world_size,
)

logger = logging.getLogger("preprocess")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="\n".join(__doc__.splitlines()[2:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("--input", nargs="+", required=True, metavar="PATH",
                   help="videos, images, folders, globs; a folder of images is one video"
                   )  # fmt: skip
    p.add_argument("--output", required=True, metavar="DIR", help="the folder for crops and lists")
    for name, what in (("config", "config"), ("weights", "checkpoint")):
        p.add_argument(f"--detector-{name}", f"--detector_{name}", required=True, metavar="FILE",
                       help=f"the YOLO-World {what}")  # fmt: skip
    p.add_argument("--label", type=int, choices=(0, 1),
                   help="label of all crops of these inputs: 0 normal, such as real videos, or "
                   "1 abnormal (default: none, a person decides)")  # fmt: skip
    p.add_argument("--frame-stride", type=int, default=1, help="crop every n-th frame (1)")
    p.add_argument("--min-size", type=int, default=0, metavar="PIXELS",
                   help="write no crop whose square is smaller than this (0)")  # fmt: skip
    p.add_argument("--format", choices=("jpg", "png"), default="jpg", help="of the crops (jpg)")
    p.add_argument("--train-test-split", type=float, metavar="SHARE",
                   help="also write {part}_train.jsonl and {part}_test.jsonl with about this share "
                   "of the videos in the second, such as 0.05")  # fmt: skip
    p.add_argument("--fps", type=float, default=25.0, help="frame rate of image folders (25)")
    p.add_argument("--batch-size", type=int, default=4, help="frames per detector batch (4)")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    p.add_argument("--wait", type=float, default=600.0, metavar="SECONDS",
                   help="give up other processes that show no sign for so long (600)")  # fmt: skip
    p.add_argument("--overwrite", action="store_true", help="replace crops of other settings")
    p.add_argument("--cfg", help="YAML with settings")
    p.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE",
                   help="settings, such as DETECTOR.SCORE_THR 0.2")  # fmt: skip
    args = p.parse_args(argv)
    for name, least in (("batch_size", 1), ("frame_stride", 1), ("min_size", 0)):
        if getattr(args, name) < least:
            flag = name.replace("_", "-")
            p.error(f"--{flag}: expected at least {least}, got {getattr(args, name)}")
    if not 0 < args.fps < 1000:
        p.error(f"--fps: expected a number between 0 and 1000, got {args.fps}")
    if args.train_test_split is not None and not 0 <= args.train_test_split < 1:
        p.error(f"--train-test-split: expected a share below 1, got {args.train_test_split}")
    return args


def describe(args: argparse.Namespace, config) -> dict:
    """Return the settings that decide what the crops are; a folder holds one set of them."""
    weights = Path(args.detector_weights)
    if not weights.is_file():
        raise UsageError(f"--detector-weights: no such file: {weights}")
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return {
        "detector_config": Path(args.detector_config).name,
        "detector_weights": digest,
        "score_thr": config.DETECTOR.SCORE_THR,
        "keep_padding_class": config.DETECTOR.KEEP_PADDING_CLASS,
        "frame_stride": args.frame_stride,
        "fps": args.fps,
        "min_size": args.min_size,
        "format": args.format,
    }


def load_detector(args: argparse.Namespace, config) -> tuple[Callable, int]:
    """Return `PartDetector.detect` set up as for scoring, and how many threads should call it."""
    from models.detector import PartDetector
    from models.device import choose_device, set_matmul_precision, share_cores

    device = choose_device(args.device)
    set_matmul_precision("fp32")
    workers, threads = share_cores(device)
    detector = PartDetector(
        args.detector_config,
        args.detector_weights,
        device,
        score_thr=config.DETECTOR.SCORE_THR,
        keep_padding_class=config.DETECTOR.KEEP_PADDING_CLASS,
        batch_size=args.batch_size,
        threads=threads,
    )
    return detector.detect, workers


def is_text(name: str) -> bool:
    """Return whether a file's name can be written into lists: Linux allows any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def frames_of(source) -> int:
    """Return how many frames the source claims to have, at least 1."""
    from data.video import FrameReader, VideoError

    try:
        return FrameReader(source).frames_expected or 1
    except VideoError:
        return 1


def my_sources(sources: list) -> list:
    """Return the videos that this process crops: the longest are dealt first."""
    from data.jobs import deal

    if world_size() == 1:
        return sources
    owners = deal([frames_of(source) for source in sources], world_size())
    return [s for s, owner in zip(sources, owners, strict=True) if owner == rank()]


def crop_all(args: argparse.Namespace, config, folder, sources: list) -> None:
    """Crop `sources` one after the other, with a progress bar over their frames."""
    from tqdm import tqdm

    from data.cropping.cropper import Cropper, CropWriter

    detect, workers = load_detector(args, config)
    total = sum(-(-frames_of(source) // args.frame_stride) for source in sources)
    crops, beaten = 0, time.monotonic()
    with tqdm(total=total, unit="frame", disable=rank() != 0, dynamic_ncols=True) as bar:

        def on_frame(_frame, count: int) -> None:
            nonlocal crops, beaten
            crops += count
            bar.set_postfix(crops=crops, refresh=False)
            bar.update()
            if time.monotonic() - beaten > 10:
                folder.beat(rank(), bar.n)
                beaten = time.monotonic()

        cropper = Cropper(
            detect,
            CropWriter(folder.folder, threads=min(4, cores_per_process())),
            suffix=f".{args.format}",
            min_size=args.min_size,
            stride=args.frame_stride,
            fps=args.fps,
            batch_size=args.batch_size,
            workers=workers,
            on_frame=on_frame,
        )
        for source in sources:
            bar.set_description(source.stem[:30])
            summary = folder.crop(source, cropper, args.label)
            if "error" in summary:
                logger.warning(f"failed: {summary['video_path']}: {summary['error']}")
            for warning in summary.get("warnings", ()):
                logger.warning(f"{summary['video_path']}: {warning}")


def merge(args: argparse.Namespace, folder, sources: list, failed: list, stale: dict) -> int:
    """Wait for the other processes, write the lists, and return the exit status."""
    left = folder.wait(sources, stale, seconds=args.wait if world_size() > 1 else 0)
    if left:
        logger.error(
            f"{len(left)} videos of other processes are not done (the first is {left[0].path}) and "
            f"nothing came from them for {args.wait:g} s; run the same command again"
        )
        return 1
    counts = folder.merge(failed, args.train_test_split)
    logger.info(
        f"{folder.folder}: {counts['videos']} videos, {counts['frames']} frames, "
        f"{counts['people']} people, {counts['crops']} crops"
        + (f"; {counts['skipped_crops']} boxes without a square" if counts["skipped_crops"] else "")
        + (f"; {counts['failed']} inputs failed: see failed.jsonl" if counts["failed"] else "")
    )
    return 1 if counts["failed"] else 0


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    setup_logging()
    quiet_libraries()
    from data.cropping.crop_folder import CropFolder, DiskError
    from data.video import find_sources

    config = get_config(args.cfg, args.opts)
    found, failed = find_sources(args.input)
    sources = [source for source in found if is_text(source.stem)]
    failed += [
        (str(s.path), "the name is not UTF-8: rename it") for s in found if not is_text(s.stem)
    ]
    if not sources:
        raise UsageError(f"--input: {failed[0][0]!r}: {failed[0][1]}")
    try:
        folder = CropFolder(args.output, describe(args, config), overwrite=args.overwrite)
        mine = my_sources(sources)
        stale = {} if world_size() == 1 else folder.failures()
        todo = [source for source in mine if folder.prepare(source, args.label)]
        if len(todo) < len(mine):
            logger.info(f"{len(mine) - len(todo)} of {len(mine)} videos are cropped already")
        if todo:
            crop_all(args, config, folder, todo)
        # The others end with 0: torchrun would stop all processes at the first that fails.
        return merge(args, folder, sources, failed, stale) if rank() == 0 else 0
    except DiskError as error:
        logger.error(error)
        return 1


if __name__ == "__main__":
    run_main(main, (ConfigError,))

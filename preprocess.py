"""Crop people, faces and hands out of videos or images, for labelling and training.

One process:   python preprocess.py --input videos/ --output crops \\
                   --detector-config third_party/YOLO-World/NAME.py --detector-weights WEIGHTS.pth
N processes:   torchrun --nproc-per-node N preprocess.py ...
Many machines: python preprocess.py --ray [ADDRESS OF A RAY CLUSTER] ...

Writes crops/{human,face,hand}/, boxes.jsonl and {human,face,hand}.jsonl. The same command again
continues, and with other inputs it adds to the folder. `python -m tools.label crops` then collects
the labels that a person gave.
"""

import argparse
import logging
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tqdm import tqdm

from human_anomaly.configs.defaults import get_config
from human_anomaly.configs.flags import add_shared_flags, at_least
from human_anomaly.configs.places import tool
from human_anomaly.data.runs.marks import mark
from human_anomaly.utils import (
    UsageError,
    be_the_only_process,
    command_parser,
    cores_per_process,
    decide_in_first,
    gather_objects,
    plain,
    process_group,
    quiet_libraries,
    rank,
    run_main,
    setup_logging,
)

logger = logging.getLogger("preprocess")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    p = command_parser(__doc__)
    add = p.add_argument
    inputs = "videos, images, folders, globs; a folder of images is one video"
    label = "label of all crops of these inputs: 0 normal (real videos), 1 abnormal (default: none)"
    split = "share of the videos for {part}_test.jsonl, the others for {part}_train.jsonl (none)"
    add("--input", nargs="+", required=True, metavar="PATH", help=inputs)
    add("--output", required=True, metavar="DIR", help="folder for crops and lists")
    detector = {"required": True, "metavar": "FILE"}
    add("--detector-config", "--detector_config", **detector, help="YOLO-World's config")
    add("--detector-weights", "--detector_weights", **detector, help="YOLO-World's checkpoint")
    add("--label", type=int, choices=(0, 1), help=label)
    add("--min-size", type=at_least(0), default=0, help="leave out squares of smaller sides (0)")
    add("--format", choices=("jpg", "png"), default="jpg", help="file format of the crops (jpg)")
    add("--train-test-split", type=float, metavar="SHARE", help=split)
    add("--batch-size", type=at_least(1), default=4, help="frames per detector batch (4)")
    add("--overwrite", action="store_true", help="replace crops made with other settings")
    add_shared_flags(add, "crop")
    add("--cfg", metavar="FILE", help="YAML with settings")
    add("--opts", nargs="+", default=[], metavar="KEY VALUE", help="such as DETECTOR.SCORE_THR 0.2")
    args = p.parse_args(argv)
    if args.train_test_split is not None and not 0 <= args.train_test_split < 1:
        p.error(f"--train-test-split: expected a share below 1, got {args.train_test_split}")
    return args


def describe(args: argparse.Namespace, config) -> dict:
    """Return the settings on which the crops depend; all crops in a folder have the same."""
    if not Path(args.detector_weights).is_file():
        raise UsageError(f"--detector-weights: no such file: {args.detector_weights}")
    try:
        *_, digest = mark(Path(args.detector_weights))
    except OSError as error:
        raise UsageError(f"--detector-weights: {error.filename}: {error.strerror}") from error
    return {
        "detector_config": Path(args.detector_config).name,
        "detector_weights": digest[:16],
        "score_thr": config.DETECTOR.SCORE_THR,
        "keep_padding_class": config.DETECTOR.KEEP_PADDING_CLASS,
        "frame_stride": args.frame_stride,
        "fps": args.fps,
        "min_size": args.min_size,
        "format": args.format,
    }


def begin(args: argparse.Namespace, config, held: ExitStack) -> tuple:
    """Return (output folder, {source to crop: its frames}, rows of failed.jsonl).

    The folder is locked until `held` ends. Raises UsageError if there is no input or the folder
    holds crops that must not be mixed with these.
    """
    from human_anomaly.data.cropping.crop_folder import CropFolder
    from human_anomaly.data.video import count_frames, find_sources

    sources, unusable = find_sources(args.input)
    if not sources:
        raise UsageError(f"--input: {unusable[0][0]!r}: {unusable[0][1]}")
    folder = CropFolder(args.output, describe(args, config))
    try:
        plan = folder.plan(sources, args.label, overwrite=args.overwrite)
        held.enter_context(folder.open())
        folder.prepare(plan)
    except OSError as error:
        raise UsageError(f"--output: {error.filename}: {error.strerror}") from error
    if done := len(sources) - len(plan.todo):
        logger.info(f"{done} of {len(sources)} videos are cropped already")
    failed = [{"video_path": path, "error": error} for path, error in unusable]
    if args.ray:  # frames are not needed, and a million videos take an hour to be counted
        return folder, dict.fromkeys(plan.todo, 1), failed
    return folder, {source: count_frames(source) for source in plan.todo}, failed


def load_detector(args: argparse.Namespace, config) -> tuple[Callable, int]:
    """Return `PartDetector.detect`, set up as for scoring, and how many threads should call it."""
    from human_anomaly.models.detector import PartDetector
    from human_anomaly.models.device import choose_device, share_cores

    device = choose_device(args.device)
    workers, threads = share_cores(device, args.actor_cores)
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


def load_cropper(args: argparse.Namespace, config, folder, on_frame: Callable = lambda: None):
    """Return a function that crops a source into `folder` and returns its summary."""
    from human_anomaly.data.cropping.cropper import Cropper, CropWriter

    detect, workers = load_detector(args, config)
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
    return lambda source: folder.crop(source, cropper, args.label)


def crop_here(args: argparse.Namespace, config, folder, sources: dict) -> Iterator[dict]:
    """Crop each of {source: frames}, one after the other; yield the summaries."""
    total = sum(-(-frames // args.frame_stride) for frames in sources.values())
    with tqdm(total=total, unit="frame", disable=rank() != 0, dynamic_ncols=True) as bar:
        crop = load_cropper(args, config, folder, bar.update)
        for source in sources:
            bar.set_description(plain(source.stem[:30]))
            yield crop(source)


def crop_on_ray(args: argparse.Namespace, config, folder, sources: dict) -> Iterator[dict]:
    """Crop the sources in a Ray cluster's actors; yield the summaries."""
    from human_anomaly.data.runs.on_ray import ray_actors
    from human_anomaly.data.video import printable

    with ray_actors(args.ray, device=args.device, cores=args.actor_cores) as actors:
        args.device, args.actor_cores = actors.device, actors.cores
        logger.info(f"{actors.count} actors of the Ray cluster crop {len(sources)} videos")
        make = partial(load_cropper, args, config, folder)
        done = actors.map(make, list(sources), folder)
        for source, summary, error in tqdm(done, total=len(sources), unit="video"):
            yield summary or {"video_path": printable(source.path), "error": error}


def crop_all(args: argparse.Namespace, config, folder, sources: dict) -> list[dict]:
    """Crop each of {source: frames}; return {"video_path", "error"} of those that failed."""
    if not sources:
        return []
    failed = []
    for summary in (crop_on_ray if args.ray else crop_here)(args, config, folder, sources):
        if "error" in summary:
            logger.warning(f"failed: {summary['video_path']}: {summary['error']}")
            failed.append({key: summary[key] for key in ("video_path", "error")})
        for warning in summary.get("warnings", ()):
            logger.warning(f"{summary['video_path']}: {warning}")
    return failed


def finish(folder, failed: Sequence[dict], split: float | None) -> int:
    """Write the lists, log counts and the next command, and return the exit status."""
    counts = folder.merge(failed, split)
    logger.info(
        f"{folder.folder}: {counts['videos']} videos, {counts['frames']} frames, "
        f"{counts['people']} people, {counts['crops']} crops"
        + (f"; {counts['skipped_crops']} boxes without a square" if counts["skipped_crops"] else "")
        + (f"; {counts['failed']} inputs failed: see failed.jsonl" if counts["failed"] else "")
    )
    if counts["labelled"] < counts["videos"]:
        command = f"{tool('label')} {shlex.quote(str(folder.folder))}"
        logger.info(
            "next: label the crops, in a browser or by sorting the files\n"
            f"  {command} --page   writes a page that shows crops and takes labels\n"
            f"  {command}          then collects the labels and writes the lists for training"
        )
    return 1 if counts["failed"] else 0


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    if args.ray:
        be_the_only_process()
    setup_logging()
    quiet_libraries()
    from human_anomaly.data.cropping.crop_folder import DiskError
    from human_anomaly.data.runs.jobs import share

    config = get_config(args.cfg, args.opts)
    with process_group(), ExitStack() as held:
        folder, frames, failed = decide_in_first(lambda: begin(args, config, held))

        # Crop this process's videos.
        mine = {source: frames[source] for source in share(frames)}
        rows, stopped = [], None
        try:
            rows = crop_all(args, config, folder, mine)
        except (DiskError, ConnectionError) as error:
            stopped = str(error)

        # Merge when all are done. The others return 0, for torchrun stops all if one fails.
        ended = gather_objects((rows, stopped))
        if rank() != 0:
            return 0
        try:
            if problems := {problem for _, problem in ended if problem}:
                raise DiskError("; ".join(sorted(problems)))
            failed += [row for rows, _ in ended for row in rows]
            return finish(folder, failed, args.train_test_split)
        except DiskError as error:
            logger.error(error)
            return 1


if __name__ == "__main__":
    run_main(main)

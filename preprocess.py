"""Crop people, faces and hands out of videos or images, for labelling and training.

One process:   python preprocess.py --input videos/ --output crops \\
                   --detector-config third_party/YOLO-World/NAME.py --detector-weights WEIGHTS.pth
N processes:   torchrun --nproc-per-node N preprocess.py ...
Many machines: python preprocess.py --ray [ADDRESS OF A RAY CLUSTER] ...

Writes crops/{human,face,hand}/, boxes.jsonl and {human,face,hand}.jsonl. Run the same command again
to resume, or with other inputs to add their crops. `python -m tools.label crops` then collects the
labels that a person gave.
"""

import argparse
import logging
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm
from yacs.config import CfgNode

from human_anomaly.configs.defaults import get_config
from human_anomaly.configs.flags import add_detector_flags, add_shared_flags, at_least
from human_anomaly.configs.machine import cores_per_process
from human_anomaly.configs.parts import PARTS, other_texts
from human_anomaly.configs.places import tool
from human_anomaly.configs.values import DECODER
from human_anomaly.data.runs.marks import mark
from human_anomaly.utils import (
    UsageError,
    command_parser,
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
    every = "N successive cropped frames of a person get one label (1: a label for each crop)"
    add("--input", nargs="+", required=True, metavar="PATH", help=inputs)
    add("--output", required=True, metavar="DIR", help="folder for crops and lists")
    add_detector_flags(add, required=True)
    add("--label", type=int, choices=(0, 1), help=label)
    add("--min-size", type=at_least(0), default=0, help="leave out crops below this side in px (0)")
    add("--format", choices=("jpg", "png"), default="jpg", help="file format of the crops (jpg)")
    add("--train-test-split", type=float, metavar="SHARE", help=split)
    add("--label-every", type=at_least(1), default=1, metavar="N", help=every)
    add("--batch-size", type=at_least(1), default=4, help="frames per detector batch (4)")
    add("--overwrite", action="store_true", help="replace crops made with other settings")
    add_shared_flags(add, "crop")
    add("--cfg", metavar="FILE", help="YAML with settings")
    add("--opts", nargs="+", default=[], metavar="KEY VALUE", help="such as DETECTOR.SCORE_THR 0.2")
    args = p.parse_args(argv)
    if args.train_test_split is not None and not 0 <= args.train_test_split < 1:
        p.error(f"--train-test-split: expected a share below 1, got {args.train_test_split}")
    return args


@dataclass(frozen=True)
class Options:
    """What a process or a Ray actor needs to crop videos; every field but `config` is a flag."""

    config: CfgNode
    detector_config: str
    detector_weights: str
    device: str
    cores: int | None  # of a Ray actor
    batch_size: int
    stride: int
    fps: float
    min_size: int
    format: str
    label: int | None
    label_every: int


def describe(options: Options) -> dict:
    """Return the settings on which the crops depend; a folder holds crops of one setting."""
    if not Path(options.detector_weights).is_file():
        raise UsageError(f"--detector-weights: no such file: {options.detector_weights}")
    try:
        *_, digest = mark(Path(options.detector_weights))
    except OSError as error:
        raise UsageError(f"--detector-weights: {error.filename}: {error.strerror}") from error
    return {
        "detector_config": Path(options.detector_config).name,
        "detector_weights": digest[:16],
        "score_thr": options.config.DETECTOR.SCORE_THR,
        "keep_padding_class": options.config.DETECTOR.KEEP_PADDING_CLASS,
        "frame_stride": options.stride,
        "fps": options.fps,
        "min_size": options.min_size,
        "format": options.format,
        "decoder": DECODER,
        "colours": options.config.VIDEO.COLOURS,
        **({"label_every": options.label_every} if options.label_every > 1 else {}),
        **other_texts(PARTS),
    }


def plan(args: argparse.Namespace, options: Options) -> tuple:
    """Return (output folder, its plan, rows of failed.jsonl); nothing is changed yet.

    Raises UsageError if there is no input or the folder holds crops that must not be mixed with
    these.
    """
    from human_anomaly.data.cropping.crop_folder import CropFolder
    from human_anomaly.data.sources import find_sources

    found = find_sources(args.input)
    found.refuse_none("--input")
    sources, unusable = found.sources, found.failed
    if found.skipped:
        logger.info(f"skipped below the inputs: {found.said()}")
    folder = CropFolder(args.output, describe(options))
    todo = folder.plan(sources, options.label, overwrite=args.overwrite)
    folder.tell_split(sources, options.label, args.train_test_split)
    if done := len(sources) - len(todo.todo):
        logger.info(f"{done} of {len(sources)} videos are cropped already")
    return folder, todo, [{"video_path": path, "error": error} for path, error in unusable]


def load_detector(options: Options) -> tuple[Callable, int]:
    """Return `PartDetector.detect`, set up as for scoring, and how many threads should call it."""
    from human_anomaly.models.detector import PartDetector
    from human_anomaly.models.device import choose_device, share_cores

    device = choose_device(options.device)
    workers, threads = share_cores(device, options.cores)
    detector = PartDetector(
        options.detector_config,
        options.detector_weights,
        device,
        parts=PARTS,
        score_thr=options.config.DETECTOR.SCORE_THR,
        keep_padding_class=options.config.DETECTOR.KEEP_PADDING_CLASS,
        batch_size=options.batch_size,
        threads=threads,
    )
    return detector.detect, workers


def load_cropper(options: Options, folder, on_frame: Callable = lambda: None) -> Callable:
    """Return a function that crops a source into `folder` and returns its summary."""
    from human_anomaly.data.cropping.cropper import Cropper, CropWriter
    from human_anomaly.models.scoring.tracks import Decisions

    every = options.label_every
    detect, workers = load_detector(options)
    cropper = Cropper(
        detect,
        CropWriter(folder.folder, threads=min(4, cores_per_process())),
        suffix=f".{options.format}",
        min_size=options.min_size,
        stride=options.stride,
        fps=options.fps,
        colours=options.config.VIDEO.COLOURS,
        batch_size=options.batch_size,
        workers=workers,
        on_frame=on_frame,
        **({"namer": lambda: Decisions(every).name} if every > 1 else {}),
    )
    return lambda source: folder.crop(source, cropper, options.label)


def crop_here(options: Options, folder, sources: Sequence) -> Iterator[dict]:
    """Crop this process's share of `sources`, one after the other; yield the summaries."""
    from human_anomaly.data.runs.jobs import my_items
    from human_anomaly.data.video import count_frames

    frames = decide_in_first(lambda: {source: count_frames(source) for source in sources})
    if not (mine := my_items(frames)):
        return
    total = sum(-(-frames[source] // options.stride) for source in mine)
    with tqdm(total=total, unit="frame", disable=rank() != 0, dynamic_ncols=True) as bar:
        crop = load_cropper(options, folder, bar.update)
        for source in mine:
            bar.set_description(plain(source.stem[:30]))
            yield crop(source)


def crop_on_ray(address: str, options: Options, folder, sources: Sequence) -> Iterator[dict]:
    """Crop the sources in a Ray cluster's actors; yield the summaries."""
    from human_anomaly.data.runs.on_ray import ray_actors
    from human_anomaly.data.sources import printable

    if not sources:
        return
    with ray_actors(address, device=options.device, cores=options.cores) as actors:
        logger.info(f"{actors.count} actors of the Ray cluster crop {len(sources)} videos")
        of_actors = replace(options, device=actors.device, cores=actors.cores)
        done = actors.map(partial(load_cropper, of_actors, folder), sources, folder)
        for source, summary, error in tqdm(done, total=len(sources), unit="video"):
            yield summary or {"video_path": printable(source.path), "error": error}


def failures(summaries: Iterable[dict]) -> list[dict]:
    """Log the summaries' errors and warnings; return {"video_path", "error"} of failed sources."""
    failed = []
    for summary in summaries:
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
        f"{counts['people']} views of people, {counts['crops']} crops"
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


def run(args: argparse.Namespace, options: Options) -> int:
    """Crop the videos that are not finished, write the lists; return the exit status."""
    from human_anomaly.data.cropping.crop_folder import DiskError

    folder, planned, failed = decide_in_first(lambda: plan(args, options))
    with folder.open():
        decide_in_first(lambda: folder.prepare(planned))

        # Crop this process's videos.
        rows, stopped = [], None
        if args.ray:
            summaries = crop_on_ray(args.ray, options, folder, planned.todo)
        else:
            summaries = crop_here(options, folder, planned.todo)
        try:
            rows = failures(summaries)
        except (DiskError, ConnectionError) as error:
            stopped = str(error)

        # Merge when all are done. The others return 0: if one failed, torchrun would stop all.
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


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    quiet_libraries()
    if args.ray:
        from human_anomaly.data.runs.on_ray import be_the_only_process

        be_the_only_process()
    setup_logging()
    _, *names = [field.name for field in fields(Options)]
    flags = {name: getattr(args, name) for name in names}
    options = Options(get_config(args.cfg, args.opts), **flags)
    with process_group():
        return run(args, options)


if __name__ == "__main__":
    run_main(main)

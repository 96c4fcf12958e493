"""Score videos: how often the people in them have plausible bodies, faces and hands.

One process:   python inference.py --video a.mp4 folder/ 'clips/*.webm' --output results/mymodel
N processes:   torchrun --nproc-per-node N inference.py --video folder/ --output results/mymodel
Many machines: python inference.py --ray [ADDRESS OF A RAY CLUSTER] --video folder/ ...

Run the same command again to resume: finished videos are kept. Results: scores.json and, for each
video, <name>.frames.jsonl.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from human_anomaly.configs.defaults import differences, get_config, thresholds
from human_anomaly.configs.flags import add_shared_flags, add_weight_flags, at_least, given_files
from human_anomaly.configs.parts import PARTS, other_texts, used_parts
from human_anomaly.configs.places import ROOT
from human_anomaly.configs.values import DECODER
from human_anomaly.data.runs.marks import file_stamp
from human_anomaly.models.scoring.results import SCORES, is_below, merge, print_scores
from human_anomaly.models.weights import choose_weights
from human_anomaly.utils import (
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

logger = logging.getLogger("inference")
FLAGS = ("device", "batch_size", "stride", "fps", "fast", "compile")  # for `from_files`


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    p = command_parser(__doc__)
    add = p.add_argument
    add("--video", nargs="+", metavar="PATH", help="files, folders, globs (the demo's videos)")
    add("--output", metavar="DIR", help="folder for results (results/<name of the input>)")
    add_weight_flags(add)
    add("--parts", nargs="+", choices=PARTS, help="judge only these parts (all)")
    text = "frames per batch (2 on CPU; on a GPU 8, with --fast 32)"
    add("--batch-size", type=at_least(1), metavar="N", help=text)
    add_shared_flags(add, "score")
    add("--fast", action="store_true", help="faster, less exact: scores change a little")
    add("--compile", action="store_true", help="compile the detector: slow start, fast run (GPU)")
    text = "exit 3 if the mean of SCORE (video_results) is below X or null"
    add("--min-score", type=minimum, metavar="X[:SCORE]", help=text)
    add("--annotate", action="store_true", help="write an annotated video per video")
    add("--report", action="store_true", help="write report/index.html; implies --annotate")
    text = "settings, over the YAML, such as SCORE.THRESHOLDS.HAND 0.5"
    add("--opts", nargs="+", default=[], metavar="KEY VALUE", help=text)
    one_of = p.add_mutually_exclusive_group().add_argument
    one_of("--add", action="store_true", help="keep the results of other inputs in DIR, too")
    one_of("--overwrite", action="store_true", help="delete the results in DIR")
    args = p.parse_args(argv)
    args.annotate |= args.report
    return args


def minimum(text: str) -> tuple[float, str]:
    """Return the number and the name of `--min-score`; an argparse type."""
    number, _, name = text.partition(":")
    if (name or SCORES[0]) not in SCORES or not 0 <= float(number) <= 1:
        raise argparse.ArgumentTypeError(f"expected 0 to 1, or 0.9:{'|'.join(SCORES)}, got {text}")
    return float(number), name or SCORES[0]


def default_output(inputs: Sequence[str]) -> Path:
    """Return results/<name of the first input>; a glob has the name of its folder."""
    path = Path(inputs[0])
    if any(mark in path.name for mark in "*?[") and not path.exists():
        path = path.parent
    name = path.resolve().name if path.is_dir() else path.stem
    more = f"_and_{len(inputs) - 1}_more" if len(inputs) > 1 else ""
    return Path("results") / f"{name or 'videos'}{more}"


def describe(options: Mapping, cfg: str | None) -> dict:
    """Return the settings on which the results depend, for scores.json.

    `options` are the arguments of `VideoScorer.from_files`.
    """
    config, used = options["config"], used_parts(options["models"])
    limits = config.SCORE.THRESHOLDS.items()
    return {
        "cfg": cfg,
        "changed": {k: v for k, (_, v) in sorted(differences(config).items())},
        "detector_config": options["detector_config"],
        "detector_weights": options["detector_weights"],
        "models": options["models"],
        "thresholds": {k: v for k, v in limits if k.lower() in used},
        **other_texts(used),
        "channels": config.TEST.CHANNELS,
        "fast": options["fast"],
        "frame_stride": options["stride"],
        "fps": options["fps"],
        "decoder": DECODER,
    }


def score_here(score: Callable[..., dict], sources: Sequence, stride: int) -> None:
    """Score this process's share of the videos, with a progress bar over their frames."""
    from human_anomaly.data.runs.jobs import my_items
    from human_anomaly.data.video import count_frames

    frames = decide_in_first(lambda: {source: count_frames(source) for source in sources})
    mine = my_items(frames)
    total = sum(-(-frames[source] // stride) for source in mine)
    with tqdm(total=total, unit="frame", disable=rank() != 0, dynamic_ncols=True) as bar:
        for source in mine:
            bar.set_description(plain(source.stem[:30]))
            row = score(source, bar)
            if "error" in row:
                bar.write(plain(f"failed: {row['video_path']}: {row['error']}"), file=sys.stderr)


def open_evidence(folder: Path, options: Mapping, report: bool):
    """Return the run's Evidence; `options` are the arguments of `VideoScorer.from_files`."""
    from human_anomaly.models.report.evidence import Evidence

    config = options["config"]
    reading = {key: options[key] for key in ("stride", "fps")} | {"colours": config.VIDEO.COLOURS}
    return Evidence(folder, thresholds(config), report=report, **reading)


def run(args: argparse.Namespace, options: dict, settings: dict) -> int:
    """Score the videos that are not finished, then merge; return the exit status.

    `options` are the arguments of `VideoScorer.from_files`, `settings` what `describe` returned.
    """
    from human_anomaly.data.runs.jobs import JobFolder
    from human_anomaly.data.sources import find_sources
    from human_anomaly.models.report.page import build_report
    from human_anomaly.models.scoring.scorer import VideoScorer
    from human_anomaly.models.scoring.worker import VideoWorker, catch_up, score_on_ray

    # Find the inputs and the folder.
    inputs = find_sources(args.video)
    decide_in_first(lambda: inputs.refuse_none("--video"))
    files = map(file_stamp, (options["detector_weights"], *options["models"].values()))
    jobs = JobFolder(args.output, settings | {"files": list(files)})
    conflict = {"add": args.add, "overwrite": args.overwrite}
    decide_in_first(lambda: jobs.refuse_conflict(inputs.sources, **conflict))
    sources = jobs.distinct(inputs.sources)
    evidence = open_evidence(jobs.folder, options, args.report) if args.annotate else None

    # Find the unfinished videos; without any, no network is loaded.
    done = [] if args.overwrite else [source for source in sources if jobs.is_scored(source)]
    unseen = [source for source in done if evidence and evidence.missing(source)]
    if done:
        logger.info(f"{len(done)} of {len(sources)} videos are scored already")
    scorer = None
    if (len(done) < len(sources) and not args.ray) or unseen:
        scorer = VideoScorer.from_files(**options | ({"device": "cpu"} if args.ray else {}))

    with jobs.open():
        # Score the videos, then complete the evidence of earlier ones.
        decide_in_first(lambda: jobs.clear(sources, overwrite=args.overwrite))
        todo, lost = [source for source in sources if source not in done], []
        if todo and args.ray:
            lost = score_on_ray(args.ray, options, jobs, evidence, todo, cores=args.cores)
        elif todo:
            score_here(VideoWorker(scorer, jobs, evidence), todo, args.stride)
        if unseen:
            catch_up(scorer, evidence, unseen)

        # Merge when all processes are done.
        lost = gather_objects(lost + (evidence.failed if evidence else []))
        if rank() != 0:
            return 0
        scores = merge(jobs, sources, inputs, settings, args.add)
        page = build_report(jobs.folder) if args.report else None
        print_scores(scores, jobs.folder / "scores.json", inputs.said(), page)
    below = args.min_score is not None and is_below(scores["mean"], *args.min_score)
    return 1 if scores["failed"] or any(lost) else 3 if below else 0


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    quiet_libraries()
    if args.ray:
        from human_anomaly.data.runs.on_ray import be_the_only_process

        be_the_only_process()
    setup_logging()
    files = choose_weights(parts=args.parts, **given_files(args))
    if args.video is None:
        logger.info("no --video given: scoring the demo's videos")
        args.video, args.output = [str(ROOT / "demo/videos")], args.output or "results/demo"
    args.output = args.output or default_output(args.video)
    options = {
        "detector_config": files.detector_config,
        "detector_weights": files.detector_weights,
        "models": files.models,
        "config": get_config(files.cfg, args.opts),
        **{name: getattr(args, name) for name in FLAGS},
    }
    try:
        with process_group():
            return run(args, options, describe(options, files.cfg))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        logger.error(f"{where}{error.strerror or error}; finished videos are kept")
        return 1


if __name__ == "__main__":
    run_main(main)

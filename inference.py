"""Score videos: which share of the people in them has plausible bodies, faces and hands.

One process:   python inference.py --video a.mp4 folder/ 'clips/*.webm' --output results/mymodel
N processes:   torchrun --nproc-per-node N inference.py --video folder/ --output results/mymodel
Many machines: python inference.py --ray [ADDRESS OF A RAY CLUSTER] --video folder/ ...

The same command again continues: what is finished is kept. Results: scores.json and, per video,
<name>.frames.jsonl.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from tqdm import tqdm

from human_anomaly.configs.defaults import PARTS, differences, get_config, thresholds
from human_anomaly.configs.flags import add_shared_flags, at_least
from human_anomaly.configs.places import ROOT
from human_anomaly.data.runs.marks import version
from human_anomaly.utils import (
    be_the_only_process,
    command_parser,
    decide_in_first,
    gather_objects,
    plain,
    process_group,
    quiet_libraries,
    rank,
    run_main,
    setup_logging,
    world_size,
    write_json,
)

logger = logging.getLogger("inference")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    p = command_parser(__doc__)
    add = p.add_argument
    add("--video", nargs="+", metavar="PATH", help="files, folders, globs (the demo's videos)")
    add("--output", metavar="DIR", help="folder for results (results/<name of the input>)")
    add("--cfg", metavar="FILE", help="YAML with the classifiers' shape and the scoring rules")
    add("--detector-config", "--detector_config", metavar="FILE", help="YOLO-World's config")
    add("--detector-weights", "--detector_weights", metavar="FILE", help="YOLO-World's checkpoint")
    add("--human-model", "--human_model", metavar="FILE", help="checkpoint that judges bodies")
    add("--face-model", "--face_model", metavar="FILE", help="checkpoint that judges faces")
    add("--hand-model", "--hand_model", metavar="FILE", help="checkpoint that judges hands")
    add("--release", action="store_true", help="use the released weights and their settings")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="judge these only (all)")
    text = "frames per batch (2 on CPU; on a GPU 8, with --fast 32)"
    add("--batch-size", type=at_least(1), metavar="N", help=text)
    add_shared_flags(add, "score")
    text = "with several processes or --ray: split videos of more than N frames between them"
    add("--split-frames", type=at_least(1), metavar="N", help=text)
    add("--fast", action="store_true", help="compute less exactly: scores deviate a little")
    add("--compile", action="store_true", help="compile the detector first (GPU)")
    text = "exit 3 if the mean of SCORE (video_results) is below X, or there is none"
    add("--min-score", type=minimum, metavar="X[:SCORE]", help=text)
    add("--annotate", action="store_true", help="write an annotated video per video")
    add("--report", action="store_true", help="write report/index.html; implies --annotate")
    add("--opts", nargs="+", default=[], metavar="KEY VALUE", help="SCORE.THRESHOLDS.HAND 0.5 ..")
    one_of = p.add_mutually_exclusive_group().add_argument
    one_of("--add", action="store_true", help="keep the results of other inputs that DIR holds")
    one_of("--overwrite", action="store_true", help="delete the results that DIR holds")
    return p.parse_args(argv)


def minimum(text: str) -> tuple[float, str]:
    """Return the number and the name of `--min-score`; an argparse type."""
    from human_anomaly.models.scoring.results import SCORES

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


def describe(args: argparse.Namespace, weights, config) -> dict:
    """Return the settings on which the results depend, for scores.json."""
    return {
        "cfg": weights.cfg,
        "changed": {k: v for k, (_, v) in sorted(differences(config).items())},
        "detector_config": weights.detector_config,
        "detector_weights": weights.detector_weights,
        "models": weights.models,
        "thresholds": dict(config.SCORE.THRESHOLDS),
        "channels": config.TEST.CHANNELS,
        "fast": args.fast,
        "frame_stride": args.frame_stride,
        "fps": args.fps,
    }


def score_here(worker, sources: Sequence, frames: dict, stride: int) -> None:
    """Score `sources` one after the other, with a progress bar over their frames."""
    total = sum(-(-frames[source] // stride) for source in sources)
    with tqdm(total=total, unit="frame", disable=rank() != 0, dynamic_ncols=True) as bar:
        for source in sources:
            bar.set_description(plain(source.stem[:30]))
            row = worker(source, bar)
            if "error" in row:
                bar.write(plain(f"failed: {row['video_path']}: {row['error']}"), file=sys.stderr)


def share_stretches(worker, jobs, frames: dict, most: int) -> None:
    """Share out stretches of the videos of more than `most` frames; keep what is found in them.

    Scoring such a video afterwards only reads what was kept.
    """
    from human_anomaly.data.video import VideoError
    from human_anomaly.models.scoring.worker import join, split

    stretches = split(frames, most, worker.scorer.batch_size * worker.scorer.stride)
    for stretch in tqdm(stretches[rank() :: world_size()], unit="stretch", disable=rank() != 0):
        with suppress(VideoError):  # scoring the video raises it again, and reports it
            worker.keep(stretch)
    gather_objects([])  # wait for the others
    decide_in_first(lambda: join(stretches, jobs))


def score_on_ray(args, options: dict, jobs, evidence, frames: dict) -> list[str]:
    """Score the videos `frames` in a Ray cluster's actors; return the evidence that was lost."""
    from human_anomaly.data.runs.on_ray import ray_actors
    from human_anomaly.models.device import frames_per_batch
    from human_anomaly.models.scoring import worker

    lost = []
    with ray_actors(args.ray, device=args.device, cores=args.actor_cores) as actors:
        batch_size = args.batch_size or frames_per_batch(actors.device, args.fast)
        options |= {"device": actors.device, "batch_size": batch_size, "cores": actors.cores}
        logger.info(f"{actors.count} actors of the Ray cluster score {len(frames)} videos")
        if args.split_frames:
            stretches = worker.split(frames, args.split_frames, batch_size * args.frame_stride)
            make = partial(worker.ray_stretch_worker, options, jobs)
            for _ in tqdm(actors.map(make, stretches, jobs), total=len(stretches)):
                pass  # errors are raised again, and reported, when the video is scored
            worker.join(stretches, jobs)
        make = partial(worker.ray_worker, options, jobs, evidence)
        found = actors.map(make, list(frames), jobs)
        for source, unwritten, error in tqdm(found, total=len(frames), unit="video"):
            if error is not None:
                jobs.finish(source, {"video_path": str(source.path), "error": error})
            lost += unwritten or []
    return lost


def merge(jobs, sources: Sequence, unusable: Sequence, settings: dict, add: bool) -> dict:
    """Write scores.json from the rows of all finished videos; return its content."""
    from human_anomaly.models.scoring.results import SCORES, mean_known

    items = jobs.items()
    stems = [source.stem for source in sources]
    others = [stem for stem in items if stem not in set(stems)] if add else []
    rows = [items[stem]["row"] for stem in (*others, *stems)]
    failed = [{"video_path": path, "error": error} for path, error in unusable]
    failed += [row for row in rows if "error" in row]
    videos = [row for row in rows if "error" not in row]
    dtypes = sorted({row["dtype"] for row in videos})  # --fast chooses by machine
    scores = {
        "version": 1,
        "settings": settings | {"dtype": ", ".join(dtypes)},
        "mean": {key: mean_known([row[key] for row in videos]) for key in SCORES},
        "videos": videos,
        "failed": failed,
    }
    write_json(jobs.folder / "scores.json", scores)
    return scores


def scorer_options(args: argparse.Namespace, weights, config) -> dict:
    """Return the arguments of `VideoScorer.from_files`."""
    return {
        "detector_config": weights.detector_config,
        "detector_weights": weights.detector_weights,
        "models": weights.models,
        "config": config,
        "device": args.device,
        "batch_size": args.batch_size,
        "stride": args.frame_stride,
        "fps": args.fps,
        "fast": args.fast,
        "compile": args.compile,
    }


def open_results(args: argparse.Namespace, jobs, sources: Sequence, done: Sequence, held) -> dict:
    """Lock the folder until `held` ends and clear it; return {video to score: its frames}."""
    from human_anomaly.data.video import count_frames

    held.enter_context(jobs.open())
    jobs.clear(sources, overwrite=args.overwrite)
    todo = [source for source in sources if source not in done]
    if args.ray and not args.split_frames:  # a million videos take an hour to be counted
        return dict.fromkeys(todo, 1)
    return {source: count_frames(source) for source in todo}


def score(args: argparse.Namespace, scorer, options: dict, jobs, evidence, frames: dict) -> list:
    """Score the videos `frames`, with the other processes; return what Ray could not write."""
    from human_anomaly.data.runs.jobs import share
    from human_anomaly.models.scoring.worker import VideoWorker

    if args.ray:
        return score_on_ray(args, options, jobs, evidence, frames)
    worker = VideoWorker(scorer, jobs, evidence)
    if args.split_frames and world_size() > 1:
        share_stretches(worker, jobs, frames, args.split_frames)
    score_here(worker, share(frames), frames, args.frame_stride)
    return []


def run(args: argparse.Namespace, weights, config) -> int:
    """Score what is not finished in the output folder, then merge; return the exit status."""
    from human_anomaly.data.runs.jobs import JobFolder
    from human_anomaly.data.video import find_sources
    from human_anomaly.models.report.evidence import Evidence
    from human_anomaly.models.report.page import build_report
    from human_anomaly.models.scoring.results import is_below, print_scores
    from human_anomaly.models.scoring.scorer import VideoScorer
    from human_anomaly.models.scoring.worker import explainer

    # Find the inputs and the folder.
    sources, unusable = find_sources(args.video)
    settings = describe(args, weights, config)
    files = [version(path) for path in (weights.detector_weights, *weights.models.values())]
    jobs = JobFolder(args.output or default_output(args.video), settings | {"files": files})
    decide_in_first(lambda: jobs.refuse_conflict(sources, add=args.add, overwrite=args.overwrite))
    sources = jobs.distinct(sources)
    evidence = None
    if args.annotate or args.report:
        options = {"stride": args.frame_stride, "fps": args.fps, "report": args.report}
        evidence = Evidence(jobs.folder, thresholds(config), **options)

    # Find what is not finished; load the networks only for that.
    rows = [] if args.overwrite else [(source, jobs.row(source)) for source in sources]
    done = [source for source, row in rows if row and "error" not in row]
    unseen = [source for source in done if evidence and evidence.missing(source)]
    if done:
        logger.info(f"{len(done)} of {len(sources)} videos are scored already")
    scorer, options = None, scorer_options(args, weights, config)
    if (len(done) < len(sources) and not args.ray) or unseen:
        scorer = VideoScorer.from_files(**options | ({"device": "cpu"} if args.ray else {}))

    with ExitStack() as held:
        # Score the videos, then complete the evidence of earlier ones.
        frames = decide_in_first(lambda: open_results(args, jobs, sources, done, held))
        lost = score(args, scorer, options, jobs, evidence, frames) if frames else []
        if unseen:
            evidence.explain = explainer(scorer)
        for source in unseen[rank() :: world_size()]:
            evidence.catch_up(source)

        # Merge when all processes are done.
        lost = gather_objects(lost + (evidence.failed if evidence else []))
        if rank() != 0:
            return 0
        scores = merge(jobs, sources, unusable, settings, args.add)
        print_scores(scores, jobs.folder / "scores.json")
        if args.report:
            print(f"report: {build_report(jobs.folder)}")
    below = args.min_score is not None and is_below(scores["mean"], *args.min_score)
    return 1 if scores["failed"] or any(lost) else 3 if below else 0


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    if args.ray:
        be_the_only_process()
    setup_logging()
    quiet_libraries()
    from human_anomaly.models.weights import choose_weights

    weights = choose_weights(
        parts=args.parts,
        cfg=args.cfg,
        detector_config=args.detector_config,
        detector_weights=args.detector_weights,
        models={part: getattr(args, f"{part}_model") for part in args.parts},
        release=args.release,
    )
    if args.video is None:
        logger.info("no --video given: scoring the demo's videos")
        args.video, args.output = [str(ROOT / "demo/videos")], args.output or "results/demo"
    config = get_config(weights.cfg, args.opts)
    try:
        with process_group():
            return run(args, weights, config)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        logger.error(f"{where}{error.strerror or error}; what is finished is kept")
        return 1


if __name__ == "__main__":
    run_main(main)

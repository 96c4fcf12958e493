"""Draw videos with known truth: `python -m demo.world --output DIR --videos 20 --seed 0`.

Writes DIR/<name>.mp4 and DIR/truth.jsonl. Video i is drawn from the seed `--seed` + i and is named
after it; what is there already is kept, so the same command continues an interrupted run.
"""

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from utils import UsageError, read_jsonl, write_jsonl

from .anomalies import KINDS, PART_OF


def parse_args(argv=None):
    """The command line; wrong values end with status 2."""
    parser = argparse.ArgumentParser(prog="python -m demo.world", description=__doc__)
    words = ["random", "none", *KINDS, *PART_OF]
    parser.add_argument("--output", type=Path, required=True, help="folder for videos and truth")
    parser.add_argument("--videos", type=int, default=20, help="how many videos (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first video (default 0)")
    parser.add_argument(
        "--anomaly",
        default="random",
        choices=words,
        metavar="WORD",
        help=f"what one person shows (random: in half of the videos): {', '.join(words)}",
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that draw (default 1)")
    args = parser.parse_args(argv)
    for flag in ("videos", "workers"):
        if getattr(args, flag) < 1:
            parser.error(f"--{flag}: expected 1 or more, got {getattr(args, flag)}")
    if args.seed < 0:
        parser.error(f"--seed: expected 0 or more, got {args.seed}")
    return args


def video_name(seed, anomaly):
    """File name of a video; it holds all that decides the content."""
    return f"figures_{seed:06d}{'' if anomaly == 'random' else '_' + anomaly}.mp4"


def write_video(path, frames, fps):
    """Write BGR frames as MPEG-4 at once; RuntimeError if OpenCV cannot."""
    import cv2

    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    writer = None
    try:
        for frame in frames:
            if writer is None:
                size = frame.shape[1::-1]
                writer = cv2.VideoWriter(str(part), cv2.VideoWriter_fourcc(*"mp4v"), fps, size)
                if not writer.isOpened():
                    raise RuntimeError(f"{path}: this OpenCV cannot write mp4v")
            writer.write(frame)
        if writer is not None:
            writer.release()
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def draw_one(job):
    """Draw and write one video; `job`: (folder, seed, anomaly). Returns its rows of the truth."""
    import cv2

    from .video import FPS, iter_video

    cv2.setNumThreads(1)
    folder, seed, anomaly = job
    name = video_name(seed, anomaly)
    rows = []

    def frames():
        wanted = None if anomaly == "none" else anomaly
        for index, (frame, people) in enumerate(iter_video(seed, anomaly=wanted)):
            rows.append({"video": name, "frame": index, "people": people})
            yield frame

    write_video(folder / name, frames(), FPS)
    return rows


def run(args):
    """Draw what is missing and write the truth, also when interrupted."""
    from tqdm import tqdm

    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "truth.jsonl"
    rows = {}
    for row in read_jsonl(path) if path.exists() else []:
        rows.setdefault(row["video"], []).append(row)
    done = {name for name in rows if (args.output / name).exists()}
    seeds = range(args.seed, args.seed + args.videos)
    jobs = [(args.output, s, args.anomaly) for s in seeds]
    jobs = [job for job in jobs if video_name(*job[1:]) not in done]

    def save():
        write_jsonl(path, (row for name in sorted(rows) for row in rows[name]))

    spawn = get_context("spawn")  # forking a process that has threads may hang
    with ProcessPoolExecutor(args.workers, spawn) if args.workers > 1 else _Here() as pool:
        results = pool.map(draw_one, jobs)
        bar = tqdm(results, total=args.videos, initial=args.videos - len(jobs), unit="video")
        try:
            for count, video in enumerate(bar, 1):
                rows[video[0]["video"]] = video
                if count % 20 == 0:
                    save()
        finally:
            save()


class _Here:
    """A pool without processes."""

    map = staticmethod(map)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


def main(argv=None):
    """Run the command line; returns the exit status."""
    args = parse_args(argv)
    try:
        run(args)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    except (OSError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

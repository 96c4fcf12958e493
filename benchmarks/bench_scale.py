"""What a whole scoring command costs: start-up, length of a video, processes; demo weights, CPU.

    python -m benchmarks.bench_scale [--repeat 3] [start-up] [length] [processes]

Every row is the median of `--repeat` runs of inference.py (or torchrun) from the shell. `taskset`
binds processes to cores. The rows of a table score the same frames.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.machine import describe
from human_anomaly.utils import read_jsonl

ROOT = Path(__file__).resolve().parents[1]
VIDEOS = ROOT / "demo" / "videos"
LENGTHS = (20, 200, 2000)
TABLES = ("start-up", "length", "processes")


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("tables", nargs="*", default=list(TABLES), help=f"{', '.join(TABLES)} (all)")
    p.add_argument("--repeat", type=int, default=3, help="runs per row (3)")
    p.add_argument("--clip", type=int, default=120, help="frames of each of four clips (120)")
    text = "more flags of inference.py, such as detector-config=FILE"
    p.add_argument("--flags", nargs="+", default=[], metavar="FLAG=VALUE", help=text)
    text = "what start-up scores: seeded weights find hundreds of people in a real frame (demo)"
    p.add_argument("--frame", choices=("demo", "blank"), default="demo", help=text)
    args = p.parse_args()
    if wrong := set(args.tables) - set(TABLES):
        p.error(f"expected tables of {', '.join(TABLES)}, got {', '.join(sorted(wrong))}")
    args.flags = [word for flag in args.flags for word in f"--{flag}".split("=", 1)]
    return args


def score(videos: list[Path], output: Path, flags: list[str], *, processes=1, cores=None):
    """Run the command; return (wall seconds, seconds of the videos, their frames)."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launch if processes > 1 else []), ROOT / "inference.py"]
    command += ["--video", *videos, "--output", output, "--overwrite", "--device", "cpu", *flags]
    held = ["taskset", "-c", cores] if cores else []
    start = time.perf_counter()
    done = subprocess.run([*held, *map(str, command)], capture_output=True, text=True, cwd=ROOT)
    wall = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"inference.py ended with status {done.returncode}: {done.stderr[-500:]}")
    rows = json.loads((output / "scores.json").read_text())["videos"]
    return wall, sum(row["seconds"] for row in rows), sum(row["frames"] for row in rows)


def frames_of(path: Path) -> list:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames


def loop(path: Path, frames: list, count: int) -> Path:
    """Write a video of `count` frames: `frames` again and again."""
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 24, (width, height))
    for i in range(count):
        writer.write(frames[i % len(frames)])
    writer.release()
    return path


def start_up(args, folder: Path) -> None:
    blank = np.full((64, 64, 3), 114, np.uint8)
    frame = blank if args.frame == "blank" else frames_of(sorted(VIDEOS.glob("*.mp4"))[0])[0]
    cv2.imwrite(str(folder / "frame.png"), frame)
    runs = [score([folder / "frame.png"], folder / "out", args.flags) for _ in range(args.repeat)]
    wall = statistics.median(wall for wall, *_ in runs)
    before = statistics.median(wall - seconds for wall, seconds, _ in runs)
    print(f"start-up to the first frame {before:.2f} s; with one frame scored {wall:.2f} s\n")


def length(args, folder: Path) -> None:
    frames = frames_of(VIDEOS / "normal_1.mp4")
    print("| frames | s | s per frame |\n|---|---|---|")
    costs = []
    for count in LENGTHS:
        video = loop(folder / f"{count}.mp4", frames, count)
        runs = [score([video], folder / "out", args.flags) for _ in range(args.repeat)]
        seconds = statistics.median(seconds for _, seconds, _ in runs)
        costs.append(seconds / runs[0][2])
        print(f"| {runs[0][2]} | {seconds:.1f} | {costs[-1]:.4f} |", flush=True)
    change = costs[-1] / costs[-2] - 1
    print(f"\ns per frame of the longest video against the second longest: {change:+.1%}\n")


def processes(args, folder: Path) -> None:
    videos = [
        loop(folder / path.name, frames_of(path), args.clip)
        for path in sorted(VIDEOS.glob("*.mp4"))
    ]
    ways = {
        "one process, one core": {"cores": "0"},
        "two processes, one core each": {"processes": 2, "cores": "0,1"},
        "one process, two cores": {"cores": "0,1"},
    }
    walls, found = {}, []
    print(f"{len(videos)} clips of {args.clip} frames\n")
    print("| way | wall s | against one core |\n|---|---|---|")
    for name, way in ways.items():
        runs = [score(videos, folder / name, args.flags, **way) for _ in range(args.repeat)]
        walls[name] = statistics.median(wall for wall, *_ in runs)
        rows = {p.name: read_jsonl(p) for p in (folder / name).glob("*.frames.jsonl")}
        found.append(rows)
        ratio = next(iter(walls.values())) / walls[name]
        print(f"| {name} | {walls[name]:.2f} | {ratio:.2f}x |", flush=True)
    same = all(rows == found[0] for rows in found)
    print(f"\nframes.jsonl of all ways: {'the same' if same else 'DIFFERENT'}\n")


def main() -> None:
    args = parse_args()
    print(f"{describe(torch.device('cpu'))}; median of {args.repeat}\n", flush=True)
    for name in args.tables:
        with tempfile.TemporaryDirectory() as folder:
            {"start-up": start_up, "length": length, "processes": processes}[name](
                args, Path(folder)
            )


if __name__ == "__main__":
    main()

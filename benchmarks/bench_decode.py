"""Time and memory of decoding alone, and whole runs of two versions, side by side in one run.

    python benchmarks/bench_decode.py time               # the reader and OpenCV, 1080p H.264
    python benchmarks/bench_decode.py memory             # 2,000 frames of 1080p, then 8K
    python benchmarks/bench_decode.py runs --before DIR  # inference.py here and in a checkout

Times are medians of rounds that alternate between the two.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from human_anomaly.data.sources import Source
from human_anomaly.data.stream import prefetch
from human_anomaly.data.video import FrameReader
from tests.videos import encode

ROOT = Path(__file__).resolve().parents[1]


def moving(count: int, width: int, height: int):
    """Yield pictures with edges, gradients and grain that move."""
    grain = np.random.default_rng(0).integers(0, 24, (height, width, 3), np.uint8)
    ramp = np.linspace(0, 180, width, dtype=np.uint8)[None, :, None]
    base = np.repeat(np.repeat(ramp, height, 0), 3, 2) + grain
    for i in range(count):
        image = np.roll(base, 7 * i, 1)
        image[height // 4 : height // 2, (11 * i) % (width // 2) :][:, : width // 4] ^= 0x55
        yield image


def by_reader(path: Path) -> int:
    return sum(1 for _ in FrameReader(Source(path, path.stem)))


def by_opencv(path: Path) -> int:
    capture, count = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), 0
    while capture.read()[0]:
        count += 1
    return count


def measure(read: Callable[[Path], int], path: Path) -> tuple[float, float]:
    """Return milliseconds a frame, of time and of all cores."""
    start, cpu = time.perf_counter(), time.process_time()
    frames = read(path)
    return (
        1000 * (time.perf_counter() - start) / frames,
        1000 * (time.process_time() - cpu) / frames,
    )


def compare_times(rounds: int, frames: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mp4"
        encode(path, moving(frames, 1920, 1080), "libx264", preset="medium", g="48")
        readers = {"reader": by_reader, f"OpenCV {cv2.__version__}": by_opencv}
        found: dict[str, list] = {name: [] for name in readers}
        for _ in range(rounds):
            for name, read in readers.items():
                found[name].append(measure(read, path))
    for name, figures in found.items():
        wall, cpu = (round(statistics.median(column), 2) for column in zip(*figures, strict=True))
        spread = [round(f(wall for wall, _ in figures), 2) for f in (min, max)]
        print(json.dumps({"by": name, "ms a frame": wall, "spread": spread, "ms of CPU": cpu}))


def peak() -> float:
    """Return the most memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def now() -> float:
    """Return the memory that this process holds, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def read_slowly(path: Path) -> dict:
    """Read ahead as scoring does, with a consumer that is slower; return memory by frame."""
    held, source = {}, Source(path, path.stem)
    for frame in prefetch(FrameReader(source), 32):
        if frame.index % 250 == 50 or frame.index < 10:
            time.sleep(0.2)
            held[frame.index] = round(now())
    return held


def show_memory(frames: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for size, count in ((1920, 1080), frames), ((7680, 4320), 24):
            path = Path(folder) / f"{size[0]}.mp4"
            making = [
                sys.executable,
                "-m",
                __spec__.name,
                "make",
                "--file",
                str(path),
                "--frames",
                str(count),
            ]
            subprocess.run([*making, "--size", *map(str, size)], check=True)
            reading = [sys.executable, "-m", __spec__.name, "read", "--file", str(path)]
            subprocess.run(reading, check=True)


def compare_runs(before: Path, rounds: int, video: str) -> None:
    found: dict[str, list[float]] = {"before": [], "now": []}
    for _ in range(rounds):
        for name, folder in ("before", before), ("now", ROOT):
            with tempfile.TemporaryDirectory() as output:
                words = ["inference.py", "--video", video, "--output", output, "--overwrite"]
                run = [sys.executable, *words]
                subprocess.run(run, cwd=folder, check=True, capture_output=True)
                rows = json.loads((Path(output) / "scores.json").read_text())["videos"]
                found[name].append(sum(row["seconds"] for row in rows))
    for name, seconds in found.items():
        print(json.dumps({"code": name, "seconds": [round(s, 2) for s in seconds]}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("time", "memory", "runs", "make", "read"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, help="frames of the 1080p video (240; memory 2000)")
    parser.add_argument("--before", type=Path, help="checkout of the other version")
    parser.add_argument("--video", default=str(ROOT / "demo/videos"))
    parser.add_argument("--file", type=Path, help="only for make and read, which `memory` runs")
    parser.add_argument("--size", type=int, nargs=2)
    args = parser.parse_args()
    if args.what == "time":
        compare_times(args.rounds, args.frames or 240)
    elif args.what == "memory":
        show_memory(args.frames or 2000)
    elif args.what == "make":
        encode(args.file, moving(args.frames, *args.size), "libx264", preset="ultrafast", g="48")
    elif args.what == "read":
        start = now()
        held = read_slowly(args.file)
        figures = {"MiB at the start": round(start), "by frame": held, "peak": round(peak())}
        print(json.dumps({"file": args.file.stem, **figures}))
    else:
        compare_runs(args.before, args.rounds, args.video)


if __name__ == "__main__":
    main()

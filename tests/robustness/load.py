"""Score for long, or many videos, with the demo's weights, and watch memory and open files.

python tests/robustness/load.py frames --minutes 30
python tests/robustness/load.py videos 1000
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import cv2
import numpy as np
import torch
from clips import write_clip
from test_same_results import demo_scorer

ROOT = Path(__file__).resolve().parents[2]
EVERY, WARM = 30, 120  # seconds: between two looks, and before the first that counts


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident() -> float:
    """Return the MiB of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def slope(hours: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Return the slope per hour of a straight line through the values, and its standard error."""
    away = hours - hours.mean()
    found = (away @ values) / (away @ away)
    rest = values - values.mean() - found * away
    return float(found), float(np.sqrt(rest @ rest / (len(values) - 2) / (away @ away)))


def score_frames(minutes: float) -> None:
    """Score the same frames again and again on one core; print the slopes."""
    torch.set_num_threads(1)
    video = cv2.VideoCapture(str(ROOT / "demo/videos/hand_fused.mp4"))
    clip = np.stack([video.read()[1][::2, ::2, ::-1] for _ in range(8)])
    scorer, looks, scored = demo_scorer(2), [], 0
    start = time.monotonic()
    while (now := time.monotonic() - start) < 60 * minutes:
        scored += len(scorer.score_frames([clip])[0].frames)
        if now > WARM + EVERY * len(looks):
            looks.append((now / 3600, resident(), open_files()))
            print(json.dumps([round(now), *looks[-1][1:]]), flush=True)
    hours, memory, files = np.array(looks).T
    print(json.dumps({"minutes": minutes, "frames": scored, "looks": len(looks)}))
    for name, values in (("MiB", memory), ("files", files)):
        found, error = slope(hours, values)
        print(f"{name} per hour: {found:.2f} +- {error:.2f}")


def score_videos(count: int) -> None:
    """Score `count` short videos in one run of inference.py; each must have a row."""
    with tempfile.TemporaryDirectory() as folder:
        videos, output = Path(folder) / "videos", Path(folder) / "out"
        videos.mkdir()
        first = write_clip(videos / "0000.mp4", 2)
        for number in range(1, count):
            (videos / f"{number:04d}.mp4").write_bytes(first.read_bytes())
        words = [sys.executable, "inference.py", "--video", str(videos), "--output", str(output)]
        start = time.monotonic()
        status = subprocess.run(words, cwd=ROOT, capture_output=True).returncode
        scores = json.loads((output / "scores.json").read_text())
        rows, failed = len(scores["videos"]), len(scores["failed"])
        seconds = round(time.monotonic() - start)
        print(json.dumps({"status": status, "rows": rows, "failed": failed, "seconds": seconds}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("frames", "videos"))
    parser.add_argument("count", type=int, nargs="?", default=1000)
    parser.add_argument("--minutes", type=float, default=30)
    args = parser.parse_args()
    score_frames(args.minutes) if args.kind == "frames" else score_videos(args.count)


if __name__ == "__main__":
    main()

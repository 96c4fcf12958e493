"""Frames in memory: many clips in one call of `score_frames` against one call for each clip.

    python -m benchmarks.bench_clips [--clips 64] [--frames 16] [--device auto] [--repeat 3]

The clips are cut from the demo's videos, and both ways are timed in turn after one warm-up call.
"""

import argparse
import statistics
import time

import numpy as np
import torch

from benchmarks.machine import describe
from human_anomaly.configs.places import ROOT
from human_anomaly.data.video import FrameReader, Source
from human_anomaly.hubconf import human_anatomy
from human_anomaly.models.device import choose_device


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--clips", type=int, default=64, help="clips (64)")
    p.add_argument("--frames", type=int, default=16, help="frames of a clip (16)")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda (auto)")
    p.add_argument("--fast", action="store_true", help="score as inference.py --fast does")
    p.add_argument("--repeat", type=int, default=3, help="runs of each way (3)")
    return p.parse_args()


def cut_clips(count: int, length: int, device: torch.device) -> list[torch.Tensor]:
    """Return clips (length, H, W, 3) uint8 RGB on the device, from the demo's videos in turn."""
    clips = []
    videos = sorted((ROOT / "demo/videos").glob("*.mp4"))
    frames = [[f.image[:, :, ::-1] for f in FrameReader(Source(v, v.stem))] for v in videos]
    for number in range(count):
        of, start = frames[number % len(frames)], number // len(frames)
        clip = np.stack([of[(start + i) % len(of)] for i in range(length)])
        clips.append(torch.from_numpy(clip).to(device))
    return clips


def main() -> None:
    args = parse_args()
    device = choose_device(args.device)
    scorer = human_anatomy("demo", args.device, fast=args.fast)
    clips = cut_clips(args.clips, args.frames, device)
    ways = {
        "one call": lambda: scorer.score_frames(clips),
        "one call for each clip": lambda: [scorer.score_frames(clip) for clip in clips],
    }
    scorer.score_frames(clips[:2])
    seconds = {name: [] for name in ways}
    for _ in range(args.repeat):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    print(f"{args.clips} clips of {args.frames} frames, demo weights; {describe(device)}")
    print("| way | median s | min | max | frames/s |\n|---|---|---|---|---|")
    for name, times in seconds.items():
        median = statistics.median(times)
        rate = args.clips * args.frames / median
        print(f"| {name} | {median:.2f} | {min(times):.2f} | {max(times):.2f} | {rate:.1f} |")


if __name__ == "__main__":
    main()

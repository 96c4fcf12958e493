"""How exact the detector is with Winograd's method: its distance from the same network in float64.

    python -m benchmarks.winograd_error --video clip.mp4 --size xl [--frames 3]

Largest differences over all places of the frames: of a box's sides in pixels of the letterboxed
frame, and of a score. Rows: direct convolutions, the usual points, and those of models/winograd.py.
"""

import argparse
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.bench_scoring import ROOT, detector_files, write_weights
from human_anomaly.configs.parts import BASE_PARTS
from human_anomaly.data.video import FrameReader, Source
from human_anomaly.models.cpu import winograd
from human_anomaly.models.detector import prompt_set
from human_anomaly.models.yolo_world.predictor import Options, Predictor
from human_anomaly.utils import quiet_libraries

USUAL = (0, 1, -1, 2, -2)


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--video", type=Path, required=True)
    p.add_argument("--size", default="xl", choices=("s", "xl", "demo"))
    p.add_argument("--frames", type=int, default=3, help="its first frames (3)")
    p.add_argument("--least-channels", type=int, default=winograd.LEAST_CHANNELS)
    args = p.parse_args()
    args.weights = ROOT / "build" / "bench"
    return args


def build(args: argparse.Namespace, least_channels: int) -> Predictor:
    """Return the detector, whose layers of at least `least_channels` use Winograd's method."""
    with patch.object(winograd, "LEAST_CHANNELS", least_channels):
        texts = tuple(prompt_set(BASE_PARTS, "frame"))
        return Predictor(*detector_files(args), texts, options=Options(batch_size=1))


@torch.inference_mode()
def outputs(predictor: Predictor, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distances (N,) of boxes' sides from their places, in pixels, and scores (M,)."""
    texts = predictor.embeddings[None].to(pictures.dtype)
    logits, distances = predictor.raw(pictures, texts)
    strides = predictor.model.bbox_head.featmap_strides
    sides = [(x * stride).flatten() for x, stride in zip(distances, strides, strict=True)]
    return torch.cat(sides), torch.cat([x.flatten() for x in logits]).sigmoid()


def main() -> None:
    args = parse_args()
    quiet_libraries()
    write_weights(args.weights, args.size)
    never = 1 << 30
    exact = build(args, never)
    frames = islice(FrameReader(Source(args.video, "video")), args.frames)
    pictures = [exact.letterbox(frame.image)[0] for frame in frames]
    pictures = [exact.batch([picture]) for picture in pictures]
    found = {"direct": [outputs(exact, x) for x in pictures]}
    for name, points in (("usual points", USUAL), ("as it is", winograd.POINTS)):
        with patch.object(winograd, "POINTS", points):
            predictor = build(args, args.least_channels)
        found[name] = [outputs(predictor, x) for x in pictures]
    exact.model.double()
    with patch.object(Tensor, "float", Tensor.double):  # the head computes in float32 by itself
        expected = [outputs(exact, x.double()) for x in pictures]
    layers = sum(isinstance(m, winograd.WinogradConv2d) for m in predictor.model.modules())
    print(f"size {args.size}, {len(pictures)} frames, {layers} layers use Winograd's method\n")
    print("| convolutions | box, pixels | score |\n|---|---|---|")
    for name, ours in found.items():
        pairs = zip(ours, expected, strict=True)
        worst = [
            [(x - y).abs().max().item() for x, y in zip(one, other, strict=True)]
            for one, other in pairs
        ]
        print(f"| {name} | {max(w[0] for w in worst):.4f} | {max(w[1] for w in worst):.0e} |")


if __name__ == "__main__":
    main()

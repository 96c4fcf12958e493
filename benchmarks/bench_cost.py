"""Estimates what a million clips cost on GPUs: CPU work is measured here, GPU rates are not.

    python -m benchmarks.bench_cost --video clip.mp4

The video's frames are repeated and encoded as clips of five seconds. CPU seconds are those of all
threads, so a busy machine changes them little. `RATES` says where the GPU's rates come from.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import torch
from PIL import Image

from benchmarks.bench_scale import frames_of
from benchmarks.machine import describe
from human_anomaly.data.crops import cut, square_box
from human_anomaly.data.transforms import EvalTransform
from human_anomaly.data.video import FrameReader, Source
from human_anomaly.models.yolo_world.letterbox import Letterbox

CLIPS, FRAMES, FPS = 1_000_000, 120, 24
PEOPLE, PARTS = 2, 4  # people a frame; each a body, a face and two hands
SIZES = {"720p": (1280, 720), "1080p": (1920, 1080)}
# Detector passes at 640x640 and ViT-B crops a second of one GPU, none of them measured here.
RATES = {
    "float32 at 60% of an H100's 67 TFLOP/s (390 and 35 GFLOP)": (103, 1149),
    "the aim for one H100, bf16": (500, 6000),
    # YOLOv10x: 1971 images/s on a B200, 160.4 GFLOP; times 160.4/390. BEiT-B: on an RTX PRO 6000.
    "published for like networks, by FLOP": (811, 4717),
}


def encode(path: Path, frames: list, size: tuple[int, int]) -> Path:
    """Write a clip in H.264 of medium quality, the frames forwards and backwards in turn."""
    resized = [cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in frames]
    there_and_back = resized + resized[-2:0:-1]
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", FPS, options={"crf": "23"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for i in range(FRAMES):
            image = there_and_back[i % len(there_and_back)]
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, "bgr24")))
        file.mux(stream.encode())
    return path


def cpu_seconds(work: Callable[[], object], times: int = 3) -> float:
    """Return the least CPU seconds of this process for `work`."""
    spent = []
    for _ in range(times):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return min(spent)


def measure(path: Path) -> dict[str, float]:
    """Return CPU seconds a frame: decoding, the detector's squares, the classifiers' crops."""
    source = Source(path, path.stem)
    image = next(iter(FrameReader(source))).image
    height, width = image.shape[:2]
    person = cut(image, (width // 4, height // 8, width // 2, height))
    squares = [
        square_box((x, height / 4, x + side, height / 4 + 2 * side), width, height)
        for side in (width / 4, width / 20, width / 24, width / 24)
        for x in (width / 8, width / 2)
    ]
    letterbox, transform = Letterbox((640, 640)), EvalTransform()

    def prepare() -> None:
        for one in (image, *[person] * PEOPLE):
            pixels, _ = letterbox(one)
            torch.from_numpy(pixels).permute(2, 0, 1).float().div_(255)

    def resize() -> None:
        for square in squares:
            transform.pixels(Image.fromarray(cut(image, square)))

    return {
        "decode": cpu_seconds(lambda: sum(1 for _ in FrameReader(source))) / FRAMES,
        "letterbox": cpu_seconds(lambda: [prepare() for _ in range(20)]) / 20,
        "crops": cpu_seconds(lambda: [resize() for _ in range(20)]) / 20,
    }


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--video", required=True, help="frames to make clips of")
    args = p.parse_args()
    torch.set_num_threads(1)
    print(f"{describe(torch.device('cpu'))}; {PEOPLE} people a frame, {FRAMES} frames a clip\n")
    print(
        "| measured: CPU ms a frame | decode | letterbox | crops | together | frames/s a core, "
        "decode | all | MB a clip |\n|---|---|---|---|---|---|---|---|"
    )
    costs, megabytes = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, size in SIZES.items():
            path = encode(Path(folder) / f"{name}.mp4", frames_of(Path(args.video)), size)
            found, megabytes[name] = measure(path), path.stat().st_size / 1e6
            costs[name] = sum(found.values())
            spent = " | ".join(f"{1000 * s:.1f}" for s in (*found.values(), costs[name]))
            print(
                f"| {name} | {spent} | {1 / found['decode']:.0f} | {1 / costs[name]:.0f} "
                f"| {megabytes[name]:.1f} |",
                flush=True,
            )
    print(
        f"\n| estimated for {CLIPS:,} clips | passes/s | crops/s | s a clip | hours on 8 GPUs "
        "| on 64 | frames/s a GPU | cores a GPU, 720p | 1080p | MB/s read by 64, 720p |\n"
        "|---|---|---|---|---|---|---|---|---|---|"
    )
    for name, (passes, crops) in RATES.items():
        seconds = FRAMES * (1 + PEOPLE) / passes + FRAMES * PEOPLE * PARTS / crops
        hours = " | ".join(f"{CLIPS * seconds / 3600 / gpus:.1f}" for gpus in (8, 64))
        cores = " | ".join(f"{FRAMES / seconds * cost:.1f}" for cost in costs.values())
        print(
            f"| {name} | {passes} | {crops} | {seconds:.2f} | {hours} | {FRAMES / seconds:.0f} "
            f"| {cores} | {64 / seconds * megabytes['720p']:.0f} |"
        )


if __name__ == "__main__":
    main()

"""What cropping costs: crops per second, and the shares of decoding, detection and encoding.

    python -m benchmarks.bench_preprocess --video clip.mp4 --size s

Weights are random, so what the network finds means nothing. After the real passes have run, a fixed
list of people, each with a face and two hands, takes the place of its boxes. Each stage runs alone
first, then all of them together as in preprocess.py. Shares are of CPU seconds, which depend little
on what else the machine does. Without `--video`, one of 1280x720 is drawn.
"""

import argparse
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from benchmarks.bench_scoring import CONFIG, FixedPeople, FixedPredictor, write_weights
from benchmarks.machine import describe
from human_anomaly import preprocess
from human_anomaly.configs.defaults import PARTS, get_config
from human_anomaly.configs.machine import cores_per_process
from human_anomaly.data.cropping.crop_folder import CropFolder
from human_anomaly.data.cropping.cropper import Cropper, CropWriter
from human_anomaly.data.crops import cut
from human_anomaly.data.stream import batched
from human_anomaly.data.video import FrameReader, Source
from human_anomaly.models import detector as detection
from human_anomaly.models.device import choose_device
from human_anomaly.utils import quiet_libraries

ROOT = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--video", type=Path, help="the video to crop (default: draw one)")
    p.add_argument("--people", type=int, default=2, help="people per frame (2)")
    p.add_argument("--size", default="s", choices=("s", "xl"), help="the detector's size (s)")
    p.add_argument("--format", default="jpg", choices=("jpg", "png"))
    p.add_argument("--batch-size", type=int, default=4)
    p.add_argument("--device", default="auto")
    p.add_argument("--weights", type=Path, default=ROOT / "build" / "bench", help="random weights")
    return p.parse_args()


def draw(folder: Path) -> Path:
    from human_anomaly.demo.world.__main__ import main

    main(["--output", str(folder), "--videos", "1", "--seed", "11"])
    return next(folder.glob("*.mp4"))


class Costs:
    """Wall and CPU seconds per stage."""

    def __init__(self):
        self.rows: dict[str, tuple[float, float]] = {}

    @contextmanager
    def stage(self, name: str):
        start = time.perf_counter(), time.process_time()
        yield
        self.rows[name] = time.perf_counter() - start[0], time.process_time() - start[1]

    def print(self) -> None:
        alone = {name: row for name, row in self.rows.items() if name != "together"}
        total = sum(cpu for _, cpu in alone.values())
        print(f"| {'stage':9} | wall s | CPU s | share of CPU |\n|---|---|---|---|")
        for name, (wall, cpu) in self.rows.items():
            share = f"{cpu / total:12.1%}" if name in alone else f"{'':12}"
            print(f"| {name:9} | {wall:6.2f} | {cpu:5.2f} | {share} |")


def load_detector(args: argparse.Namespace) -> tuple:
    """Return preprocess.py's detector and workers, the detector answering with fixed people."""
    people = FixedPeople([args.people])

    class FixedDetector(detection.PartDetector):
        def __init__(self, *files, **options):
            super().__init__(*files, **options)
            self.predictor = FixedPredictor(self.predictor, people)

    detection.PartDetector = FixedDetector
    options = SimpleNamespace(
        config=get_config(),
        detector_config=ROOT / CONFIG.format(args.size),
        detector_weights=args.weights / f"detector_{args.size}.pth",
        device=args.device,
        cores=None,
        batch_size=args.batch_size,
    )
    return preprocess.load_detector(options)


def build_cropper(detector: tuple, args, output: Path) -> Cropper:
    detect, workers = detector
    return Cropper(
        detect,
        CropWriter(output, threads=min(4, cores_per_process())),
        suffix=f".{args.format}",
        batch_size=args.batch_size,
        workers=workers,
    )


def measure(detector: tuple, source: Source, args, folder: Path) -> tuple[Costs, dict]:
    """Return the costs of each stage alone and of all together, and the run's summary."""
    costs = Costs()
    for part in PARTS:
        (folder / "alone" / part).mkdir(parents=True)
    cropper = build_cropper(detector, args, folder / "alone")
    frames = list(FrameReader(source))
    detector[0]([frames[0].image])  # the first call prepares things, so it is not measured
    with costs.stage("decode"):
        frames = list(FrameReader(source))
    with costs.stage("detect"):
        found = list(cropper.detected(batched(frames, args.batch_size)))
    squares = [
        (frame.image, part, square)
        for batch, results in found
        for frame, result in zip(batch, results, strict=True)
        for part, square in {(b.part, b.square) for p in result.people for b in p.parts}
    ]
    with costs.stage("encode"):
        for number, (image, part, square) in enumerate(squares):
            cropper.writer.write(f"{part}/{number}{cropper.suffix}", cut(image, square))
        cropper.writer.flush()
    output = CropFolder(folder / "together", {})
    together = build_cropper(detector, args, output.folder)
    with output.open(), costs.stage("together"):
        output.prepare(output.plan([source], None, overwrite=False))
        summary = output.crop(source, together, None)
    return costs, summary


def main() -> None:
    args = parse_args()
    quiet_libraries()
    write_weights(args.weights, args.size)
    detector = load_detector(args)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        video = args.video or draw(folder / "drawn")
        costs, summary = measure(detector, Source(video, video.stem), args, folder)
    seconds = costs.rows["together"][0]
    print(f"{describe(choose_device(args.device))}, {cores_per_process()} cores")
    print(
        f"{video.name}, size {args.size}: {summary['frames']} frames, {summary['people']} views, "
        f"{summary['crops']} crops in {seconds:.1f} s: {summary['crops'] / seconds:.1f} crops/s, "
        f"{seconds / summary['frames']:.2f} s a frame"
    )
    costs.print()


if __name__ == "__main__":
    main()

"""Scoring side by side: the original's serial way, exact mode, compiled exact mode, fast mode.

    python -m benchmarks.bench_scoring --video clip.mp4 --size xl --people 2

Weights are random, so what the networks find means nothing. After the real passes have run, a fixed
list of people, each with a face and two hands, takes the place of their boxes. Each mode runs in a
process of its own, in turn, `--repeat` times; the table shows medians.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.clips import shorten
from benchmarks.machine import describe, matrix_rate, peak_memory
from human_anomaly.configs.defaults import PARTS, get_config
from human_anomaly.configs.machine import cores_per_process
from human_anomaly.demo.paths import CONFIG as DEMO_CONFIG
from human_anomaly.demo.paths import DETECTOR_CONFIG, WEIGHTS
from human_anomaly.models.device import Stopwatch
from human_anomaly.utils import quiet_libraries

ROOT = Path(__file__).resolve().parents[1]
MODES = ("serial", "exact", "compile", "fast", "fast+compile")
STAGES = ("decode", "copy", "resize", "detect people", "detect parts", "nms", "classify")
CONFIG = (
    "third_party/YOLO-World/"
    "yolo_world_v2_{}_vlpan_bn_2e-3_100e_4x8gpus_obj365v1_goldg_train_lvis_minival.py"
)


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--video", type=Path, required=True, help="the video to score")
    p.add_argument(
        "--size", default="xl", choices=("s", "xl", "demo"), help="the detector's size (xl)"
    )
    p.add_argument(
        "--people", type=int, nargs="+", default=[2], help="people per frame, taken in turn (2)"
    )
    p.add_argument("--modes", nargs="+", default=["serial", "exact", "fast"], choices=MODES)
    p.add_argument("--repeat", type=int, default=1, help="processes per mode (1)")
    p.add_argument("--loops", type=int, default=1, help="times the video is scored in each (1)")
    p.add_argument("--batch-size", type=int, default=2)
    p.add_argument("--device", default="auto")
    p.add_argument("--weights", type=Path, default=ROOT / "build" / "bench", help="random weights")
    p.add_argument("--one", choices=MODES, help=argparse.SUPPRESS)
    return p.parse_args()


def config_of(args: argparse.Namespace):
    """Return the classifiers' settings: ViT-B, or the demo's small ones with `--size demo`."""
    return get_config(DEMO_CONFIG if args.size == "demo" else None)


def detector_files(args: argparse.Namespace) -> tuple[Path, Path]:
    """Return the detector's config and checkpoint."""
    if args.size == "demo":
        return DETECTOR_CONFIG, WEIGHTS / "detector.pth"
    return ROOT / CONFIG.format(args.size), args.weights / f"detector_{args.size}.pth"


def load_classifiers(args: argparse.Namespace) -> dict[str, torch.nn.Module]:
    """Return each part's classifier."""
    from human_anomaly.models.classifier import load_classifier

    folder = WEIGHTS if args.size == "demo" else args.weights
    config = config_of(args)
    return {p: load_classifier(folder / f"{p}.pth", config, args.device) for p in PARTS}


def write_weights(folder: Path, size: str, like: str = "pipeline_clip.expected.json") -> None:
    """Write random weights of detector and classifiers, by the settings in `like`."""
    if size == "demo":
        return
    sys.path.insert(0, str(ROOT / "tests" / "goldens"))
    import make_checkpoints

    folder.mkdir(parents=True, exist_ok=True)
    expected = json.loads((ROOT / "tests/goldens" / like).read_text())
    weights = expected["weights"] | {"bn": f"yolo_world_v2_{size}.bn.npz"}
    detector = folder / f"detector_{size}.pth"
    if not detector.is_file():
        state = make_checkpoints.detector_state(size, weights, ROOT / "tests/goldens")
        torch.save({"meta": {}, "state_dict": state}, detector)
    for part in PARTS:
        if not (folder / f"{part}.pth").is_file():
            state = make_checkpoints.classifier_state(part, weights)
            torch.save({"model": state}, folder / f"{part}.pth")


class FixedPeople:
    """The people of every frame, and a face and two hands in each person's crop.

    Frame i of `frames` has people[i % len(people)] of them, any other picture has people[0].
    """

    def __init__(self, people: Sequence[int], frames: Iterable[np.ndarray] = ()):
        self.people = people
        self.known = {zlib.crc32(frame): people[i % len(people)] for i, frame in enumerate(frames)}

    def boxes(self, frame: np.ndarray) -> np.ndarray:
        """Return (people, 4) xyxy: upright boxes beside each other."""
        height, width = frame.shape[:2]
        count = self.known.get(zlib.crc32(frame), self.people[0]) if self.known else self.people[0]
        step = width / max(count, 1)
        return np.array(
            [
                [step * (i + 0.2), 0.1 * height, step * (i + 0.8), 0.95 * height]
                for i in range(count)
            ],
            np.float32,
        ).reshape(-1, 4)

    @staticmethod
    def parts(crop: np.ndarray) -> list[tuple[str, list[float]]]:
        height, width = crop.shape[:2]
        places = (("face", 0.4, 0.02, 0.2), ("hand", 0.05, 0.5, 0.15), ("hand", 0.8, 0.5, 0.15))
        return [
            (part, [x * width, y * height, (x + s) * width, y * height + s * width])
            for part, x, y, s in places
        ]


class FixedPredictor:
    """Runs the real predictor, then answers with the fixed people."""

    def __init__(self, predictor, fixed: FixedPeople):
        self.predictor, self.fixed = predictor, fixed
        self.clock, self.letterbox = predictor.clock, predictor.letterbox
        self.compile_all = predictor.compile_all

    def __call__(self, images, texts, stage, run=map):
        from human_anomaly.models.yolo_world.predictor import Detections

        self.predictor(images, texts, stage, run)
        if stage == "detect people":
            found = [(boxes, [0] * len(boxes)) for boxes in map(self.fixed.boxes, images)]
        else:
            parts = [self.fixed.parts(image) for image in images]
            found = [
                (np.array([b for _, b in p], np.float32), [("face", "hand").index(n) for n, _ in p])
                for p in parts
            ]
        return [
            Detections(boxes, np.ones(len(boxes), np.float32), np.array(labels))
            for boxes, labels in found
        ]


def frames_of(args: argparse.Namespace) -> list[np.ndarray]:
    from human_anomaly.data.video import FrameReader, Source

    return [frame.image for frame in FrameReader(Source(args.video, "video"))]


def build(mode: str, args: argparse.Namespace, device: torch.device, clock: Stopwatch):
    """Return a function that scores a video in `mode`."""
    from benchmarks.serial import SerialScorer

    config, files, models = config_of(args), detector_files(args), load_classifiers(args)
    fixed = FixedPeople(args.people, frames_of(args) if len(args.people) > 1 else ())
    if mode == "serial":
        scorer = SerialScorer(*files, models, config, device, clock)
        return lambda video: scorer.score(
            video, lambda frame, *_: fixed.boxes(frame), lambda crop, *_: fixed.parts(crop)
        )
    scorer = build_scorer(mode, args, device, clock)
    return lambda video: scorer.score(video, keep_frames=False)


def build_scorer(mode: str, args: argparse.Namespace, device: torch.device, clock: Stopwatch):
    """Return a VideoScorer in `mode` that finds the fixed people."""
    from human_anomaly.models.detector import PartDetector
    from human_anomaly.models.device import fast_dtype, share_cores
    from human_anomaly.models.scoring.scorer import VideoScorer

    config, files, models = config_of(args), detector_files(args), load_classifiers(args)
    fixed = FixedPeople(args.people, frames_of(args) if len(args.people) > 1 else ())
    fast = mode.startswith("fast")
    dtype = fast_dtype(device) if fast else torch.float32
    options = {"dtype": dtype, "compile": "compile" in mode}
    options["on_device"] = fast and device.type == "cuda"  # as inference.py --fast
    workers, threads = share_cores(device)
    detector = PartDetector(*files, device, batch_size=args.batch_size, threads=threads, **options)
    detector.predictor.clock = clock
    detector.predictor = FixedPredictor(detector.predictor, fixed)
    return VideoScorer(detector, models, config, batch_size=args.batch_size, workers=workers)


def run_one(args: argparse.Namespace) -> dict:
    """Measure one mode in this process."""
    from human_anomaly.models.device import choose_device

    quiet_libraries()
    torch.set_num_threads(cores_per_process())
    device = args.device = choose_device(str(args.device))
    clock = Stopwatch(torch.cuda.synchronize if device.type == "cuda" else lambda: None)
    start = time.perf_counter()
    score = build(args.one, args, device, clock)
    loaded = time.perf_counter() - start
    frames = len(frames_of(args)) * args.loops
    with tempfile.TemporaryDirectory() as folder:
        short = shorten(args.video, args.batch_size, Path(folder))
        start = time.perf_counter()
        score(short)  # warm up; compiles in compiled modes
        first = time.perf_counter() - start
    clock.seconds.clear()
    start = time.perf_counter()
    for _ in range(args.loops):
        score(args.video)
    seconds = time.perf_counter() - start
    stages = {stage: clock.seconds[stage] / frames for stage in STAGES}
    found = {"frames": frames, "seconds": seconds, "load": loaded, "first": first, "stages": stages}
    return found | {"memory": peak_memory(device), "machine": describe(device)}


def operations(args: argparse.Namespace) -> float:
    """Return a frame's mean operations: a 640x640 pass, and one pass and four crops per person."""
    from torch.utils.flop_counter import FlopCounterMode

    from human_anomaly.models.classifier import AnomalyClassifier, shape_of
    from human_anomaly.models.yolo_world.build import build_model, read_config, register

    register()
    with torch.device("meta"), FlopCounterMode(display=False) as count:
        size = config_of(args).DATA.IMG_SIZE
        AnomalyClassifier(**shape_of(config_of(args)))(torch.empty(1, 3, size, size))
    classifier = count.get_total_flops()
    with torch.device("meta"), FlopCounterMode(display=False) as count, torch.no_grad():
        model_config = read_config(detector_files(args)[0])
        width, height = model_config.img_scale
        model = build_model(model_config).eval()
        texts = torch.empty(1, 3, model.bbox_head.head_module.embed_channels)
        model.raw(torch.empty(1, 3, height, width), texts)
    people = statistics.mean(args.people)
    return count.get_total_flops() * (1 + people) + classifier * 4 * people


def main() -> None:
    args = parse_args()
    if args.one:
        print(json.dumps(run_one(args)))
        return
    from human_anomaly.models.device import choose_device, fast_dtype

    device = choose_device(args.device)
    write_weights(args.weights, args.size)
    runs: dict[str, list[dict]] = {mode: [] for mode in args.modes}
    for _ in range(args.repeat):
        for mode in args.modes:
            with tempfile.TemporaryFile("w+") as out:
                command = [sys.executable, "-m", __spec__.name, *sys.argv[1:], "--one", mode]
                subprocess.run(command, stdout=out, check=True, cwd=ROOT)
                out.seek(0)
                runs[mode].append(json.loads(out.read().splitlines()[-1]))
            print(f"{mode}: {runs[mode][-1]['seconds']:.1f} s", file=sys.stderr, flush=True)
    fast = fast_dtype(device)  # asked once: a second probe may find the other type faster
    rates = {dtype: matrix_rate(device, dtype) for dtype in (torch.float32, fast)}
    print_table(args, runs, rates, operations(args), fast)


def print_table(args, runs, rates, work: float, fast: torch.dtype) -> None:
    """Print a line per mode: medians over the repeats."""
    some = next(iter(runs.values()))[0]
    shown = " ".join(map(str, args.people))
    line = f"{some['machine']}; {args.video.name}, {some['frames']} frames, {shown} people a frame"
    print(f"{line}, size {args.size}, batch {args.batch_size}")
    known = (f"{str(t).removeprefix('torch.')} {r / 1e9:.0f}" for t, r in rates.items())
    line = f"matrix rates, GFLOP/s: {', '.join(known)}"
    print(f"{line}; {work / 1e9:.0f} GFLOP a frame at 640x640")
    head = f"{'mode':<14}{'s/frame':>9}{'ratio':>7}{'load':>7}{'first':>7}{'MiB':>8}{'share':>7}"
    print(head + "".join(f"{stage:>15}" for stage in STAGES))
    base = None
    for mode, results in runs.items():
        per_frame = statistics.median(r["seconds"] / r["frames"] for r in results)
        base = base or per_frame
        rate = rates[fast if mode.startswith("fast") else torch.float32]
        row = [statistics.median(r[k] for r in results) for k in ("load", "first", "memory")]
        stages = [statistics.median(r["stages"][s] for r in results) for s in STAGES]
        line = f"{mode:<14}{per_frame:9.3f}{base / per_frame:7.2f}{row[0]:7.1f}{row[1]:7.1f}"
        line += f"{row[2]:8.0f}{work / per_frame / rate:7.0%}"
        print(line + "".join(f"{s:15.3f}" for s in stages))
    note = "ratio: to the first mode. first: of the first batch, which compiles in compiled modes. "
    print(note + "share: of the measured matrix rate.")


if __name__ == "__main__":
    main()

"""What bench_gpu measures: each section yields (name, work), and each work returns a row."""

import json
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import cycle, islice
from pathlib import Path

import torch

from benchmarks import bench_scoring
from benchmarks.clips import first_frames
from benchmarks.machine import describe, matrix_rate, peak_memory
from human_anomaly.configs.machine import cores_per_process
from human_anomaly.models.device import fast_dtype, name_of, own_precision
from human_anomaly.utils import quiet_libraries

ROOT = Path(__file__).resolve().parents[1]
VIDEO = ROOT / "demo/videos/hand_fused.mp4"  # 720p
FLOAT32 = torch.float32
Work = Callable[[], dict]


@torch.inference_mode()
def seconds_of(device: torch.device, work: Callable, *arguments) -> float:
    """Return the seconds of `work(*arguments)`: the mean of some seconds' calls after two calls."""
    least = 0.2 if device.type == "cpu" else 2.0
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    for _ in range(2):
        work(*arguments)
    wait()
    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < least:
        work(*arguments)
        wait()
        calls += 1
    return (time.perf_counter() - start) / calls


@cache
def fast_type(device: torch.device) -> torch.dtype:
    return fast_dtype(device)


def machine(args) -> Iterator[tuple[str, Work]]:
    """The machine, and its matrix rate in each number type."""
    chosen = fast_type(args.device)
    row = {"machine": describe(args.device), "cores": cores_per_process(), "fast": name_of(chosen)}
    yield "machine", lambda: row
    for dtype in dict.fromkeys((FLOAT32, chosen)):

        def rate(dtype=dtype) -> dict:
            with own_precision(args.device.type):
                rate = matrix_rate(args.device, dtype, 512 if args.cpu else None)
            return {"TFLOP/s": rate / 1e12}

        yield name_of(dtype), rate


def weights(args) -> Iterator[tuple[str, Work]]:
    """Write the random weights that the other sections load."""

    def draw() -> dict:
        start = time.perf_counter()
        bench_scoring.write_weights(args.weights, args.size)
        return {"seconds": time.perf_counter() - start}

    yield "drawn", draw


@cache
def load_detector(mode: str, args_json: str):
    from human_anomaly.models.detector import PartDetector

    args = Namespace(**json.loads(args_json))
    args.weights, device = Path(args.weights), torch.device(args.device)
    dtype = FLOAT32 if mode == "exact" else fast_type(device)
    options = {"on_device": mode != "exact" and device.type == "cuda", "compile": "+" in mode}
    return PartDetector(*bench_scoring.detector_files(args), device, dtype=dtype, **options)


def detector_of(mode: str, args):
    """Return the detector in exact, fast or fast+compile mode, loaded once in a process."""
    kept = {"size": args.size, "weights": str(args.weights), "device": str(args.device)}
    return load_detector(mode, json.dumps(kept))


def passes(args, modes: tuple[str, ...] = ("exact", "fast")) -> Iterator[tuple[str, Work]]:
    """The detector's passes a second: the network alone, and with letterbox and NMS."""
    quiet_libraries()
    compiled = modes == ("fast+compile",)
    for batch in (2,) if args.cpu else (32,) if compiled else (32, 8):
        for mode in modes:
            yield f"{mode}, batch {batch}", partial(one_pass, args, mode, batch)


def one_pass(args, mode: str, batch: int) -> dict:
    detector = detector_of(mode, args)
    predictor, texts = detector.predictor, detector.part_texts
    predictor.batch_size = batch
    if predictor.compiled_sizes:
        predictor.compiled_sizes = (batch,)
        detector.compile_all()
    reset_memory(args.device)
    frames = frames_of(args, batch)
    with own_precision(args.device.type, predictor.dtype):
        width, height = predictor.letterbox.size
        pixels = torch.rand(batch, 3, height, width, device=args.device)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        raw = seconds_of(args.device, predictor.raw, pixels, texts)
    whole = seconds_of(args.device, predictor, placed(detector, frames), texts)
    row = {"network/s": batch / raw, "whole/s": batch / whole}
    return row | {"MiB": peak_memory(args.device)}


def frames_of(args, count: int) -> list:
    """Return `count` frames of 720p, BGR arrays."""
    return list(islice(cycle(first_frames(VIDEO, count)), count))


def placed(detector, frames: list) -> list:
    from human_anomaly.models.on_device import place

    return place(frames, detector.device) if detector.on_device else frames


def reset_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def reference(args) -> Iterator[tuple[str, Work]]:
    """Whether the device meets the reference values."""
    for folder in ("tests", "tests/goldens"):
        sys.path.insert(0, str(ROOT / folder))
    import test_goldens

    def check(assertion: Callable, drawn: bool) -> dict:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if drawn:
                bench_scoring.write_weights(folder, "s", "pipeline_scene.rgb.expected.json")
                (folder / "detector_s.pth").rename(folder / "detector.pth")
            try:
                with own_precision(args.device.type):
                    assertion(folder)
            except AssertionError as error:
                return {"met": False, "difference": str(error).strip()[:300]}
        return {"met": True}

    def outputs(folder: Path) -> None:
        test_goldens.assert_raw_outputs(folder, args.device)

    def scene(folder: Path) -> None:
        test_goldens.assert_scene(folder, folder, "rgb", args.device)

    if not args.cpu:
        yield "size XL, outputs", partial(check, outputs, False)
    yield "size S, scene", partial(check, scene, True)


def training(args, modes: tuple[str, ...] = ("bf16", "fp32")) -> Iterator[tuple[str, Work]]:
    """Training images a second."""
    from benchmarks import bench_training

    batch = 8 if args.cpu else 128
    cfg = "configs/demo/demo.yaml" if args.cpu else bench_training.YAML
    options = {"cfg": cfg, "batch_size": batch, "profile": False, "cpu_seconds": False}
    options |= {"steps": 2 if args.cpu else 20, "threads": cores_per_process()}

    def measure(mode: str) -> dict:
        reset_memory(args.device)
        found = bench_training.run_one(Namespace(**options, one=mode))
        return {"images/s": batch / found["seconds"], "MiB": found["memory"]}

    for mode in modes if not args.cpu else ("fp32",):
        yield mode, partial(measure, mode)


def pipeline(args) -> Iterator[tuple[str, Work]]:
    """Frames a second with two people in each: of a video, and of frames on the device."""
    quiet_libraries()
    for mode in ("fast", "exact"):
        for call in ("video", "score_frames"):
            yield f"{mode}, {call}", partial(scored, args, mode, call)


def scored(args, mode: str, call: str) -> dict:
    """Score at least 256 frames, a multiple of the batch, after a first batch."""
    import numpy as np

    from human_anomaly.models.device import Stopwatch

    batch, count = (2, 4) if args.cpu else (32, 256)
    options = Namespace(**vars(args) | {"batch_size": batch})
    scorer = bench_scoring.build_scorer(mode, options, args.device, Stopwatch())
    frames = np.stack(frames_of(args, count))
    with tempfile.TemporaryDirectory() as folder:
        if call == "video":
            paths = [Path(folder) / "first.avi", Path(folder) / "all.avi"]
            for path, part in zip(paths, (frames[: 2 * batch], frames), strict=True):
                write_video(path, part)
            first, whole = (partial(scorer.score, path, keep_frames=False) for path in paths)
        else:
            clip = torch.from_numpy(frames[..., ::-1].copy()).to(args.device)
            first = partial(scorer.score_frames, clip[: 2 * batch])
            whole = partial(scorer.score_frames, clip)
        first()
        reset_memory(args.device)
        start = time.perf_counter()
        whole()
        seconds = time.perf_counter() - start
    return {"frames/s": count / seconds, "frames": count, "MiB": peak_memory(args.device)}


def write_video(path: Path, frames) -> None:
    import cv2

    size = frames.shape[2], frames.shape[1]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 24, size)
    for frame in frames:
        writer.write(frame)
    writer.release()


def graphs(args) -> Iterator[tuple[str, Work]]:
    """The fast detector's passes a second, launched one by one and from a CUDA graph.

    Networks run in threads here, where torch.compile makes no graphs (pytorch issue 123177). This
    shows whether graphs of our own are worth it.
    """

    def compare(batch: int) -> dict:
        detector = detector_of("fast", args)
        predictor, texts = detector.predictor, detector.part_texts
        with torch.inference_mode(), own_precision("cuda", predictor.dtype):
            pixels = torch.rand(batch, 3, 640, 640, device=args.device)
            pixels = pixels.contiguous(memory_format=torch.channels_last)
            alone = seconds_of(args.device, predictor.raw, pixels, texts)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                predictor.raw(pixels, texts)
            replayed = seconds_of(args.device, graph.replay)
        return {"launched/s": batch / alone, "graph/s": batch / replayed}

    for batch in () if args.cpu else (1, 8):
        yield f"batch {batch}", partial(compare, batch)


def crops(args) -> Iterator[tuple[str, Work]]:
    """A classifier's crops a second in float32 and in the fast type."""
    from human_anomaly.models.classifier import in_type

    size, batch = bench_scoring.config_of(args).DATA.IMG_SIZE, 8 if args.cpu else 64

    def measure(dtype: torch.dtype) -> dict:
        model = in_type(bench_scoring.load_classifiers(args)["hand"], dtype)
        x = torch.randn(batch, 3, size, size, device=args.device)
        x = x if dtype == torch.int8 else x.to(dtype)
        with own_precision(args.device.type, dtype):
            return {"crops/s": batch / seconds_of(args.device, model, x)}

    for name, dtype in {"fast": fast_type(args.device), "exact": FLOAT32}.items():
        yield name, partial(measure, dtype)


def left_out(section: Callable, *modes: str) -> Callable:
    """Return `section` for `modes`; compiling on a CPU takes minutes, and is left out there."""
    return lambda args: iter(()) if args.cpu else section(args, modes)


# Each section's cap in seconds. What matters most comes first, because time may run out.
SECTIONS: dict[str, tuple[Callable, float]] = {
    "machine": (machine, 40),
    "weights": (weights, 60),
    "passes": (passes, 100),
    "reference": (reference, 100),
    "training": (training, 70),
    "pipeline": (pipeline, 120),
    "graphs": (graphs, 50),
    "crops": (crops, 40),
    "passes_compiled": (left_out(passes, "fast+compile"), 150),
    "training_compiled": (left_out(training, "bf16 compile"), 120),
}

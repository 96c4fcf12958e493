"""Everything that concerns a GPU, in one command of at most 10 minutes; see gpu.sh.

    python -m tests.benchmarks.bench_gpu [--output FILE] [--cpu]

Each section runs in a process of its own, so that one that fails costs no other one. The JSON file
is written anew after each. Weights are drawn by name; every frame gets a fixed list of people.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from human_anomaly.configs.defaults import get_config
from human_anomaly.utils import cores_per_process, quiet_libraries, write_json
from tests.benchmarks import bench_scoring, bench_training
from tests.benchmarks.machine import describe, matrix_rate, peak_memory

ROOT = Path(__file__).resolve().parents[2]
VIDEO = ROOT / "demo/videos/hand_fused.mp4"
TRAINING = ("fp32", "tf32", "bf16", "bf16 compile")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--output", type=Path, default=ROOT / "build/bench/gpu.json")
    p.add_argument("--cpu", action="store_true", help="the demo's small networks on the CPU")
    p.add_argument("--seconds", type=float, default=600, help="all sections together (600)")
    p.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    p.add_argument("--one", choices=SECTIONS, help=argparse.SUPPRESS)
    args = p.parse_args(argv)
    if not args.cpu and not torch.cuda.is_available():
        p.error("no CUDA device is usable here; --cpu runs the same script at nano size")
    args.device = torch.device("cpu" if args.cpu else "cuda")
    args.size = "demo" if args.cpu else "xl"
    args.weights = ROOT / "build" / "bench"
    args.people = [2]
    return args


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


def machine(args) -> list[dict]:
    """Return the machine, its matrix rates, and which type its probe chooses."""
    from human_anomaly.models.device import fast_dtype, name_of, set_matmul_precision

    set_matmul_precision("fp32")
    chosen = fast_dtype(args.device)
    types = [torch.float32, chosen] if chosen != torch.float32 else [chosen]
    size = 512 if args.cpu else None
    rates = {name_of(t): matrix_rate(args.device, t, size) / 1e12 for t in types}
    row = {"machine": describe(args.device), "cores": cores_per_process(), "fast": name_of(chosen)}
    return [row | {f"{name} TFLOP/s": rate for name, rate in rates.items()}]


def reference(args) -> list[dict]:
    """Return whether the device meets the reference values of size S, and on a GPU of XL."""
    for folder in ("tests", "tests/goldens"):
        sys.path.insert(0, str(ROOT / folder))
    import test_goldens

    from human_anomaly.models.device import set_matmul_precision

    set_matmul_precision("fp32")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        bench_scoring.write_weights(folder, "s", "pipeline_scene.rgb.expected.json")
        (folder / "detector_s.pth").rename(folder / "detector.pth")
        checks = {
            "size S, scene": lambda: test_goldens.assert_scene(folder, folder, "rgb", args.device),
            "size XL, outputs": lambda: test_goldens.assert_raw_outputs(folder, args.device),
        }
        return [{"check": name, **_check(checks[name])} for name in list(checks)[: 2 - args.cpu]]


def _check(check: Callable[[], None]) -> dict:
    try:
        check()
    except AssertionError as error:
        return {"met": False, "difference": str(error).strip()[:300]}
    return {"met": True}


def detectors(args) -> Iterator[tuple[str, object]]:
    """Yield the detector's predictor in each of its modes."""
    from human_anomaly.models.detector import PartDetector
    from human_anomaly.models.device import fast_dtype

    fast = {"dtype": fast_dtype(args.device), "on_device": not args.cpu}
    modes = {"exact": {}, "fast": fast, "fast+compile": fast | {"compile": True}}
    for name in list(modes)[: 2 if args.cpu else 3]:  # compiling on a CPU takes a minute
        files = bench_scoring.detector_files(args)
        yield name, PartDetector(*files, args.device, **modes[name])


def passes(args) -> list[dict]:
    """Return the detector's passes a second: the network alone, and with letterbox and NMS."""
    quiet_libraries()
    rows = []
    for name, detector in detectors(args):
        predictor, texts = detector.predictor, detector.part_texts
        image = _grey(detector)
        for batch in (1, 2) if args.cpu else (1, 8, 32) if name != "fast+compile" else (32,):
            predictor.batch_size = batch
            pixels = predictor.batch([image] * batch)
            raw = seconds_of(args.device, predictor.raw, pixels, texts)
            whole = seconds_of(args.device, predictor, [image] * batch, texts)
            row = {"mode": name, "batch": batch, "network/s": batch / raw, "whole/s": batch / whole}
            rows.append(row | {"MiB": peak_memory(args.device)})
    return rows


def _grey(detector):
    """Return a picture that fills the detector's square, on the device if it takes tensors."""
    side = detector.predictor.letterbox.size[0]
    image = torch.full((side, side, 3), 114, dtype=torch.uint8)
    return image.to(detector.device) if detector.on_device else image.numpy()


def graphs(args) -> list[dict]:
    """Return the fast detector's passes a second, launched one by one and from a CUDA graph.

    torch.compile makes no graphs in threads (pytorch issue 123177), where networks run here: this
    says whether graphs of our own are worth it.
    """
    if args.cpu:
        return [{"left out": "a CPU has no CUDA graphs"}]
    detector = next(detector for mode, detector in detectors(args) if mode == "fast")
    predictor, rows = detector.predictor, []
    for batch in (1, 8, 32):
        pixels = predictor.batch([_grey(detector)] * batch)
        alone = seconds_of(args.device, predictor.raw, pixels, detector.part_texts)
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(graph):
            predictor.raw(pixels, detector.part_texts)
        replayed = seconds_of(args.device, graph.replay)
        rows.append({"batch": batch, "launched/s": batch / alone, "graph/s": batch / replayed})
    return rows


def crops(args) -> list[dict]:
    """Return a classifier's crops a second in float32 and in the fast type."""
    from human_anomaly.models.classifier import in_type
    from human_anomaly.models.device import fast_dtype, name_of, set_matmul_precision

    set_matmul_precision("fp32")
    model = bench_scoring.load_classifiers(args)["hand"]
    size, batch = bench_scoring.config_of(args).DATA.IMG_SIZE, 8 if args.cpu else 256
    rows = []
    for dtype in dict.fromkeys((torch.float32, fast_dtype(args.device))):
        x = torch.randn(batch, 3, size, size, device=args.device)
        x = x if dtype == torch.int8 else x.to(dtype)
        seconds = seconds_of(args.device, in_type(model, dtype), x)
        rows.append({"type": name_of(dtype), "batch": batch, "crops/s": batch / seconds})
    return rows


def videos(args) -> list[dict]:
    """Return whole videos' frames a second in each mode, and the stages' share of the time."""
    return [_scored(args, mode, "score") for mode in _modes(args)]


def score_frames(args) -> list[dict]:
    """Return the same for frames that lie on the device already."""
    return [_scored(args, mode, "score_frames") for mode in _modes(args)]


def _modes(args) -> tuple[str, ...]:
    return ("exact", "fast") if args.cpu else ("exact", "fast", "fast+compile")


def _scored(args, mode: str, call: str) -> dict:
    one = {"video": VIDEO, "batch_size": 2 if args.cpu else 32, "loops": 1, "repeat": 1}
    options = Namespace(**{**vars(args), **one, "one": mode, "call": call})
    found = bench_scoring.run_one(options)
    per_frame = found["seconds"] / found["frames"]
    row = {"mode": mode, "frames/s": 1 / per_frame, "first s": found["first"]}
    shares = {f"{k} %": 100 * s / per_frame for k, s in found["stages"].items()}
    return row | {"MiB": found["memory"]} | shares


def training(args) -> list[dict]:
    """Return training images a second for each number type, and the share of the matrix rate."""
    batch = 8 if args.cpu else 128
    cfg = "configs/demo/demo.yaml" if args.cpu else bench_training.YAML
    options = Namespace(cfg=cfg, batch_size=batch, profile=False, cpu_seconds=False)
    options.steps, options.threads = 2 if args.cpu else 20, cores_per_process()
    work = bench_training.count_operations(get_config(ROOT / cfg)) * batch
    size = 512 if args.cpu else None
    rows = []
    for mode in TRAINING[: 1 if args.cpu else 4]:
        found = bench_training.start(options, mode)
        if found is None:
            rows.append({"flags": mode, "failed": True})
            continue
        dtype = torch.bfloat16 if mode.startswith("bf16") else torch.float32
        share = work / found["seconds"] / matrix_rate(args.device, dtype, size)
        images = batch / found["seconds"]
        row = {"flags": mode, "images/s": images, "share %": 100 * share, "MiB": found["memory"]}
        rows.append(row)
    return rows


def loader(args) -> list[dict]:
    """Return the training images a second that the data loader delivers."""
    from human_anomaly.data.dataset import read_manifest

    images = 64 if args.cpu else 4096
    options = Namespace(cfg=bench_training.YAML, loader_images=images, cpu_seconds=False)
    with tempfile.TemporaryDirectory() as folder:
        manifest = read_manifest(bench_training.draw_crops(Path(folder), images, 300))
        counts = (0,) if args.cpu else (1, 8, cores_per_process())
        return [
            {"workers": n, "images/s": bench_training.time_loader(options, manifest, n)}
            for n in counts
        ]


SECTIONS = (machine, reference, passes, graphs, crops, videos, score_frames, training, loader)
SECTIONS = {section.__name__: section for section in SECTIONS}


def run(args, name: str, left: float) -> list[dict] | str:
    """Return a section's rows, computed in a process of its own, or why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "tests.benchmarks.bench_gpu", "--one", name]
        command += ["--output", str(out), *(["--cpu"] if args.cpu else [])]
        try:
            done = subprocess.run(
                command, cwd=ROOT, timeout=left, stderr=subprocess.PIPE, text=True
            )
        except subprocess.TimeoutExpired:
            return "no time was left"
        if done.returncode:
            return f"failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}"
        return json.loads(out.read_text())


def print_rows(name: str, rows: list[dict] | str) -> None:
    """Print a section as a Markdown table."""
    print(f"\n## {name}\n")
    if isinstance(rows, str):
        print(rows, flush=True)
        return
    heads = list(dict.fromkeys(key for row in rows for key in row))
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for row in rows:
        cells = [row.get(key, "") for key in heads]
        cells = [f"{c:.4g}" if isinstance(c, float) else str(c) for c in cells]
        print(f"| {' | '.join(cells)} |", flush=True)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.one:
        write_json(args.output, SECTIONS[args.one](args))
        return 0
    if not args.cpu:
        bench_scoring.write_weights(args.weights, args.size)
    end, found = time.monotonic() + args.seconds, {}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    for name in args.sections:
        found[name] = run(args, name, max(1.0, end - time.monotonic()))
        write_json(args.output, found)
        print_rows(name, found[name])
    return 1 if any(isinstance(rows, str) for rows in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())

"""Speed of one training step and of the data loader.

    python -m benchmarks.bench_training

A row per setting of main_finetune.py, each in a process of its own: images/s, peak memory, and the
share of the machine's measured matrix rate. torch's counter counts the operations of matrix
products; recomputing is not counted as work. Then the loader runs alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.machine import describe, matrix_rate, peak_memory
from human_anomaly.configs.defaults import get_config
from human_anomaly.configs.machine import cores_per_process
from human_anomaly.data.dataset import read_manifest
from human_anomaly.models.classifier import AnomalyClassifier, shape_of
from human_anomaly.models.device import fast_dtype, set_matmul_precision
from human_anomaly.models.training import recipe
from human_anomaly.models.training.engine import train_step

ROOT = Path(__file__).resolve().parents[1]
YAML = "configs/vit_base__800ep/simmim_finetune__vit_base__img224__800ep.yaml"
MODES = {
    "fp32": ("--precision", "fp32"),
    "tf32": ("--precision", "tf32"),
    "bf16": ("--precision", "bf16"),
    "fp32 compile": ("--precision", "fp32", "--compile"),
    "bf16 compile": ("--precision", "bf16", "--compile"),
    "bf16 checkpoint": ("--precision", "bf16", "--use-checkpoint"),
}


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--cfg", default=YAML, help="YAML of the network (ViT-B/16, 224 pixels)")
    p.add_argument("--batch-size", type=int, help="images per step (128 on a GPU, else 8)")
    p.add_argument("--steps", type=int, help="steps that are timed (20 on a GPU, else 3)")
    p.add_argument("--modes", nargs="*", default=list(MODES), choices=MODES)
    p.add_argument("--threads", type=int, default=cores_per_process(), help="torch threads")
    p.add_argument(
        "--cpu-seconds",
        action="store_true",
        help="time one thread by its own CPU seconds, for a machine that is busy otherwise",
    )
    p.add_argument("--workers", type=int, nargs="*", default=[0, 1, cores_per_process()])
    p.add_argument("--crop-size", type=int, default=300, help="side of the drawn JPEG crops")
    p.add_argument(
        "--loader-images", type=int, default=1024, help="JPEG crops to draw, and at least to read"
    )
    p.add_argument("--profile", action="store_true", help="name each mode's longest operations")
    p.add_argument("--one", choices=MODES, help=argparse.SUPPRESS)
    return p.parse_args()


def settings(args, mode: str, batch_size: int):
    """Return the config that main_finetune.py would build from the mode's flags."""
    from human_anomaly import main_finetune

    paths = ("--train-path", "t", "--val-path", "v", "--output", "o")
    flags = ["--cfg", str(ROOT / args.cfg), *paths, "--batch-size", str(batch_size), *MODES[mode]]
    return main_finetune.read_settings(main_finetune.parse_args(flags))


def count_operations(config) -> float:
    """Return the operations of one image's forward and backward pass (a product counts two)."""
    from torch.utils.flop_counter import FlopCounterMode

    model = AnomalyClassifier(**shape_of(config))
    size = config.DATA.IMG_SIZE
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, 3, size, size)).sum().backward()
    return counter.get_total_flops() / 2


def random_batch(count: int, size: int, pinned: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random images (count, size, size, 3) uint8 and their targets, 0 and 1 in turn."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)
    return images.pin_memory() if pinned else images, torch.arange(count) % 2


def run_one(args) -> dict:
    """Time the steps of one mode in this process."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    torch.set_num_threads(args.threads)
    config = settings(args, args.one, args.batch_size)
    set_matmul_precision(config.TRAIN.PRECISION)
    crops = 1000 * args.batch_size  # so that an epoch has 1000 steps
    state = recipe.build_state(config, crops, device)
    batch = [random_batch(args.batch_size, config.DATA.IMG_SIZE, cuda)]
    criterion, augment = torch.nn.BCEWithLogitsLoss(), recipe.build_augment(config, device)
    state.model.train()

    def step(number: int) -> float:
        """Take step `number` and return its loss."""
        loss, _ = train_step(
            state.model,
            criterion,
            batch,
            state.optimizer,
            augment=augment,
            device=device,
            precision=config.TRAIN.PRECISION,
            clip_grad=config.TRAIN.CLIP_GRAD,
        )
        state.schedule.step_update(number)
        return loss.item()

    clock = time.process_time if args.cpu_seconds else time.perf_counter
    started = clock()
    for number in range(3):  # also compiles
        step(number)
    warm = clock() - started
    times = []
    for number in range(args.steps):
        start = clock()
        step(number)
        times.append(clock() - start)
    result = {
        "seconds": float(np.median(times)),
        "warm_up": warm,
        "memory": peak_memory(device),
        "loss": step(0),
    }
    if args.profile:
        result["profile"] = profile(step, device)
    return result


def profile(step: Callable[[int], float], device: torch.device, most: int = 6) -> list[str]:
    """Return the operations (on a GPU its kernels) that take longest, with their shares."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    cuda = device.type == "cuda"
    with record(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as trace:
        for number in range(2):
            step(number)
    key = "self_device_time_total" if cuda else "self_cpu_time_total"
    rows = sorted(trace.key_averages(), key=lambda row: -getattr(row, key))
    total = sum(getattr(row, key) for row in rows)
    return [f"{getattr(row, key) / total:.1%} {row.key[:90]}" for row in rows[:most]]


def start(args, mode: str) -> dict | None:
    """Run one mode in a process of its own; None if it fails."""
    command = [
        *(sys.executable, "-m", "benchmarks.bench_training", "--one", mode),
        *("--cfg", args.cfg, "--batch-size", str(args.batch_size), "--steps", str(args.steps)),
        *("--threads", str(args.threads), *(["--profile"] if args.profile else [])),
        *(["--cpu-seconds"] if args.cpu_seconds else []),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        print(f"{mode}: failed: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def draw_crops(folder: Path, count: int, size: int) -> Path:
    """Write JPEG crops as smooth as photographs, and their JSONL."""
    rng = np.random.default_rng(0)
    (folder / "all_images").mkdir()
    for i in range(count):
        small = Image.fromarray(rng.integers(0, 256, (size // 8, size // 8, 3), dtype=np.uint8))
        image = small.resize((size, size), Image.Resampling.BICUBIC)
        image.save(folder / "all_images" / f"{i}.jpg", quality=90)
    path = folder / "hand_train.jsonl"
    path.write_text("".join(f'["{i}.jpg", {i % 2}]\n' for i in range(count)))
    return path


def time_loader(args, manifest, workers: int) -> float:
    """Return the images per second that the loader delivers while no network computes."""
    config = get_config(
        ROOT / args.cfg,
        flags={"DATA.NUM_WORKERS": workers, "DATA.BATCH_SIZE": min(64, len(manifest))},
    )
    loader = recipe.load_train(config, manifest, range(10**6))
    batches = iter(loader)
    for _ in range(6 * workers + 1):  # empties the queues of what was fetched ahead
        next(batches)
    clock = time.process_time if args.cpu_seconds else time.perf_counter
    start, seen = clock(), 0
    while seen < args.loader_images or clock() - start < 5:
        seen += len(next(batches)[0])
    return seen / (clock() - start)


def unmeasured(device: torch.device) -> dict[str, str]:
    """Return the number types that are not measured on `device`, and why."""
    if device.type == "cuda":
        return {}
    reasons = {"tf32": "not measured: no GPU"}
    if fast_dtype(device, int8=False) != torch.bfloat16:  # emulated: a step takes minutes
        reasons["bf16"] = "not measured: this CPU has no bf16 units"
    return reasons


def main() -> None:
    args = parse_args()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    args.batch_size = args.batch_size or (128 if cuda else 8)
    args.steps = args.steps or (20 if cuda else 3)
    if args.cpu_seconds:  # what other processes and spinning threads use must not count
        args.threads, args.workers = 1, [0]
    if args.one:
        print(json.dumps(run_one(args)))
        return
    torch.set_num_threads(args.threads)
    print(f"machine: {describe(device)}, {os.cpu_count()} cores; load {os.getloadavg()[0]:.1f}")
    set_matmul_precision("fp32")
    clock = time.process_time if args.cpu_seconds else time.perf_counter
    reasons = unmeasured(device)
    fp32 = matrix_rate(device, torch.float32, clock=clock)
    bf16 = None if "bf16" in reasons else matrix_rate(device, torch.bfloat16, clock=clock)
    said = f"{bf16 / 1e12:.3g} TFLOP/s" if bf16 else reasons["bf16"]
    print(f"matrix rate: fp32 {fp32 / 1e12:.3g} TFLOP/s, bf16 {said}")
    work = count_operations(get_config(ROOT / args.cfg)) * args.batch_size
    print(f"a step of {args.batch_size} images: {work / 1e12:.3g} TFLOP\n")
    print("| flags | images/s | s per step | against fp32 | share of own matrix rate ", end="")
    print("| share of bf16 rate | peak memory MB | first 3 steps s |\n" + "|---" * 8 + "|")
    base = None
    for mode in args.modes:
        kind = mode.split()[0]
        if kind in reasons:
            print(f"| {mode} | {reasons[kind]} | | | | | | |", flush=True)
            continue
        found = start(args, mode)
        if found is None:
            continue
        base = base or found["seconds"]
        rate, own = work / found["seconds"], bf16 if kind == "bf16" else fp32
        print(
            f"| {mode} | {args.batch_size / found['seconds']:.2f} | {found['seconds']:.3f} "
            f"| {base / found['seconds']:.2f}x | {rate / own:.1%} "
            f"| {f'{rate / bf16:.1%}' if bf16 else '-'} | {found['memory']:.0f} "
            f"| {found['warm_up']:.1f} |",
            flush=True,
        )
        for line in found.get("profile", ()):
            print(f"    {line}")
    with tempfile.TemporaryDirectory() as folder:
        manifest = read_manifest(draw_crops(Path(folder), args.loader_images, args.crop_size))
        print(f"\nloader alone, {args.crop_size} px JPEG crops, full augmentation:")
        for workers in args.workers:
            print(f"  {workers} workers: {time_loader(args, manifest, workers):.0f} images/s")


if __name__ == "__main__":
    main()

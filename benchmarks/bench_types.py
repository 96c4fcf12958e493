"""What each number type costs: CPU seconds of one core, a pass of XL and eight crops of ViT-B.

    python -m benchmarks.bench_types [--repeat 3]

The rows show what fast mode could gain with more or fewer layers in int8. Types take turns, so
that a machine whose speed changes meanwhile treats them alike; the least of the repeats is shown.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.bench_scoring import (
    ROOT,
    config_of,
    detector_files,
    load_classifiers,
    write_weights,
)
from benchmarks.machine import describe, matrix_rate
from human_anomaly.configs.parts import BASE_PARTS
from human_anomaly.data.stream import keep_to_one_core
from human_anomaly.models.classifier import in_type
from human_anomaly.models.cpu.int8 import Int8Conv2d, is_exact
from human_anomaly.models.cpu.layers import replace_layers
from human_anomaly.models.cpu.winograd import faster
from human_anomaly.models.detector import prompt_set
from human_anomaly.models.device import name_of
from human_anomaly.models.yolo_world.build import load_detector, read_config
from human_anomaly.models.yolo_world.predictor import _compute_in, _fold
from human_anomaly.utils import quiet_libraries

CPU = torch.device("cpu")
INT8_PARTS = (  # of the detector; fast mode takes the third set
    ("stage3", "stage4"),
    ("neck",),
    ("stage2", "stage3", "stage4", "neck"),
    ("stage1", "stage2", "stage3", "stage4", "neck"),
    ("stem", "stage1", "stage2", "stage3", "stage4", "neck", "head"),
)


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--repeat", type=int, default=3, help="runs of each type, in turn (3)")
    p.add_argument("--size", default="xl", choices=("s", "xl", "demo"))
    args = p.parse_args()
    args.weights, args.device = ROOT / "build" / "bench", CPU
    return args


def detectors(args: argparse.Namespace) -> Iterator[tuple[str, Callable]]:
    """Yield the detector in each way of computing it, a function of pictures."""

    def finish(model: nn.Module) -> Callable:
        replace_layers(model, nn.Conv2d, faster)
        return partial(_run, model, texts)

    model, texts = _load(args)
    yield "float32, direct", partial(_run, model, texts)
    yield "float32 (exact mode)", finish(model)
    model, texts = _load(args)
    _compute_in(torch.bfloat16, model)
    yield "bfloat16 (fast mode)", finish(model)
    for parts in INT8_PARTS if is_exact() else ():
        model, texts = _load(args)
        known = {"neck": model.neck, "head": model.bbox_head.head_module}
        for part in parts:
            module = known[part] if part in known else getattr(model.backbone.image_model, part)
            replace_layers(module, nn.Conv2d, Int8Conv2d)
        yield f"int8: {', '.join(parts)}", finish(model)


def _load(args: argparse.Namespace) -> tuple[nn.Module, Tensor]:
    """Return the detector in float32, and the embeddings (1, 3, D) of three texts."""
    model, _, texts = load_detector(*detector_files(args), tuple(prompt_set(BASE_PARTS, "person")))
    return _fold(model).to(memory_format=torch.channels_last), texts[None]


def _run(model: nn.Module, texts: Tensor, pictures: Tensor) -> None:
    model.raw(pictures, texts)


def classifiers(args: argparse.Namespace) -> Iterator[tuple[str, nn.Module]]:
    """Yield a classifier in each number type."""
    types = (torch.float32, torch.bfloat16, *([torch.int8] if is_exact() else []))
    for dtype in types:
        yield name_of(dtype), in_type(load_classifiers(args)["hand"], dtype)


def seconds_of(work: Callable, *arguments) -> float:
    """Return the CPU seconds of the second of two calls."""
    work(*arguments)
    start = time.thread_time()
    work(*arguments)
    return time.thread_time() - start


@torch.inference_mode()
def measure(args: argparse.Namespace) -> dict[str, list[float]]:
    """Return the seconds of each way of computing, by its name, one for each repeat."""
    taken: dict[str, list[float]] = defaultdict(list)
    width, height = read_config(detector_files(args)[0]).img_scale
    picture = torch.rand(1, 3, height, width).contiguous(memory_format=torch.channels_last)
    crops = torch.rand(8, 3, *[config_of(args).DATA.IMG_SIZE] * 2)
    for _ in range(args.repeat):
        for name, run in detectors(args):
            taken[f"a pass, {name}"].append(seconds_of(run, picture))
        for name, model in classifiers(args):
            x = crops.to(torch.bfloat16) if name == "bfloat16" else crops
            taken[f"8 crops, {name}"].append(seconds_of(model, x))
    return taken


def main() -> None:
    args = parse_args()
    quiet_libraries()
    keep_to_one_core()
    write_weights(args.weights, args.size)
    taken = measure(args)
    rate = matrix_rate(CPU, torch.float32, clock=time.thread_time) / 1e9
    print(f"{describe(CPU)}; size {args.size}; float32 matrix rate of a core {rate:.0f} GFLOP/s\n")
    print("| work | CPU s | all runs |\n|---|---|---|")
    for name, seconds in taken.items():
        print(f"| {name} | {min(seconds):.2f} | {', '.join(f'{s:.2f}' for s in seconds)} |")


if __name__ == "__main__":
    main()

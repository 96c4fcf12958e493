"""What a benchmark says of the machine: its name, its matrix rate, a process's memory."""

import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from human_anomaly.models.cpu.int8 import Int8Linear


def describe(device: torch.device) -> str:
    """Return the machine in a line: processor, threads or GPU, torch."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "CPU")


def matrix_rate(
    device: torch.device,
    dtype: torch.dtype,
    size: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return the measured rate of a large matrix product in operations per second of `clock`."""
    size = size or (8192 if device.type == "cuda" else 2048)
    a, b = (torch.randn(size, size, device=device, dtype=torch.float32) for _ in range(2))
    if dtype == torch.int8:
        product = Int8Linear(nn.Linear(size, size, bias=False)).forward
    else:
        a, b = a.to(dtype), b.to(dtype)
        product = partial(torch.matmul, other=b)
    best = float("inf")
    for _ in range(6):
        start = clock()
        product(a).sum().item()
        best = min(best, clock() - start)
    return 2 * size**3 / best


def peak_memory(device: torch.device) -> float:
    """Return this process's peak memory in MiB: the GPU's, or resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

"""Which device, how many cores and which number type a run uses, and where its time goes."""

import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import nn

from human_anomaly.configs.machine import cores_per_process
from human_anomaly.data.stream import keep_to_one_core
from human_anomaly.data.video import VideoError
from human_anomaly.models.cpu.int8 import Int8Conv2d, Int8Linear, is_exact
from human_anomaly.models.cpu.winograd import faster
from human_anomaly.utils import UsageError, local_rank

logger = logging.getLogger(__name__)

MOST_WORKERS = 16  # batches at the same time in a process on CPU: each needs memory
PROBE_SECONDS = 0.5  # at most, for choosing a number type
HOPELESS = 2  # times as slow as float32: such a type is not timed further
WORTH_IT = 0.8  # share of a more exact type's time: the gain must outweigh conversions


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; auto takes cuda, then mps, then cpu."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cpu" and torch.backends.mps.is_available():
            name = "mps"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device: expected auto, cpu, cuda or mps, got {name!r}") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError("--device: no CUDA device is usable here")
        count = torch.cuda.device_count()
        if device.index is None:
            device = torch.device("cuda", local_rank() % count)
        if device.index >= count:
            raise UsageError(f"--device: expected cuda:0 to cuda:{count - 1}, got {name}")
    return device


def share_cores(device: torch.device, cores: int | None = None) -> tuple[int, int]:
    """Return (batches computed at the same time, threads that prepare the pictures of each).

    `cores` is how many this process may use (default: its share of the machine's). On CPU a batch
    keeps to one core, so that results do not depend on how many there are. On a GPU the second
    batch is cut and resized while the first one is computed.
    """
    cores = cores or cores_per_process()
    if device.type != "cpu":
        return 2, cores
    if cores > MOST_WORKERS:
        logger.info(f"using {MOST_WORKERS} of {cores} cores; torchrun --nproc-per-node N uses more")
    return min(cores, MOST_WORKERS), 1


def frames_per_batch(device_type: str, fast: bool) -> int:
    """Return how many frames are in a detector's batch where `--batch-size` does not say it.

    Larger batches keep a GPU busier. In XL, the feature maps of 8 frames take up to 1.5 GiB in
    float32, those of 32 frames 3 GiB in 16 bits; two batches are computed at the same time.
    """
    if device_type == "cpu":
        return 2
    return 32 if fast and device_type == "cuda" else 8


@contextmanager
def enough_memory() -> Iterator[None]:
    """Raise VideoError where a GPU's memory is too small: this costs a video, not the run."""
    try:
        yield
    except RuntimeError as error:  # cuDNN and cuBLAS raise no torch.OutOfMemoryError
        short = isinstance(error, torch.OutOfMemoryError)
        if not short and not re.search("ALLOC(ATION)?_FAILED", str(error)):
            raise
        raise VideoError("the GPU has too little memory: give a smaller --batch-size") from error


def set_matmul_precision(precision: str) -> None:
    """Allow TF32 for everything but `fp32` (without such a unit, nothing changes)."""
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
    torch.backends.cudnn.allow_tf32 = precision != "fp32"


_lock = threading.Lock()
_rounding: list[bool] = []  # one per thread in `own_precision`: may cuDNN round there?
_host_flags: list = []  # torch's, as the host program set them


@contextmanager
def own_precision(device_type: str, dtype: torch.dtype = torch.float32) -> Iterator[None]:
    """Compute as exactly as we mean to, whatever the host program allows; then restore its flags.

    There is no autocast, and matrices are multiplied in float32. cuDNN may round to TF32 where the
    networks compute in another `dtype`. torch's flags hold for the whole process: they stay
    set while any thread is in here, and the strictest thread decides.
    """
    rounding = dtype != torch.float32
    with _lock:
        if not _rounding:
            _host_flags[:] = _flags()
        _rounding.append(rounding)
        _set_flags(_own_flags())
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        with _lock:
            _rounding.remove(rounding)
            _set_flags(_own_flags() if _rounding else _host_flags)


def _own_flags() -> list:
    conv = "tf32" if all(_rounding) else "ieee"
    return ["highest", all(_rounding), "ieee", conv, conv, "ieee", "ieee"]


def _flags() -> list:
    """Return torch's flags for products in float32: two older ones, then one per backend."""
    try:
        older = [torch.get_float32_matmul_precision()]
    except RuntimeError:  # the host program sets the newer ones
        older = ["highest"]
    try:
        older.append(torch.backends.cudnn.allow_tf32)
    except RuntimeError:
        older.append(True)
    return [*older, *(part.fp32_precision for part in _parts())]


def _set_flags(flags: Sequence) -> None:
    torch.set_float32_matmul_precision(flags[0])
    torch.backends.cudnn.allow_tf32 = flags[1]
    for part, value in zip(_parts(), flags[2:], strict=True):
        part.fp32_precision = value


def _parts() -> tuple:
    b = torch.backends
    return b.cuda.matmul, b.cudnn.conv, b.cudnn.rnn, b.mkldnn.matmul, b.mkldnn.conv


def fast_dtype(device: torch.device, *, int8: bool = True) -> torch.dtype:
    """Return the type in which `device` computes the networks fastest, by measuring it; log why.

    Without `int8`, it is a floating type, as training needs. A processor's flags do not tell the
    speed: bfloat16 was half as fast as float32 on one that has its instructions, eight times as
    fast on another.
    """
    pool = ThreadPoolExecutor(1, initializer=keep_to_one_core)
    with own_precision(device.type), pool:
        seconds = pool.submit(measure_types, device).result()
    if not int8:
        seconds.pop(torch.int8, None)
    chosen = choose_type(seconds)
    measured = ", ".join(f"{name_of(dtype)} {s * 1000:.1f}" for dtype, s in seconds.items())
    logger.info(f"--fast computes in {name_of(chosen)}; measured in ms on {device}: {measured}")
    return chosen


def choose_type(seconds: Mapping[torch.dtype, float]) -> torch.dtype:
    """Start at float32; take a less exact type only if it is a fifth faster."""
    chosen = torch.float32
    for dtype in (torch.bfloat16, torch.float16, torch.int8):
        if seconds.get(dtype, float("inf")) <= WORTH_IT * seconds[chosen]:
            chosen = dtype
    return chosen


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@torch.inference_mode()
def measure_types(device: torch.device) -> dict[torch.dtype, float]:
    """Return the seconds that the networks' typical layers take on `device` in each number type.

    The layers are a convolution of the detector and a matrix product of the classifiers, on CPU on
    one core if the calling thread keeps to one. The result leaves out types that are emulated (a
    small share of the work shows it), types for which PROBE_SECONDS leave no time, and int8 where
    the processor is not exact in it.
    """
    layers = (nn.Conv2d(192, 192, 3, padding=1), nn.Linear(768, 3072))
    images = 1 if device.type == "cpu" else 8  # one keeps a core busy, but not a GPU
    whole, part = ((images, 192, 64, 64), (images, 197, 768)), ((1, 192, 4, 4), (1, 4, 768))
    clock = _clock(device)
    share: dict[torch.dtype, float] = {}
    seconds: dict[torch.dtype, float] = {}
    start = None
    # A CPU that computes fast in float16 does so in bfloat16, whose range is float32's.
    if device.type != "cpu":
        types = (torch.float32, torch.bfloat16, torch.float16)
    else:
        types = (torch.float32, *([torch.int8] if is_exact() else []), torch.bfloat16)
    for dtype in types:
        if dtype == torch.int8:
            moved = [Int8Conv2d(layers[0]), Int8Linear(layers[1])]
        else:
            moved = [layer.to(device, dtype, memory_format=_layout(layer)) for layer in layers]
        share[dtype] = _time(moved, part, clock)
        # int8 is never emulated, but rounding tiny inputs takes longer than computing them.
        if dtype != torch.int8 and share[dtype] > HOPELESS * share[torch.float32]:
            continue
        if dtype == torch.float32 and device.type == "cpu":
            moved[0] = faster(moved[0])  # as exact mode computes it
        give_up = HOPELESS * seconds.get(torch.float32, float("inf"))
        seconds[dtype] = _time(moved, whole, clock, runs=3, give_up=give_up)
        # A library is loaded by its first call, whose time must not count.
        start = start or clock()
        if clock() - start > PROBE_SECONDS:
            break
    return seconds


def _clock(device: torch.device) -> Callable[[], float]:
    """Return a function that waits for the device, then returns the time in seconds."""
    if device.type == "cpu":
        return time.thread_time  # what other processes compute meanwhile does not count

    def clock() -> float:
        torch.accelerator.synchronize(device)
        return time.perf_counter()

    return clock


def _layout(layer: nn.Module) -> torch.memory_format:
    return torch.channels_last if isinstance(layer, nn.Conv2d) else torch.preserve_format


def _time(
    layers: Sequence[nn.Module],
    shapes: Sequence[tuple[int, ...]],
    clock: Callable[[], float],
    *,
    runs: int = 1,
    give_up: float = float("inf"),
) -> float:
    """Return the seconds that `layers` take for their inputs: the least of `runs`, after a first.

    A run of more than `give_up` seconds is the last one.
    """
    bias = layers[0].bias  # of the inputs' type, also where the weight is int8
    inputs = [torch.ones(shape, dtype=bias.dtype, device=bias.device) for shape in shapes]
    inputs[0] = inputs[0].contiguous(memory_format=torch.channels_last)
    taken: list[float] = []
    while len(taken) <= runs and (not taken or taken[-1] <= give_up):
        start = clock()
        for layer, x in zip(layers, inputs, strict=True):
            layer(x)
        taken.append(clock() - start)
    return min(taken[1:], default=taken[0])


class Stopwatch:
    """Adds up the seconds that all threads spend per stage.

    `wait` is called before a stage ends, so that a GPU's work counts.
    """

    def __init__(self, wait: Callable[[], None] = lambda: None):
        self.wait = wait
        self.seconds: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.wait()
            with self._lock:
                self.seconds[name] += time.perf_counter() - start

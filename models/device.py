"""Which device, how many cores and which number type a run uses."""

import logging

import torch

from utils import UsageError, cores_per_process, local_rank

logger = logging.getLogger(__name__)

MOST_WORKERS = 16  # batches at once in a process on CPU: each needs memory


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
        if device.index is None:
            device = torch.device("cuda", local_rank() % torch.cuda.device_count())
        torch.cuda.set_device(device)
    return device


def share_cores(device: torch.device, cores: int | None = None) -> tuple[int, int]:
    """Return (batches worked on at once, threads that help each of them with its pictures).

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


def set_matmul_precision(precision: str) -> None:
    """Allow TF32 for everything but `fp32` (it changes nothing where there is no such unit)."""
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
    torch.backends.cudnn.allow_tf32 = precision != "fp32"


def fast_dtype(device: torch.device) -> torch.dtype:
    """Return the 16-bit type that `device` computes fast, or float32 where it has none."""
    if device.type == "cpu":
        has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if has_bf16 else torch.float32
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return torch.bfloat16
    return torch.float16

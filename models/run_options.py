"""Which files, which device and which number type a scoring run uses."""

import logging
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import torch

from models.weights import RELEASE_CONFIG, RELEASE_DETECTOR_CONFIG, release_files
from utils import UsageError, cores_per_process, local_rank

logger = logging.getLogger(__name__)

MOST_WORKERS = 16  # batches at once in a process on CPU: each needs memory
CONFIGS = Path("configs")


@dataclass(frozen=True)
class Weights:
    """The files that a run scores with; `models` maps each judged part to its checkpoint."""

    cfg: str | None
    detector_config: str
    detector_weights: str
    models: dict[str, str]


def choose_weights(args: Namespace, root: Path) -> Weights:
    """Return the files that the flags name; the demo's where no weight flag is given.

    Raises UsageError naming the missing flags, or the released files that are needed and missing.
    """
    given = {part: getattr(args, f"{part}_model") for part in args.parts}
    named = [args.detector_config, args.detector_weights, *given.values()]
    if args.release:
        chosen = {"detector": args.detector_weights, **given}
        needed = [name for name, file in chosen.items() if not file]
        chosen |= {name: str(path) for name, path in release_files(root, needed).items()}
        return Weights(
            args.cfg or str(root / RELEASE_CONFIG),
            args.detector_config or str(root / RELEASE_DETECTOR_CONFIG),
            chosen["detector"],
            {part: chosen[part] for part in args.parts},
        )
    if not any(named):
        logger.info("no weights given: using the demo's, which know drawn people only")
        demo = root / "demo" / "weights"
        return Weights(
            args.cfg or str(root / CONFIGS / "demo" / "demo.yaml"),
            str(root / CONFIGS / "demo" / "yolo_world_demo.py"),
            str(demo / "detector.pth"),
            {part: str(demo / f"{part}.pth") for part in args.parts},
        )
    flags = ["--detector_config", "--detector_weights", *(f"--{p}_model" for p in given)]
    missing = [flag for flag, value in zip(flags, named, strict=True) if not value]
    if missing:
        raise UsageError(
            f"{', '.join(missing)}: missing; give all of {', '.join(flags)}, or fewer --parts"
        )
    return Weights(args.cfg, args.detector_config, args.detector_weights, given)


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


def share_cores(device: torch.device) -> tuple[int, int]:
    """Return (batches worked on at once, threads that help each of them with its pictures).

    On CPU a batch keeps to one core, so that results do not depend on how many there are. On a GPU
    the second batch is cut and resized while the first one is computed.
    """
    cores = cores_per_process()
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

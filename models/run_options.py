"""Which files, which device and which number type a scoring run uses."""

import logging
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import torch

from utils import UsageError, local_rank

logger = logging.getLogger(__name__)

CONFIGS = Path("configs")
YOLO_WORLD_XL = Path(
    "third_party/YOLO-World/"
    "yolo_world_v2_xl_vlpan_bn_2e-3_100e_4x8gpus_obj365v1_goldg_train_lvis_minival.py"
)
RELEASED_DETECTOR = Path("pretrain/yolo_world_v2_xl_obj365v1_goldg_cc3mlite_pretrain-5daf1395.pth")


@dataclass(frozen=True)
class Weights:
    """The files that a run scores with; `models` maps each judged part to its checkpoint."""

    cfg: str | None
    detector_config: str
    detector_weights: str
    models: dict[str, str]


def choose_weights(args: Namespace, root: Path) -> Weights:
    """Return the files that the flags name; the demo's where no weight flag is given.

    Raises UsageError naming the missing flags.
    """
    given = {part: getattr(args, f"{part}_model") for part in args.parts}
    named = [args.detector_config, args.detector_weights, *given.values()]
    if args.release:
        models = {p: str(root / "checkpoint/release" / f"{p}.pth") for p in args.parts}
        return Weights(
            args.cfg or str(root / CONFIGS / "vbench2_release.yaml"),
            args.detector_config or str(root / YOLO_WORLD_XL),
            args.detector_weights or str(root / RELEASED_DETECTOR),
            {part: given[part] or models[part] for part in args.parts},
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


def fast_dtype(device: torch.device) -> torch.dtype:
    """Return the 16-bit type that `device` computes fast, or float32 where it has none."""
    if device.type == "cpu":
        has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if has_bf16 else torch.float32
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return torch.bfloat16
    return torch.float16

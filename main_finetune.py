"""Fine-tune the anomaly classifier of one part: SimMIM's ViT-B, one logit, binary cross-entropy.

One process:
    python main_finetune.py \\
        --cfg configs/vit_base__800ep/simmim_finetune__vit_base__img224__800ep.yaml \\
        --train-path data/hand_train.jsonl --val-path data/hand_test.jsonl \\
        --pretrained pretrain/simmim_pretrain__vit_base__img224__800ep.pth --output checkpoint/hand
N processes, one per GPU (without GPUs: on the CPU):
    torchrun --nproc_per_node N main_finetune.py (the same flags)
Running the same command again continues where the run broke off.
"""

import argparse
import itertools
import json
import logging
import os
import time
from pathlib import Path

from configs.defaults import PARTS, ConfigError, differences, get_config
from utils import (
    UsageError,
    atomic_write,
    cores_per_process,
    distributed,
    gather_objects,
    rank,
    run_main,
    setup_logging,
    world_size,
)

logger = logging.getLogger("finetune")

# Flags that set a key, and what they say about themselves.
KEYS = {
    "train_path": ("DATA.TRAIN_PATH", "JSONL of the training crops"),
    "val_path": ("DATA.VAL_PATH", "JSONL of the crops to measure on"),
    "image_root": (
        "DATA.IMAGE_ROOT",
        "folder of the images (default: all_images/ beside the JSONL,"
        " else the folder named like the part, else the JSONL's own)",
    ),
    "part": ("DATA.PART", "human, face or hand (default: the prefix of the JSONL's name)"),
    "pretrained": ("PRETRAINED", "SimMIM pre-training file to start from"),
    "resume": (
        "MODEL.RESUME",
        "checkpoint to continue from, or to judge with --eval; what --output"
        " holds comes first when training",
    ),
    "output": ("OUTPUT", "folder of the run"),
    "batch_size": ("DATA.BATCH_SIZE", "images per process in one forward pass"),
    "accumulation_steps": ("TRAIN.ACCUMULATION_STEPS", "forward passes per optimiser step"),
    "use_checkpoint": (
        "TRAIN.USE_CHECKPOINT",
        "gradient checkpointing: less memory, a third slower",
    ),
    "precision": ("TRAIN.PRECISION", "fp32, tf32 (GPU) or bf16 (autocast)"),
    "compile": (
        "TRAIN.COMPILE",
        "torch.compile the network: a minute of waiting, then faster steps",
    ),
    "abnormal_label": (
        "DATA.ABNORMAL_LABEL",
        "which label of the JSONL means abnormal: auto, 0, 1",
    ),
    "seed": ("SEED", "seed of everything random"),
}


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=__doc__.split("\n", 2)[2],
        allow_abbrev=False,
    )
    parser.add_argument("--cfg", help="YAML of settings over the defaults")
    kinds = {"batch_size": int, "accumulation_steps": int, "seed": int}
    choices = {
        "part": PARTS,
        "precision": ("fp32", "tf32", "bf16"),
        "abnormal_label": ("auto", "0", "1"),
    }
    for name, (_, text) in KEYS.items():
        flag = "--" + name.replace("_", "-")
        if name in ("use_checkpoint", "compile"):
            parser.add_argument(flag, action="store_true", default=None, help=text)
        else:
            parser.add_argument(
                flag, type=kinds.get(name, str), choices=choices.get(name), help=text
            )
    parser.add_argument(
        "--eval",
        action="store_true",
        help="measure --resume (or the newest checkpoint in --output) and write the report",
    )
    parser.add_argument("--skip-check", action="store_true", help="do not open every image first")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, write labels.jpg, print the plan, and stop",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="delete the run of other settings that --output holds",
    )
    parser.add_argument(
        "--opts", nargs="+", default=[], metavar="KEY VALUE", help="settings by name, over the YAML"
    )
    return parser.parse_args(argv)


def read_settings(args):
    """Return the merged, frozen settings; required ones that are missing name their flag."""
    flags = {key: getattr(args, name) for name, (key, _) in KEYS.items()}
    config = get_config(args.cfg, args.opts, {k: v for k, v in flags.items() if v is not None})
    needed = {"--val-path": config.DATA.VAL_PATH, "--output": config.OUTPUT}
    if not args.eval:
        needed = {"--train-path": config.DATA.TRAIN_PATH, **needed}
    for flag, value in needed.items():
        if not value:
            raise UsageError(f"{flag}: missing")
    if config.DATA.IMG_SIZE % config.MODEL.VIT.PATCH_SIZE:
        raise UsageError("DATA.IMG_SIZE: expected a multiple of MODEL.VIT.PATCH_SIZE")
    mixing = config.AUG.MIXUP > 0 or config.AUG.CUTMIX > 0
    if not args.eval and mixing and config.DATA.BATCH_SIZE % 2:
        raise UsageError(
            f"--batch-size: mixup and cutmix need an even number, got {config.DATA.BATCH_SIZE}"
        )
    return config


def read_data(config, path: str):
    """Return the manifest of `path` after checking its lines, and say what is in it."""
    from data.checks import contradictions
    from data.dataset import read_manifest

    manifest = read_manifest(
        path,
        image_root=config.DATA.IMAGE_ROOT,
        part=config.DATA.PART,
        abnormal_label=config.DATA.ABNORMAL_LABEL,
    )
    abnormal = int(manifest.targets.sum())
    logger.info(
        "%s: %d crops, %d normal and %d abnormal; label %d is abnormal (%s); images in %s",
        *(path, len(manifest), len(manifest) - abnormal, abnormal),
        *(manifest.abnormal_label, manifest.label_source, manifest.root),
    )
    if both := contradictions(manifest):
        logger.warning("%s: %d images have both labels (first: %s)", path, len(both), both[0])
    return manifest


def check_images(*manifests) -> None:
    """Open every image, each process its share; raise UsageError with the first broken one."""
    from data.checks import find_unreadable

    mine = slice(rank(), None, world_size())
    for manifest in manifests:
        found = find_unreadable(
            manifest, workers=cores_per_process(), share=mine, quiet=rank() != 0
        )
        broken = sorted(itertools.chain.from_iterable(gather_objects(found)))
        if broken:
            more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
            raise UsageError(f"{broken[0][1]}{more}")


def print_settings(config) -> None:
    logger.info("settings that differ from the defaults:")
    for key, (default, value) in differences(config).items():
        logger.info("  %s: %r (default %r)", key, value, default)


def train(config, args, device) -> int:
    """Check everything, show the labels, train; a dry run stops before the first step."""
    from data.checks import draw_labels, shared_images
    from models.training import run_folder
    from models.training.engine import Run
    from models.training.finetune import images_per_step

    folder = Path(config.OUTPUT)
    conflict = gather_objects(run_folder.find_conflict(folder, config))[0]
    if conflict and not args.overwrite:
        raise UsageError(conflict)
    if rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        run_folder.remove_leftovers(folder)
    setup_logging(None if args.dry_run else folder / "log.txt")
    print_settings(config)
    manifest, val = (
        read_data(config, config.DATA.TRAIN_PATH),
        read_data(config, config.DATA.VAL_PATH),
    )
    if both := shared_images(manifest, val):
        logger.warning(
            "%d images are in both %s and %s (first: %s): the figures will flatter",
            *(len(both), manifest.path, val.path, both[0]),
        )
    run = Run(config, manifest, val, device)
    run.resume(own=not conflict)
    if not args.skip_check:
        check_images(manifest, val)
    if rank() == 0:
        with atomic_write(folder / "labels.jpg", "wb") as file:
            draw_labels(manifest, seed=config.SEED).save(file, "JPEG", quality=90)
        logger.info("look at %s: are the labels the right way round?", folder / "labels.jpg")
    logger.info(
        "%d process(es) on %s, %d images a step, %d steps an epoch, epoch %d of %d, lr %.4g",
        *(world_size(), device.type, images_per_step(config), run.steps, run.start),
        *(config.TRAIN.EPOCHS, run.trainer.optimizer.param_groups[-1]["initial_lr"]),
    )
    if args.dry_run:
        return 0
    if rank() == 0:
        if conflict:  # only now, when nothing is left that could stop the new run
            run_folder.clear(folder)
        with atomic_write(folder / "config.yaml") as file:
            file.write(config.dump())
    run.train()
    return 0


def evaluate(config, args, device) -> int:
    """Judge a checkpoint; print the figures and write the report."""
    from models.training.engine import evaluate as judge

    setup_logging()
    print_settings(config)
    val = read_data(config, config.DATA.VAL_PATH)
    if not args.skip_check:
        check_images(val)
    metrics = judge(config, val, device, overwrite=args.overwrite)
    logger.info("report: %s", Path(config.OUTPUT) / "report")
    if rank() == 0:
        print(json.dumps(metrics, indent=1))
    return 0


def start(args) -> int:
    """Read the settings, join the other processes, train or evaluate."""
    config = read_settings(args)
    import torch

    from models.checkpoint import CheckpointError
    from models.device import set_matmul_precision

    set_matmul_precision(config.TRAIN.PRECISION)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", cores_per_process())))
    try:
        with distributed() as device:
            return (evaluate if args.eval else train)(config, args, device)
    except CheckpointError as error:
        raise UsageError(str(error)) from error


def main(argv=None) -> int:
    args = parse_args(argv)
    try:
        return start(args)
    except (UsageError, ConfigError, OSError) as error:
        if rank() == 0:
            raise UsageError(str(error)) from error
        time.sleep(5)  # process 0 mostly says the same, and torchrun then ends this one
        raise UsageError(f"process {rank()}: {error}") from error


if __name__ == "__main__":
    run_main(main)

"""Fine-tune the anomaly classifier of one part: SimMIM's ViT-B, one logit, binary cross-entropy.

One process:
    python main_finetune.py \\
        --cfg configs/vit_base__800ep/simmim_finetune__vit_base__img224__800ep.yaml \\
        --train-path data/hand_train.jsonl --val-path data/hand_test.jsonl \\
        --pretrained pretrain/simmim_pretrain__vit_base__img224__800ep.pth --output checkpoint/hand
N processes, one per GPU (without GPUs: on the CPU):
    torchrun --nproc_per_node N main_finetune.py (the same flags)
Run the same command again to resume a run that was interrupted.
"""

import argparse
import json
import logging
from pathlib import Path

import torch
from timm.utils import random_seed
from torch.distributed.elastic.multiprocessing.errors import record

from human_anomaly.configs.defaults import PARTS, differences, get_config
from human_anomaly.configs.machine import cores_per_process, number_in
from human_anomaly.configs.places import shipped
from human_anomaly.data.checks import (
    check_images,
    check_labels,
    read_data,
    save_label_sheet,
    warn_of_shared_images,
)
from human_anomaly.data.dataset import Manifest, read_batches, worker_errors
from human_anomaly.models.checkpoint import own_settings, read_checkpoint
from human_anomaly.models.classifier import load_classifier
from human_anomaly.models.device import set_matmul_precision
from human_anomaly.models.training import calibrate, engine, recipe, run_folder
from human_anomaly.models.training.history import History, check_tensorboard
from human_anomaly.models.training.metrics import evaluate
from human_anomaly.models.training.random_states import random_states, set_random_states
from human_anomaly.models.training.report import check_report, save_report
from human_anomaly.utils import (
    UsageError,
    command_parser,
    distributed,
    gather_objects,
    rank,
    run_main,
    setup_logging,
    shared_errors,
    stop_all,
    world_size,
)

logger = logging.getLogger("finetune")


def parse_args(argv=None) -> argparse.Namespace:
    """Return the flags; the `dest` of a flag that sets a key of the settings is that key."""
    parser = command_parser(__doc__, allow_abbrev=False)
    add, switch = parser.add_argument, "store_true"
    add("--cfg", type=shipped, help="YAML of settings, over the defaults")
    add("--opts", nargs="+", default=[], metavar="KEY VALUE", help="settings, over the YAML")
    add("--train-path", dest="DATA.TRAIN_PATH", metavar="JSONL", help="the training crops")
    add("--val-path", dest="DATA.VAL_PATH", metavar="JSONL", help="the crops to measure on")
    text = "folder of the images (default: all_images/, the part's folder or the JSONL's own)"
    add("--image-root", dest="DATA.IMAGE_ROOT", metavar="DIR", help=text)
    text = "what the crops show (default: the part that the JSONL's name begins with)"
    add("--part", dest="DATA.PART", choices=PARTS, help=text)
    text = "which label in the JSONL means abnormal (default: auto; the log says which and why)"
    add("--abnormal-label", dest="DATA.ABNORMAL_LABEL", choices=("auto", "0", "1"), help=text)
    text = "file to start from: SimMIM's pre-training, or a classifier, released or of a run"
    add("--pretrained", dest="PRETRAINED", type=shipped, metavar="FILE", help=text)
    text = "checkpoint to resume from if --output holds none; with --eval, the one to measure"
    add("--resume", dest="MODEL.RESUME", metavar="FILE", help=text)
    add("--output", dest="OUTPUT", metavar="DIR", help="folder of the run")
    text = "images per process in one forward pass"
    add("--batch-size", dest="DATA.BATCH_SIZE", metavar="N", type=int, help=text)
    text = "forward passes per optimiser step"
    add("--accumulation-steps", dest="TRAIN.ACCUMULATION_STEPS", metavar="N", type=int, help=text)
    text = "number type of the network: fp32, tf32 (on a GPU) or bf16 (autocast)"
    add("--precision", dest="TRAIN.PRECISION", choices=("fp32", "tf32", "bf16"), help=text)
    text = "gradient checkpointing: less memory, a third slower"
    add("--use-checkpoint", dest="TRAIN.USE_CHECKPOINT", action=switch, default=None, help=text)
    text = "torch.compile the network: a minute of waiting, then faster steps"
    add("--compile", dest="TRAIN.COMPILE", action=switch, default=None, help=text)
    add("--seed", dest="SEED", metavar="N", type=int, help="seed of all random numbers")
    text = "do not train: measure --resume (default: the newest in --output), write the report"
    add("--eval", action=switch, help=text)
    text = "after training, fit the scores to the part's threshold: writes ckptN.calibrated.pth"
    add("--calibrate", action=switch, help=text)
    text = "with --calibrate: the share of normal crops to flag (default: p becomes a probability)"
    add("--false-flags", metavar="SHARE", type=float, help=text)
    add("--tensorboard", action=switch, help="also write the curves to OUTPUT/tensorboard")
    add("--skip-check", action=switch, help="do not open every image first")
    text = "check everything, write labels.jpg, print the plan, and stop"
    add("--dry-run", action=switch, help=text)
    text = "replace the run (with --eval: the report) of other settings in --output"
    add("--overwrite", action=switch, help=text)
    return parser.parse_args(argv)


def read_settings(args: argparse.Namespace):
    """Return the merged, frozen settings; raises UsageError that names a missing or wrong flag."""
    flags = {key: v for key, v in vars(args).items() if key.isupper() and v is not None}
    if args.eval and args.cfg is None and "OUTPUT" in flags:
        measured = flags.get("MODEL.RESUME") or Path(flags["OUTPUT"], "last.pth")
        if saved := own_settings(measured):
            args.cfg, args.opts = saved, ["MODEL.RESUME", "''", *args.opts]
    config = get_config(args.cfg, args.opts, flags)
    if args.tensorboard:
        check_tensorboard()
    needed = {"--val-path": config.DATA.VAL_PATH, "--output": config.OUTPUT}
    if not args.eval:
        needed = {"--train-path": config.DATA.TRAIN_PATH, **needed}
    for flag, value in needed.items():
        if not value:
            raise UsageError(f"{flag}: missing")
    calibrate.check_share(args.false_flags)
    if args.false_flags is not None and not args.calibrate:
        raise UsageError("--false-flags: expected --calibrate beside it")
    is_mixing = config.AUG.MIXUP > 0 or config.AUG.CUTMIX > 0
    if not args.eval and is_mixing and config.DATA.BATCH_SIZE % 2:
        raise UsageError(
            f"--batch-size: mixup and cutmix need an even number, got {config.DATA.BATCH_SIZE}"
        )
    return config


def start_log(config, path: Path | None) -> None:
    """Log to standard error and to `path`; say which settings differ from the defaults."""
    setup_logging(path)
    logger.info("settings that differ from the defaults:")
    for key, (default, value) in differences(config).items():
        logger.info(f"  {key}: {value!r} (default {default!r})")


def read_crops(config, path: str) -> Manifest:
    """Return the checked lines of the JSONL at `path`."""
    data = config.DATA
    return read_data(
        path, image_root=data.IMAGE_ROOT, part=data.PART, abnormal_label=data.ABNORMAL_LABEL
    )


def train(config, args: argparse.Namespace, device: torch.device) -> None:
    """Check everything, show the labels, and train; a dry run stops before the first step."""
    folder = Path(config.OUTPUT)
    with shared_errors():
        holds_other_run = run_folder.prepare(folder, config, overwrite=args.overwrite)
    start_log(config, None if args.dry_run else folder / "log.txt")
    with shared_errors():
        train_crops = read_crops(config, config.DATA.TRAIN_PATH)
        val_crops = read_crops(config, config.DATA.VAL_PATH)
        check_labels(train_crops, val_crops)
        warn_of_shared_images(train_crops, val_crops)
        state = recipe.build_state(config, len(train_crops), device)
        random_seed(config.SEED, rank())  # each process draws for other crops
        resumed = run_folder.resume(state, None if holds_other_run else folder, config.MODEL.RESUME)
    if len(set(starts := gather_objects(state.next_epoch))) > 1:
        stop_all(f"--output: machines do not share it: processes would start at epochs {starts}")
    if not args.skip_check:
        with shared_errors():
            check_images(train_crops, val_crops)
    if rank() == 0:
        save_label_sheet(folder / "labels.jpg", train_crops, seed=config.SEED)
    logger.info(
        f"{world_size()} process(es) on {device.type}, {state.images_per_step} images a step, "
        f"{state.steps_per_epoch} steps an epoch, epoch {state.next_epoch} of "
        f"{config.TRAIN.EPOCHS}, lr {state.optimizer.param_groups[-1]['initial_lr']:.4g}"
    )
    if args.dry_run:
        return
    if rank() == 0:
        run_folder.begin(folder, config, state, resumed, clear_first=holds_other_run)
    measured = train_epochs(config, state, train_crops, val_crops, tensorboard=args.tensorboard)
    wanted = {"calibrated": args.calibrate, "false_flags": args.false_flags}
    finish(config, state, val_crops, measured, **wanted)


def train_epochs(
    config, state: run_folder.TrainingState, train_crops, val_crops, *, tensorboard: bool
):
    """Train, measure and save the epochs that are left; return the last (logits, metrics)."""
    folder, device, epochs = Path(config.OUTPUT), state.device, config.TRAIN.EPOCHS
    epochs_left = range(state.next_epoch, epochs)
    network = engine.wrap_for_processes(state.model, device)
    take_step = recipe.build_step(config, network, state)
    batches = read_batches(recipe.load_train(config, train_crops, epochs_left))
    val_loader = recipe.load_val(config, val_crops)
    steps = state.steps_per_epoch
    history = History(folder, steps, state.next_epoch, tensorboard=tensorboard)
    step_log = engine.StepLog(history, train_crops.names, epochs, steps, config.PRINT_FREQ)
    measured = None
    for epoch in epochs_left:
        train_loss = engine.train_one_epoch(
            network,
            batches,
            take_step,
            state.schedule,
            accumulation=config.TRAIN.ACCUMULATION_STEPS,
            epoch=epoch,
            log=step_log,
        )
        # Measuring may draw random numbers (an import does), but must not change the training.
        states = random_states(device)
        measured = evaluate(config, state.model, val_crops, val_loader, device)
        metrics = measured[1]
        set_random_states(states, device)
        state.finish_epoch(epoch, metrics)
        engine.log_epoch(history, train_loss, metrics, state)
        run_folder.save_epoch(
            folder, config, state, metrics, states, abnormal_label=train_crops.abnormal_label
        )
    return measured


def finish(
    config,
    state: run_folder.TrainingState,
    crops: Manifest,
    measured,
    *,
    calibrated: bool,
    false_flags: float | None,
) -> None:
    """Write the report if it is missing, and the calibrated checkpoint if it is asked for.

    `measured` is what `train_epochs` returned: None if an earlier run had trained all epochs.
    """
    folder = Path(config.OUTPUT)
    checkpoint = folder / f"ckpt{config.TRAIN.EPOCHS - 1}.pth"
    target = calibrate.calibrated_path(checkpoint)
    is_due = calibrated and not target.is_file()
    if (folder / "report" / "metrics.json").is_file() and not is_due:
        return
    if measured is None:
        loader = recipe.load_val(config, crops)
        measured = evaluate(config, state.model, crops, loader, state.device)
    logits, metrics = measured
    engine.tell_best(checkpoint, metrics, state.best)
    if not is_due:
        save_report(folder, checkpoint, crops, logits, metrics)
        return
    try:
        with shared_errors():
            after, metrics = calibrate.calibrate_file(
                checkpoint,
                target,
                crops,
                logits,
                threshold=metrics["threshold"],
                false_flags=false_flags,
                abnormal_index=config.MODEL.ABNORMAL_INDEX,
            )
    except UsageError:  # the model is too poor to calibrate: its report shows why
        save_report(folder, checkpoint, crops, logits, metrics)
        raise
    save_report(folder, target, crops, after, metrics, before=logits)


def evaluate_checkpoint(config, args: argparse.Namespace, device: torch.device) -> None:
    """Measure --resume, or the newest checkpoint in --output; print metrics, write the report."""
    folder = Path(config.OUTPUT)
    start_log(config, None)
    with shared_errors():
        crops = read_crops(config, config.DATA.VAL_PATH)
        path = run_folder.find_checkpoint(folder, config.MODEL.RESUME)
        model = load_classifier(path, config, device)
        check_report(folder / "report", path, crops, overwrite=args.overwrite)
    if not args.skip_check:
        with shared_errors():
            check_images(crops)
    if record := read_checkpoint(path).get("calibration"):
        logger.info(f"{path}: {calibrate.tell(record)}")
    if config.TRAIN.COMPILE:
        model.compile()
    logits, metrics = evaluate(config, model, crops, recipe.load_val(config, crops), device)
    save_report(folder, path, crops, logits, metrics)
    if rank() == 0:
        print(json.dumps(metrics, indent=1))


def main(argv=None) -> int:
    args = parse_args(argv)
    torch.set_num_threads(number_in("OMP_NUM_THREADS") or cores_per_process())
    with distributed() as device, worker_errors():
        with shared_errors():
            config = read_settings(args)
        set_matmul_precision(config.TRAIN.PRECISION)
        run = evaluate_checkpoint if args.eval else train
        run(config, args, device)
    return 0


if __name__ == "__main__":
    run_main(record(main), (OSError,))  # torchrun repeats a recorded error at the end

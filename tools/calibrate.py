"""Fit a classifier's scores to its part's documented threshold, with labelled crops.

    python -m tools.calibrate checkpoint/hand/ckpt29.pth --false-flags 0.05 \\
        --cfg configs/vit_base__800ep/simmim_finetune__vit_base__img224__800ep.yaml \\
        --val-path data/hand_test.jsonl

The thresholds 0.45, 0.3 and 0.32 were chosen for the released weights. Another training gives
other scores, and these thresholds may flag all of its crops or none. A scale and a shift of the
logit correct that. They are folded into the last layer, so the file's layout and the scoring rule
stay as they are. The order of crops does not change, so AUROC does not either. The result is a new
file, which also records the calibration, and a report with the figures before and after.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from human_anomaly.configs.defaults import PARTS, get_config, thresholds
from human_anomaly.configs.places import shipped
from human_anomaly.data.checks import check_images, read_data
from human_anomaly.models.checkpoint import own_settings, pick_state, read_checkpoint
from human_anomaly.models.classifier import load_classifier
from human_anomaly.models.device import choose_device
from human_anomaly.models.training import recipe
from human_anomaly.models.training.calibrate import calibrate_file, calibrated_path, check_share
from human_anomaly.models.training.metrics import predict
from human_anomaly.models.training.report import write_report
from human_anomaly.utils import UsageError, command_parser, run_main, setup_logging


def choose_output(args: argparse.Namespace) -> Path:
    """Return the file to write; raises UsageError where it would replace another."""
    state = pick_state(read_checkpoint(args.checkpoint), ("model",), args.checkpoint)
    is_released = len(state.get("head.bias", ())) == 2
    if is_released and args.output is None:
        raise UsageError(
            f"--output: expected a name for the calibrated copy of {args.checkpoint}, which has "
            "the released layout"
        )
    output = args.output or calibrated_path(args.checkpoint)
    if output.resolve() == args.checkpoint.resolve():
        raise UsageError(f"--output: expected another file than the checkpoint, got {output}")
    if output.exists() and not args.overwrite:
        raise UsageError(f"--output: {output} exists; choose another name, or --overwrite")
    return output


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__, "tools.calibrate")
    add = parser.add_argument
    add("checkpoint", type=Path, help="the classifier's file, which is not changed")
    add("--val-path", required=True, metavar="JSONL", help="labelled crops it was not trained on")
    text = "share of normal crops to flag (default: none, p becomes a probability)"
    add("--false-flags", type=float, metavar="SHARE", help=text)
    text = "file to write (default: CHECKPOINT's name with .calibrated.pth, beside it)"
    add("--output", type=Path, metavar="FILE", help=text)
    add("--overwrite", action="store_true", help="replace --output")
    add("--image-root", default="", metavar="DIR", help="folder of the images")
    text = "what the crops show (default: the part that the JSONL's name begins with)"
    add("--part", default="", choices=PARTS, help=text)
    text = "which label in the JSONL means abnormal (default: auto)"
    add("--abnormal-label", default="auto", choices=("auto", "0", "1"), help=text)
    text = "YAML with the classifier's shape and the thresholds (default: of the checkpoint's run)"
    add("--cfg", type=shipped, metavar="FILE", help=text)
    add("--opts", nargs="+", default=[], metavar="KEY VALUE", help="settings, over the YAML")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    args = parser.parse_args(argv)
    check_share(args.false_flags)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    setup_logging()
    config = get_config(args.cfg or own_settings(args.checkpoint), args.opts)
    device = choose_device(args.device)
    crops = read_data(
        args.val_path,
        image_root=args.image_root,
        part=args.part,
        abnormal_label=args.abnormal_label,
    )
    if not crops.part:
        raise UsageError(f"--part: missing, and the name of {args.val_path} begins with no part")
    output = choose_output(args)
    model = load_classifier(args.checkpoint, config, device)
    check_images(crops)
    logits = predict(model, recipe.load_val(config, crops), len(crops), device=device)
    after, figures = calibrate_file(
        args.checkpoint,
        output,
        crops,
        logits,
        threshold=thresholds(config)[crops.part],
        false_flags=args.false_flags,
        abnormal_index=config.MODEL.ABNORMAL_INDEX,
    )
    write_report(output.with_suffix(".report"), output, crops, after, figures, before=logits)
    return 0


if __name__ == "__main__":
    run_main(main, (OSError,))

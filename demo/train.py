"""Train the demo's four checkpoints on drawn people, from nothing: `python -m demo.train`.

Draws stills, trains the detector on them, has preprocess.py cut out the parts that this detector
finds, labels the crops by the truth, and has main_finetune.py train a classifier per part. Detector
and classifiers are calibrated on further stills. After an interruption the same command resumes.
"""

import argparse
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

from human_anomaly.configs.defaults import get_config
from human_anomaly.configs.machine import cores_per_process
from human_anomaly.configs.parts import BASE_PARTS
from human_anomaly.configs.places import home
from human_anomaly.demo.paths import CONFIG, DETECTOR_CONFIG, ROOT, WEIGHTS
from human_anomaly.demo.truth import label_crops, read_truth
from human_anomaly.demo.world.files import chunks, draw_stills, read_stills, truth_file
from human_anomaly.utils import (
    UsageError,
    atomic_write,
    command_parser,
    read_jsonl,
    run_main,
    write_jsonl,
)

STILLS, DETECTOR_STILLS = 6000, 2000  # the detector is trained on the first of the stills
EPOCHS = {"human": 30, "face": 4, "hand": 4}  # bodies are the hardest to learn
# Stills that only calibrate: no training and no evaluation draws these seeds.
CALIBRATION = range(100_000, 101_000)
DETECTOR_CALIBRATION = 300  # of them suffice for the detector
FALSE_FLAGS = {"human": 0.03, "face": 0.005, "hand": 0.01}  # shares of normal crops
HELD_OUT = 0.1  # share of the stills on which the classifiers are measured while they train


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__, "demo.train")
    add = parser.add_argument
    work = home() / "build/demo"
    add("--work", type=Path, default=work, help="folder for stills, crops and runs")
    add("--output", type=Path, default=WEIGHTS, help="folder for the checkpoints")
    add("--stills", type=int, default=STILLS, help=f"how many to draw ({STILLS})")
    text = f"how many of them train the detector ({DETECTOR_STILLS})"
    add("--detector-stills", type=int, default=DETECTOR_STILLS, help=text)
    text = f"how many to calibrate on ({len(CALIBRATION)}; 0: do not calibrate)"
    add("--calibration-stills", type=int, default=len(CALIBRATION), help=text)
    text = "settings of the classifiers, for example TRAIN.EPOCHS 1"
    add("--opts", nargs="+", default=[], metavar="KEY VALUE", help=text)
    args = parser.parse_args()
    if not 0 < args.detector_stills <= args.stills:
        parser.error(
            f"--detector-stills: expected 1 to {args.stills} (--stills), got {args.detector_stills}"
        )
    return args


def say(text: str) -> None:
    """Print `text` after the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def seeds_of(args: argparse.Namespace) -> dict[str, range]:
    """Return the seeds of the stills in each folder of the work folder."""
    return {"stills": range(args.stills), "calibration": CALIBRATION[: args.calibration_stills]}


def draw(args: argparse.Namespace) -> None:
    """Draw the stills that the work folder does not hold yet."""
    for name, seeds in seeds_of(args).items():
        for done in draw_stills(args.work / name, seeds, workers=cores_per_process()):
            if done % 500 == 0 or done == len(seeds):
                say(f"drawn: {done} of {len(seeds)} {name}")


def precision() -> str:
    """Return bf16 where the hardware computes it fast, else fp32: emulated bf16 would take days."""
    import torch

    from human_anomaly.models.device import choose_device, fast_dtype

    return "bf16" if fast_dtype(choose_device("auto"), int8=False) == torch.bfloat16 else "fp32"


def train_detector(args: argparse.Namespace) -> Path:
    """Train the detector unless its file exists; return that file."""
    target = args.work / "detector.pth"
    if target.exists():
        return target
    import torch

    from human_anomaly.demo.detector_data import DrawnParts
    from human_anomaly.demo.detector_training import train
    from human_anomaly.models.yolo_world.build import read_config

    config = read_config(DETECTOR_CONFIG)
    config.precision = precision()
    seeds, size = range(args.detector_stills), config.img_scale[0]
    samples = DrawnParts(args.work / "stills", seeds, size=size)
    say(f"detector: {config.max_epochs} epochs of {len(samples)} samples")
    content = train(config, samples, args.work / "detector")
    with atomic_write(target, "wb") as file:
        torch.save(content, file)
    return target


def calibrate_detector(args: argparse.Namespace, source: Path) -> Path:
    """Shift the detector's scores so that they fit the calibration stills; return the new file."""
    target = args.work / "detector.calibrated.pth"
    if target.exists():
        return target
    from human_anomaly.demo.detector_calibration import calibrate

    seeds = seeds_of(args)["calibration"][:DETECTOR_CALIBRATION]
    stills = list(read_stills(args.work / "calibration", seeds))
    threshold = get_config(CONFIG).DETECTOR.SCORE_THR
    shift = calibrate(DETECTOR_CONFIG, source, target, stills, threshold)
    say(f"detector: logits shifted by {shift:+.3f}")
    return target


def processes() -> int:
    """Return how many processes train a classifier: on a CPU two, of one core each.

    The threads of a single process would wait for the core that loads the crops.
    """
    import torch

    from human_anomaly.models.device import choose_device

    is_cpu = choose_device("auto") == torch.device("cpu")
    return 2 if is_cpu and cores_per_process() > 1 else 1


def run(*words: object) -> None:
    """Run Python with these words from the project's folder; raises UsageError if it fails."""
    command = [sys.executable, *map(str, words)]
    say(" ".join(command[1:])[:160])
    if status := subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise UsageError(f"{' '.join(command[1:3])} ended with status {status}")


def cut_crops(args: argparse.Namespace, detector: Path) -> Path:
    """Have preprocess.py cut the parts out of all stills; return the folder of crops."""
    crops = args.work / "crops"
    run(
        *(
            "-m",
            "human_anomaly.preprocess",
            "--input",
            *chain.from_iterable(folders_of(args).values()),
        ),
        *("--output", crops),
        *("--detector-config", DETECTOR_CONFIG, "--detector-weights", detector),
    )
    return crops


def folders_of(args: argparse.Namespace) -> dict[str, list[Path]]:
    """Return the folders of stills by their purpose: "train", "val" and "calibration"."""
    stills, calibration = (
        [folder for folder, _ in chunks(args.work / name, seeds)]
        for name, seeds in seeds_of(args).items()
    )
    held_out = max(1, round(HELD_OUT * len(stills)))
    return {"train": stills[:-held_out], "val": stills[-held_out:], "calibration": calibration}


def write_lists(args: argparse.Namespace, crops: Path) -> None:
    """Write {part}_{train,val,calibration}.jsonl, labelled by the truth and split by still."""
    boxes = read_jsonl(crops / "boxes.jsonl")
    for purpose, folders in folders_of(args).items():
        truth = {}
        for folder in folders:
            truth |= read_truth(truth_file(folder))
        wanted = [row for row in boxes if row["source"] in truth]
        for part in BASE_PARTS:
            path = crops / f"{part}_{purpose}.jsonl"
            found = label_crops(wanted, truth, part)
            rows = [[file.removeprefix(f"{part}/"), *rest] for file, *rest in found]
            write_jsonl(path, rows)
            abnormal = sum(label for _, label, _ in rows)
            say(f"{path.name}: {len(rows)} crops, {abnormal} abnormal")


def train_classifier(args: argparse.Namespace, crops: Path, part: str) -> Path:
    """Train the part's classifier unless its last checkpoint exists; return that file."""
    count = processes()
    opts = ["TRAIN.EPOCHS", str(EPOCHS[part]), "TRAIN.PRECISION", precision()]
    opts += ["DATA.BATCH_SIZE", str(get_config(CONFIG).DATA.BATCH_SIZE // count), *args.opts]
    output = args.work / part
    target = output / f"ckpt{get_config(CONFIG, opts).TRAIN.EPOCHS - 1}.pth"
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count]
    if not target.exists():
        run(
            *(launch if count > 1 else []),
            *("-m", "human_anomaly.main_finetune", "--cfg", CONFIG),
            *("--train-path", crops / f"{part}_train.jsonl"),
            *("--val-path", crops / f"{part}_val.jsonl"),
            *("--image-root", crops / part),
            *("--output", output, "--skip-check", "--opts", *opts),
        )
    return target


def calibrate_classifier(crops: Path, part: str, source: Path) -> Path:
    """Calibrate the part's classifier on the calibration stills' crops; return the new file."""
    target = source.with_suffix(".calibrated.pth")
    run(
        *("-m", "human_anomaly.tools.calibrate", source, "--output", target, "--overwrite"),
        *("--cfg", CONFIG, "--false-flags", FALSE_FLAGS[part]),
        *("--val-path", crops / f"{part}_calibration.jsonl"),
        *("--image-root", crops / part),
    )
    return target


def pack(args: argparse.Namespace, detector: Path, classifiers: dict[str, Path]) -> None:
    """Write the four files in float16: weights and the prompts' embeddings, no optimiser."""
    import torch

    from human_anomaly.models.checkpoint import pick_state, read_checkpoint
    from human_anomaly.tools.export_vocabulary import export_vocabulary

    args.output.mkdir(parents=True, exist_ok=True)
    export_vocabulary(detector, args.output / "detector.pth", half=True)
    for part, path in classifiers.items():
        content = read_checkpoint(path)
        state = pick_state(content, ("model",), path)
        state = {k: v.half() if v.is_floating_point() else v.clone() for k, v in state.items()}
        with atomic_write(args.output / f"{part}.pth", "wb") as file:
            torch.save({"model": state, "epoch": content["epoch"]}, file)
    total = sum((args.output / f"{n}.pth").stat().st_size for n in ("detector", *classifiers))
    say(f"{args.output}: four checkpoints, {total / 1e6:.1f} MB")


def main() -> int:
    args = parse_args()
    start = time.monotonic()
    args.work.mkdir(parents=True, exist_ok=True)
    draw(args)
    detector = train_detector(args)
    if args.calibration_stills:
        detector = calibrate_detector(args, detector)
    crops = cut_crops(args, detector)
    write_lists(args, crops)
    classifiers = {part: train_classifier(args, crops, part) for part in BASE_PARTS}
    if args.calibration_stills:
        classifiers = {p: calibrate_classifier(crops, p, file) for p, file in classifiers.items()}
    pack(args, detector, classifiers)
    say(f"done in {(time.monotonic() - start) / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    run_main(main, (OSError,))

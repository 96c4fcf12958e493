"""Collect the labels that a person gave to crops, and write the lists that training reads.

    python -m tools.label crops --hand-model FILE  # judges crops: likely anomalies come first
    python -m tools.label crops --page             # writes crops/label.html: label in a browser, or
    python -m tools.label crops --template         # crops/labels.csv to fill in, or sort files
    python -m tools.label crops                    # then: reads the labels and writes the lists

There are three ways to label. The page saves `labels.json`; move it into the folder of crops. Or
move crops into `crops/hand/normal/` and `crops/hand/abnormal/` and leave the rest. Or write
`crops/labels.csv` or `crops/hand.csv` with the columns `file,label`, such as
`hand/a_f000012_p0_1.jpg,abnormal`. The last command writes `{part}.jsonl` with the labelled crops,
0 normal and 1 abnormal, and `overview_{part}.jpg`; it names unlabelled and contradictory crops.
The first command writes crops/p_abnormal.json, from which the page sorts crops. It is slow without
a GPU, so it can run elsewhere; --page and --template may be added to it.
"""

import argparse
import csv
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from human_anomaly.configs.defaults import PARTS, get_config
from human_anomaly.configs.flags import add_model_flags, at_least, given_models
from human_anomaly.configs.machine import cores_per_process
from human_anomaly.configs.places import shipped, tool
from human_anomaly.data.cropping.crop_lists import (
    LABELS,
    Crop,
    by_decision,
    list_crops,
    write_lists,
)
from human_anomaly.data.cropping.label_page import (
    PROBABILITIES_FILE,
    read_probabilities,
    write_page,
)
from human_anomaly.data.cropping.labels import collect
from human_anomaly.utils import (
    UsageError,
    atomic_write,
    command_parser,
    run_main,
    setup_logging,
    write_json,
)

logger = logging.getLogger(__name__)


def judge_crops(args: argparse.Namespace) -> None:
    """Write p_abnormal.json: p of the crops of each part with a checkpoint; keep other parts' p."""
    from human_anomaly.models.classifier import input_of, load_classifier
    from human_anomaly.models.device import choose_device
    from human_anomaly.models.scoring.judge import CropJudge

    config, device = get_config(args.cfg, args.opts), choose_device(args.device)
    path, probabilities = args.folder / PROBABILITIES_FILE, read_probabilities(args.folder)
    for part, model in given_models(args).items():
        places = list_crops(args.folder, part)
        if not places:
            raise UsageError(f"--{part}-model: no {part} crops in {args.folder}")
        classifiers = {part: load_classifier(model, config, device)}
        threads = cores_per_process()
        judge = CropJudge(classifiers, input_of(config), device=device, threads=threads)
        files = [args.folder / part / place for place in places]
        judged = zip(files, score_files(judge, part, files, args.batch_size), strict=True)
        found = {f"{part}/{file.name}": round(p, 4) for file, p in judged if np.isfinite(p)}
        known = {f: p for f, p in probabilities.items() if not f.startswith(f"{part}/")}
        probabilities = known | found
        logger.info(f"{part}: {len(found):,} of {len(files):,} crops judged")
    write_json(path, probabilities)
    logger.info(f"{path}: written")


def score_files(judge, part: str, files: Sequence[Path], batch: int) -> list[float]:
    """Return each image's p(abnormal), or NaN and a warning where it cannot be read."""
    from human_anomaly.data.dataset import read_image
    from human_anomaly.data.stream import batched

    def read(file: Path) -> np.ndarray | None:
        try:
            return np.asarray(read_image(file, str(file.parent)))[:, :, ::-1]  # RGB to BGR
        except UsageError as error:
            logger.warning(error)
            return None

    found: list[float] = []
    with ThreadPoolExecutor(cores_per_process()) as pool:
        for chunk in batched(files, batch):
            images = list(pool.map(read, chunk))
            judged = iter(judge(part, [image for image in images if image is not None]))
            found += [float("nan") if image is None else next(judged) for image in images]
    return found


def draw_sheet(groups: Sequence[tuple[str, Sequence[Path]]], path: Path) -> None:
    """Write a JPEG that shows, under each title, up to 16 evenly chosen images."""
    from human_anomaly.data.checks import caption_of, draw_bands
    from human_anomaly.data.dataset import read_image

    bands = []
    for title, files in groups:
        tiles, step = [], max(1.0, len(files) / 16)
        for file in (files[int(i * step)] for i in range(min(16, len(files)))):
            try:
                tiles.append((read_image(file, str(file)), caption_of(file.name)))
            except UsageError as error:
                logger.warning(error)
        bands.append((title, tiles))
    with atomic_write(path, "wb") as file:
        draw_bands(bands).save(file, "JPEG", quality=90)


def report(folder: Path, crops: dict[str, list[Crop]]) -> int:
    """Log each part's counts, draw its contact sheet; return how many crops are contradictory."""
    contradictory = 0
    for part, found in crops.items():
        if not found:
            continue
        groups: dict[str, list[Crop]] = {name: [] for name in (*LABELS, "unlabelled")}
        for crop in found:
            if crop.contradictory():
                contradictory += 1
                said = ", ".join(f"{list(LABELS)[label]} in {where}" for label, where in crop.votes)
                logger.error(f"contradictory, left out: {part}/{crop.name} is {said}")
                continue
            verdict = crop.verdict()
            groups["unlabelled" if verdict is None else list(LABELS)[verdict]].append(crop)
        counts = ", ".join(f"{len(group):,} {name}" for name, group in groups.items())
        left = groups["unlabelled"]
        note = f" (left out, the first is {left[0].place()})" if left else ""
        logger.info(f"{part}: {counts}{note}")
        bands = [
            (f"{name.upper()}  {len(group)}", [folder / part / c.place() for c in group])
            for name, group in groups.items()
            if group
        ]
        if bands:
            draw_sheet(bands, folder / f"overview_{part}.jpg")
    return contradictory


def write_template(folder: Path, crops: dict[str, list[Crop]]) -> Path:
    """Write `labels.csv` with a line for each decision to take; an existing file is kept."""
    path = folder / "labels.csv"
    if path.exists():
        raise UsageError(f"{path}: exists already; fill it in, or move it away for a new one")
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "label"])
        for part, found in crops.items():
            writer.writerows(
                [f"{part}/{crop.place()}", ""]
                for crop, *_ in by_decision(
                    crop for crop in found if crop.verdict() is None and not crop.contradictory()
                )
            )
    return path


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    p = command_parser(__doc__, "tools.label")
    add = p.add_argument
    add("folder", type=Path, metavar="DIR", help="preprocess.py's --output folder")
    add("--page", action="store_true", help="only write DIR/label.html, to label in a browser")
    add("--template", action="store_true", help="only write DIR/labels.csv for a person to fill in")
    labels = "labels to read (DIR/labels.csv and DIR/labels.json)"
    add("--labels", "--csv", type=Path, metavar="FILE", help=labels)
    add_model_flags(add)
    add("--cfg", type=shipped, metavar="FILE", help="YAML with the classifiers' shape")
    add("--opts", nargs="+", default=[], metavar="KEY VALUE", help="such as TEST.CHANNELS bgr")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    add("--batch-size", type=at_least(1), default=64, help="crops read at once (64)")
    return p.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 1 when some crops are contradictory, else 0."""
    args = parse_args(argv)
    setup_logging()
    if not any((args.folder / part).is_dir() for part in PARTS):
        raise UsageError(f"{args.folder}: expected one of {'/, '.join(PARTS)}/ in it")
    if given_models(args):
        judge_crops(args)
        if not (args.page or args.template):
            logger.info(f"next: {tool('label')} {args.folder} --page")
            return 0
    crops, mistakes = collect(args.folder, args.labels)
    if mistakes:
        more = f" (and {len(mistakes) - 1:,} more such lines)" if len(mistakes) > 1 else ""
        for mistake in mistakes[1:20]:
            logger.error(mistake)
        raise UsageError(f"{mistakes[0]}{more}; nothing was written")
    if args.template:
        path = write_template(args.folder, crops)
        logger.info(
            f"{path}: fill in the column label, normal or abnormal, then run without this flag"
        )
        return 0
    if args.page:
        path, count = write_page(args.folder, crops)
        logger.info(
            f"{path}: open it in a browser; it shows {count:,} crops and saves labels.json. Move "
            f"that file into {args.folder} and run without this flag"
        )
        return 0
    contradictory = report(args.folder, crops)
    write_lists(args.folder, crops, keep_unlabelled=False)
    logger.info(f"written: {args.folder}/{{{','.join(crops)}}}.jsonl and overview_*.jpg")
    return 1 if contradictory else 0


if __name__ == "__main__":
    run_main(main)

"""Collect the labels that a person gave to crops, and write the lists that training reads.

    python -m tools.label crops --page       # writes crops/label.html: label in a browser, or
    python -m tools.label crops --template   # writes crops/labels.csv to fill in, or sort files
    python -m tools.label crops              # then: reads the labels and writes the lists

There are three ways to label. The page saves `labels.json`; move it into the folder of crops. Or
move crops into `crops/hand/normal/` and `crops/hand/abnormal/` and leave the rest. Or write
`crops/labels.csv` or `crops/hand.csv` with the columns `file,label`, such as
`hand/a_f000012_p0_1.jpg,abnormal`. The last command writes `{part}.jsonl` with the labelled crops,
0 normal and 1 abnormal, and `overview_{part}.jpg`; it names unlabelled and contradictory crops.
"""

import argparse
import csv
import logging
from collections.abc import Sequence
from pathlib import Path

from human_anomaly.configs.defaults import PARTS
from human_anomaly.data.cropping.crop_lists import LABELS, Crop, write_lists
from human_anomaly.data.cropping.labels import collect
from human_anomaly.utils import UsageError, atomic_write, command_parser, run_main, setup_logging

logger = logging.getLogger(__name__)


def draw_sheet(groups: Sequence[tuple[str, Sequence[Path]]], path: Path) -> None:
    """Write a JPEG that shows, under each title, up to 16 evenly chosen images."""
    from PIL import Image, ImageDraw, ImageFont

    from human_anomaly.data.checks import draw_tiles
    from human_anomaly.data.dataset import read_image

    bands = []
    for title, files in groups:
        step = max(1.0, len(files) / 16)
        tiles = []
        for file in (files[int(i * step)] for i in range(min(16, len(files)))):
            try:
                caption = "\nf".join(file.stem.rsplit("_f", 1))  # the video, then frame and person
                tiles.append((read_image(file, str(file)), caption))
            except UsageError as error:
                logger.warning(error)
        bands.append((title, draw_tiles(tiles, columns=8, size=140)))
    width = max(grid.width for _, grid in bands)
    sheet = Image.new("RGB", (width, sum(grid.height + 36 for _, grid in bands)), "white")
    draw, top = ImageDraw.Draw(sheet), 0
    for title, grid in bands:
        draw.text((8, top + 4), title, "black", ImageFont.load_default(24))
        sheet.paste(grid, (0, top + 36))
        top += grid.height + 36
    with atomic_write(path, "wb") as file:
        sheet.save(file, "JPEG", quality=90)


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
    """Write `labels.csv` with a line for each unlabelled crop; an existing file is kept."""
    path = folder / "labels.csv"
    if path.exists():
        raise UsageError(f"{path}: exists already; fill it in, or move it away for a new one")
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "label"])
        for part, found in crops.items():
            writer.writerows(
                [f"{part}/{crop.place()}", ""]
                for crop in found
                if crop.verdict() is None and not crop.contradictory()
            )
    return path


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    p = command_parser(__doc__, "tools.label")
    add = p.add_argument
    add("folder", type=Path, metavar="DIR", help="preprocess.py's --output folder")
    add("--page", action="store_true", help="only write DIR/label.html, which takes labels")
    add("--template", action="store_true", help="only write DIR/labels.csv for a person to fill in")
    labels = "labels to read (DIR/labels.csv and DIR/labels.json)"
    add("--labels", "--csv", type=Path, metavar="FILE", help=labels)
    return p.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 1 when some crops are contradictory, else 0."""
    args = parse_args(argv)
    setup_logging()
    if not any((args.folder / part).is_dir() for part in PARTS):
        raise UsageError(f"{args.folder}: expected one of {'/, '.join(PARTS)}/ in it")
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
        from human_anomaly.data.cropping.label_page import write_page

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

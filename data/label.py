"""Collect the labels that a person gave to crops, and write the lists that training reads.

    python -m data.label crops --page       # writes crops/label.html: label in a browser, or
    python -m data.label crops --template   # writes crops/labels.csv to fill in, or sort files
    python -m data.label crops              # then: reads the labels and writes the lists

There are three ways to label. The page saves `labels.json`; move it into the folder of crops. Or
move crops into `crops/hand/normal/` and `crops/hand/abnormal/` and leave the rest. Or write
`crops/labels.csv` or `crops/hand.csv` with the columns `file,label`, such as
`hand/a_f000012_p0_1.jpg,abnormal`. The last command writes `{part}.jsonl` with the labelled crops,
0 normal and 1 abnormal, and `overview_{part}.jpg`; it names unlabelled and contradictory crops.
"""

import argparse
import csv
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from configs.defaults import PARTS
from data.cropping.crop_lists import LABELS, LABELS_FILE, Crop, find_crops, write_lists
from utils import UsageError, atomic_write, command_parser, run_main, setup_logging

logger = logging.getLogger(__name__)

WORDS = {"": None, "0": 0, "1": 1, **LABELS}  # what a cell may say


def read_text(path: Path) -> str:
    """Return the file's text; a byte order mark, as spreadsheets write it, is left out."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot read as UTF-8 text: {error}") from error


def read_csv(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Return (place, {column: text}) of a CSV with commas, semicolons or tabs.

    Without a header, the columns are file and label.
    """
    text = read_text(path)
    first = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count))
    columns, rows = ["file", "label"], []
    for cells in reader:
        words = [cell.strip() for cell in cells]
        place = f"{path}:{reader.line_num}"
        if reader.line_num == 1 and {"file", "label"} <= {word.lower() for word in words}:
            columns = [word.lower() for word in words]
        elif any(words):
            if len(words) < 2:
                raise UsageError(f"{place}: expected file,label; got {words[0]}")
            rows.append((place, dict(zip(columns, words, strict=False))))
    return rows


def read_json(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Return (place, {"file", "label"}) of the label page's file: {"hand/NAME.jpg": 0 or 1}."""
    try:
        labels = json.loads(read_text(path))
    except ValueError as error:
        raise UsageError(f"{path}: not JSON: {error}") from error
    if not isinstance(labels, dict):
        raise UsageError(f'{path}: expected {{"hand/NAME.jpg": 0 or 1, ..}}')
    return [(str(path), {"file": file, "label": str(label)}) for file, label in labels.items()]


def add_votes(path: Path, crops: dict[str, dict[str, Crop]], only: str | None = None) -> list[str]:
    """Add the labels in a CSV or JSON file to `crops`; return its mistakes, each with its place.

    The part of a crop is `only`, or in the column `part`, or the folder in the crop's name; it is
    not needed if only one part has a crop of this name.
    """
    mistakes = []
    for place, row in read_json(path) if path.suffix.lower() == ".json" else read_csv(path):
        file = row.get("file", "").replace("\\", "/").removeprefix("./")
        name, top = file.rsplit("/", 1)[-1], file.split("/")[0]
        part = only or row.get("part") or (top if "/" in file and top in PARTS else None)
        owners = [p for p in ([part] if part in PARTS else PARTS) if name in crops[p]]
        try:
            label = WORDS[row.get("label", "").strip().lower()]
        except KeyError:
            mistakes.append(
                f"{place}: label is {row['label']!r}, expected 0, 1, normal, abnormal or none"
            )
            continue
        if part not in (None, "", *PARTS) or not owners:
            mistakes.append(f"{place}: no such crop: {file}")
        elif len(owners) > 1:
            mistakes.append(
                f"{place}: {file} is in {' and '.join(owners)}: write {owners[0]}/{name}"
            )
        elif label is not None:
            crops[owners[0]][name].votes.append((label, place.removeprefix(f"{path.parent}/")))
    return mistakes


def collect(folder: Path, given: Path | None = None) -> tuple[dict[str, list[Crop]], list[str]]:
    """Return {part: crops sorted by name} with all votes, and the mistakes in the labels.

    Labels are read from `given`, or else from labels.csv and labels.json, and from {part}.csv.
    Crops whose file a person deleted are left out.
    """
    crops, unknown = find_crops(folder)
    mistakes = [f"{folder}/{file}: not a crop of {folder}/boxes.jsonl" for file in unknown]
    usual = [folder / "labels.csv", folder / LABELS_FILE]
    sheets = [(path, None) for path in ([given] if given else usual)]
    sheets += [(folder / f"{part}.csv", part) for part in PARTS]
    for path, part in sheets:
        if path == given or path.is_file():
            mistakes += add_votes(path, crops, part)
    kept = {
        part: [crop for _, crop in sorted(known.items()) if crop.places]
        for part, known in crops.items()
    }
    return kept, mistakes


def draw_sheet(groups: Sequence[tuple[str, Sequence[Path]]], path: Path) -> None:
    """Write a JPEG that shows, under each title, up to 16 evenly chosen images."""
    from PIL import Image, ImageDraw, ImageFont

    from data.checks import draw_tiles
    from data.dataset import read_image

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
    p = command_parser(__doc__, "data.label")
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
        raise UsageError(f"{args.folder}: expected a folder with human/, face/ or hand/ in it")
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
        from data.cropping.label_page import write_page

        path, count = write_page(args.folder, crops)
        logger.info(
            f"{path}: open it in a browser; it shows {count:,} crops and saves labels.json. Move "
            f"that file into {args.folder} and run without this flag"
        )
        return 0
    contradictory = report(args.folder, crops)
    write_lists(args.folder, crops, keep_unlabelled=False)
    logger.info(f"written: {args.folder}/{{human,face,hand}}.jsonl and overview_*.jpg")
    return 1 if contradictory else 0


if __name__ == "__main__":
    run_main(main)

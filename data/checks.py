"""Checks of the crops before training: unreadable images, wrong labels, doubled images."""

import itertools
import logging
import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from human_anomaly.configs.machine import cores_per_process
from human_anomaly.data.cropping.crop_lists import view_of
from human_anomaly.data.dataset import GUESSED, Manifest, read_image, read_manifest
from human_anomaly.data.pictures import is_turned
from human_anomaly.utils import (
    UsageError,
    atomic_write,
    gather_objects,
    rank,
    world_size,
)

logger = logging.getLogger(__name__)

Tile = tuple[Image.Image, str]
NORMAL_COLOR, ABNORMAL_COLOR = "#1a7f37", "#b42318"


def read_data(path: str | Path, *, image_root: str, part: str, abnormal_label: str) -> Manifest:
    """Return the checked lines of a JSONL of labelled crops, and log what it holds.

    Images with both labels are a warning; errors are those of `read_manifest`.
    """
    crops = read_manifest(path, image_root=image_root, part=part, abnormal_label=abnormal_label)
    abnormal = int(crops.targets.sum())
    logger.info(
        f"{path}: {len(crops)} crops, {len(crops) - abnormal} normal and {abnormal} abnormal; "
        f"label {crops.abnormal_label} is abnormal ({crops.label_source}); images in {crops.root}"
    )
    if both := contradictions(crops):
        logger.warning(f"{path}: {len(both)} images have both labels (first: {both[0]})")
    return crops


def check_images(*manifests: Manifest) -> None:
    """Decode every image, each process its share; every process must call this.

    All raise the same UsageError, which names the first broken image and counts the others. EXIF
    rotation, which is not applied, is a warning.
    """
    for manifest in manifests:
        share = range(rank(), len(manifest), world_size())
        found = check_rows(manifest, share, workers=cores_per_process(), quiet=rank() != 0)
        broken, turned = zip(*gather_objects(found), strict=True)
        if broken := sorted(itertools.chain.from_iterable(broken)):
            more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
            raise UsageError(f"{broken[0][1]}{more}")
        if turned := sorted(itertools.chain.from_iterable(turned)):
            logger.warning(
                f"{manifest.path}: EXIF rotation of {len(turned)} images is not applied, as in the "
                f"original (first: {manifest.names[turned[0]]})"
            )


def check_labels(train: Manifest, val: Manifest) -> None:
    """Warn if two lists differ in their abnormal label; raise UsageError if one is a guess."""
    if train.abnormal_label == val.abnormal_label:
        return
    said = "; ".join(
        f"in {one.path} label {one.abnormal_label} is abnormal ({one.label_source})"
        for one in (train, val)
    )
    if GUESSED in (train.label_source, val.label_source):
        raise UsageError(f"--abnormal-label: expected 0 or 1, because the lists differ: {said}")
    logger.warning(f"the lists differ: {said}")


def check_rows(
    manifest: Manifest, rows: Sequence[int], *, workers: int, quiet: bool = False
) -> tuple[list[tuple[int, str]], list[int]]:
    """Decode the images of `rows` in threads; return (line, problem) of the broken ones.

    The second list holds those of `rows` whose EXIF asks for a rotation.
    """

    def check(index: int) -> tuple[str | None, bool]:
        try:
            image = read_image(manifest.image_path(index), manifest.place(index))
        except UsageError as error:
            return str(error), False
        return None, is_turned(image)

    with ThreadPoolExecutor(workers) as pool:  # Pillow decodes outside the interpreter's lock
        results = pool.map(check, rows)
        found = list(tqdm(results, f"checking {manifest.path.name}", len(rows), disable=quiet))
    broken = [(manifest.lines[i], why) for i, (why, _) in zip(rows, found, strict=True) if why]
    return broken, [i for i, (_, turned) in zip(rows, found, strict=True) if turned]


def warn_of_shared_images(train: Manifest, val: Manifest) -> None:
    """Log a warning if both manifests list the same images."""
    others = {val.image_path(i).resolve() for i in range(len(val))}
    both = [name for i, name in enumerate(train.names) if train.image_path(i).resolve() in others]
    if both:
        logger.warning(
            f"{len(both)} images are in both {train.path} and {val.path} (first: {both[0]}): "
            "the validation figures will be too good"
        )


def contradictions(manifest: Manifest) -> list[str]:
    """Return the names of the images that are listed with both labels."""
    listed = set(zip(manifest.names, manifest.labels.tolist(), strict=True))
    return sorted(name for name, label in listed if label and (name, 0) in listed)


def draw_tiles(tiles: Sequence[Tile], *, columns: int, size: int = 160) -> Image.Image:
    """Return an RGB grid of the images, each scaled into a square of `size` pixels, captions below.

    A caption may have several lines; a line that is wider than the square is broken.
    """
    font = ImageFont.load_default(13)
    line = 16
    captions = [_wrap(text, font, size) for _, text in tiles]
    caption = line * max(map(len, captions), default=0)
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * (size + 8), rows * (size + caption + 8)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (image, _) in enumerate(tiles):
        x = number % columns * (size + 8) + 4
        y = number // columns * (size + caption + 8) + 4
        scale = size / max(image.size)
        fitted = image.resize([max(1, round(side * scale)) for side in image.size])
        sheet.paste(fitted, (x + (size - fitted.width) // 2, y + (size - fitted.height) // 2))
        for row, part in enumerate(captions[number]):
            draw.text((x, y + size + row * line), part, "black", font)
    return sheet


def _wrap(text: str, font, width: int) -> list[str]:
    """Return the lines of `text`, broken where they are wider than `width` pixels."""
    lines = text.split("\n") if text else []
    for number, line in enumerate(lines):  # the rest of a broken line comes next
        fits = len(line)
        while fits > 1 and font.getlength(line[:fits]) > width:
            fits -= 1
        if fits < len(line):
            lines[number : number + 1] = [line[:fits], line[fits:]]
    return lines


def caption_of(name: str) -> str:
    """Return a crop's file name in two lines: the video, then frame and person."""
    return "\nf".join(Path(name).stem.rsplit("_f", 1))


def spread(names: Sequence[str], rows: Sequence[int], most: int) -> list[int]:
    """Return at most `most` of `rows` in their order: one of each person, the videos in turn.

    A crop's file name (`names` holds those of all rows) tells its video and person. People are
    numbered anew in each frame, so one may have several numbers. A file of another name counts as a
    person and a video of its own.
    """
    people: dict[tuple, int] = {}
    for row in rows:
        video, _, person = view_of(Path(names[row]).name) or (names[row], 0, -1)
        people.setdefault((video, person), row)
    videos: Counter[str] = Counter()
    turns = {}
    for (video, _), row in people.items():
        turns[row] = videos[video]
        videos[video] += 1
    kept = set(sorted(turns, key=turns.__getitem__)[:most])
    return [row for row in rows if row in kept]


def save_label_sheet(path: Path, manifest: Manifest, *, seed: int) -> None:
    """Write the sheet of `draw_labels` as a JPEG."""
    with atomic_write(path, "wb") as file:
        draw_labels(manifest, seed=seed).save(file, "JPEG", quality=90)
    logger.info(f"look at {path}: are the labels the right way round?")


def draw_labels(manifest: Manifest, *, size: int = 140, seed: int = 0) -> Image.Image:
    """Return an RGB sheet of 8 normal and 8 abnormal random crops: mixed-up labels show there.

    Under each label, every person is shown once.
    """
    picks, bands = random.Random(seed), []
    for target, title in enumerate(("NORMAL", "ABNORMAL")):
        rows = np.flatnonzero(manifest.targets == target).tolist()
        rows = sorted(spread(manifest.names, picks.sample(rows, len(rows)), 8))
        tiles = [
            (read_image(manifest.image_path(i), manifest.place(i)), caption_of(manifest.names[i]))
            for i in rows
        ]
        label = manifest.abnormal_label if target else 1 - manifest.abnormal_label
        bands.append((f"{title}  (label {label}, {manifest.path.name})", tiles))
    return draw_bands(bands, size=size)


def draw_bands(bands: Sequence[tuple[str, Sequence[Tile]]], *, size: int = 140) -> Image.Image:
    """Return an RGB sheet with rows of eight tiles under each title."""
    grids = [(title, draw_tiles(tiles, columns=8, size=size)) for title, tiles in bands]
    width, height = max(g.width for _, g in grids), sum(g.height + 36 for _, g in grids)
    sheet = Image.new("RGB", (width, height), "white")
    draw, top = ImageDraw.Draw(sheet), 0
    for title, grid in grids:
        color = {"NORMAL": NORMAL_COLOR, "ABNORMAL": ABNORMAL_COLOR}.get(title.split()[0], "black")
        draw.text((8, top + 4), title, color, ImageFont.load_default(24))
        sheet.paste(grid, (0, top + 36))
        top += grid.height + 36
    return sheet

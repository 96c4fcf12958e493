"""What a person should know about the crops before training on them."""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from data.dataset import Manifest, read_image
from utils import UsageError

Tile = tuple[Image.Image, str]


def find_unreadable(
    manifest: Manifest, *, workers: int, share: slice = slice(None), quiet: bool = False
) -> list[tuple[int, str]]:
    """Decode the images of `share`'s rows in threads; return (line, problem) of the broken ones."""

    def check(index: int) -> tuple[int, str] | None:
        try:
            read_image(manifest.image_path(index), manifest.place(index))
        except UsageError as error:
            return manifest.lines[index], str(error)
        return None

    rows = range(len(manifest))[share]
    with ThreadPoolExecutor(workers) as pool:  # Pillow decodes outside the interpreter's lock
        results = pool.map(check, rows)
        bar = tqdm(results, f"checking {manifest.path.name}", len(rows), disable=quiet)
        return [problem for problem in bar if problem]


def shared_images(one: Manifest, other: Manifest) -> list[str]:
    """Return the names of the images that both manifests list."""
    theirs = {other.image_path(i).resolve() for i in range(len(other))}
    return [n for i, n in enumerate(one.names) if one.image_path(i).resolve() in theirs]


def contradictions(manifest: Manifest) -> list[str]:
    """Return the names of the images that are listed with both labels."""
    seen: dict[str, int] = {}
    both = []
    for name, label in zip(manifest.names, manifest.labels.tolist(), strict=True):
        if seen.setdefault(name, label) != label:
            both.append(name)
    return both


def draw_tiles(tiles: Sequence[Tile], *, columns: int, size: int = 160) -> Image.Image:
    """Return the RGB images in a grid, each fitted into a square of `size` over its caption."""
    font = ImageFont.load_default(13)
    line = 16
    caption = line * max((text.count("\n") + 1 for _, text in tiles if text), default=0)
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * (size + 8), rows * (size + caption + 8)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (image, text) in enumerate(tiles):
        x = number % columns * (size + 8) + 4
        y = number // columns * (size + caption + 8) + 4
        scale = size / max(image.size)
        fitted = image.resize([max(1, round(side * scale)) for side in image.size])
        sheet.paste(fitted, (x + (size - fitted.width) // 2, y + (size - fitted.height) // 2))
        for row, part in enumerate(text.split("\n") if text else ()):
            while part and font.getlength(part) > size:
                part = part[:-1]
            draw.text((x, y + size + row * line), part, "black", font)
    return sheet


def draw_labels(manifest: Manifest, *, each: int = 8, size: int = 160, seed: int = 0):
    """Return an RGB sheet of crops under NORMAL and under ABNORMAL, so that a mix-up is seen."""
    picks = random.Random(seed)
    font = ImageFont.load_default(26)
    bands = []
    for target, title in enumerate(("NORMAL", "ABNORMAL")):
        rows = np.flatnonzero(manifest.targets == target).tolist()
        rows = sorted(picks.sample(rows, min(each, len(rows))))
        tiles = [
            (read_image(manifest.image_path(i), manifest.place(i)), Path(manifest.names[i]).name)
            for i in rows
        ]
        label = manifest.abnormal_label if target else 1 - manifest.abnormal_label
        bands.append((f"{title}  (label {label}, {manifest.path.name})", tiles))
    grids = [(title, draw_tiles(tiles, columns=4, size=size)) for title, tiles in bands]
    width = sum(grid.width for _, grid in grids) + 24
    sheet = Image.new("RGB", (width, max(grid.height for _, grid in grids) + 48), "white")
    draw = ImageDraw.Draw(sheet)
    x = 0
    for (title, grid), color in zip(grids, ("#1a7f37", "#b42318"), strict=True):
        draw.text((x + 8, 8), title, color, font)
        sheet.paste(grid, (x, 44))
        x += grid.width + 24
    draw.line([(x - grid.width - 36, 4), (x - grid.width - 36, sheet.height - 4)], "gray", 2)
    return sheet

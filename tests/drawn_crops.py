"""A drawn two-class data set for the tests of training: discs are normal, crosses abnormal."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def draw_crop(rng: np.random.Generator, abnormal: bool, size: int) -> Image.Image:
    """Return an RGB crop with one dark shape of random colour, place and size on light noise."""
    ground = rng.integers(150, 230, 3) + rng.normal(0, 8, (size, size, 3))
    image = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    color = tuple(rng.integers(0, 90, 3).tolist())
    r = rng.uniform(0.22, 0.34) * size
    x, y = rng.uniform(r, size - r, 2)
    if abnormal:
        draw.rectangle((x - r, y - r / 3, x + r, y + r / 3), color)
        draw.rectangle((x - r / 3, y - r, x + r / 3, y + r), color)
    else:
        draw.ellipse((x - r, y - r, x + r, y + r), color)
    return image


def write_crops(
    folder: Path, name: str, count: int, *, seed: int = 0, size: int = 64, abnormal_label: int = 1
) -> Path:
    """Write `count` crops, half of each class, and FOLDER/NAME.jsonl; return that file."""
    rng = np.random.default_rng(seed)
    (folder / "all_images").mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(count):
        abnormal = i % 2 == 1
        file = f"{name}_{i:04d}.png"
        draw_crop(rng, abnormal, size).save(folder / "all_images" / file)
        rows.append([file, abnormal_label if abnormal else 1 - abnormal_label, 0.9])
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path

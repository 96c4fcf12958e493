"""A folder of crops as preprocess.py leaves it, for the tests of tools/label.py."""

from pathlib import Path

import numpy as np
from PIL import Image

from human_anomaly.utils import write_jsonl

NAMES = [f"{source}_f{i:06d}_p0_0.jpg" for source in ("a", "b") for i in range(4)]


def write_folder(tmp_path: Path) -> Path:
    """Write what preprocess.py leaves: eight crops of hands and eight of faces, unlabelled."""
    boxes = []
    for part in ("human", "face", "hand"):
        (tmp_path / part).mkdir()
    for part in ("face", "hand"):
        for i, name in enumerate(NAMES):
            tone = np.full((20, 30, 3), 30 * i, np.uint8)
            Image.fromarray(tone).save(tmp_path / part / name)
            row = {"source": name[0], "score": i / 8, "label": None, "file": f"{part}/{name}"}
            boxes.append(row)
    boxes.append({"source": "a", "score": 0.2, "label": None, "file": None})  # under --min-size
    write_jsonl(tmp_path / "boxes.jsonl", boxes)
    return tmp_path


def sort_into(folder: Path, word: str, *numbers: int, part: str = "hand") -> None:
    (folder / part / word).mkdir(exist_ok=True)
    for i in numbers:
        (folder / part / NAMES[i]).rename(folder / part / word / NAMES[i])

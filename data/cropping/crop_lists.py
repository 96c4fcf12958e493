"""The crops in preprocess.py's folder, who says what about them, and the lists for training."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from configs.defaults import PARTS
from utils import UsageError, write_json, write_jsonl

LABELS = {"normal": 0, "abnormal": 1}
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
STATE_FILE = "preprocess.json"


@dataclass
class Crop:
    """One crop of a part: where it lies below the part's folder and who says what about it."""

    part: str
    name: str  # the file's own name, unique in its part
    source: str
    score: float | None
    label: int | None  # what preprocess.py was told of the whole video
    places: list[str] = field(default_factory=list)
    votes: list[tuple[int, str]] = field(default_factory=list)  # (label, where it was read)

    def verdict(self) -> int | None:
        """Return the label a person gave, else the video's; None: unlabelled or contradictory."""
        if self.contradictory():
            return None
        return self.votes[0][0] if self.votes else self.label

    def contradictory(self) -> bool:
        return len({label for label, _ in self.votes}) > 1

    def place(self) -> str:
        """Return its path below the part's folder, the sorted copy if there are several."""
        word = dict(map(reversed, LABELS.items())).get(self.verdict())
        return min(self.places, key=lambda p: (_sorted_as(p) != word, p))


def _sorted_as(place: str) -> str | None:
    """Return `normal` or `abnormal` if the path lies in such a folder, else None."""
    top = place.split("/")[0].lower()
    return top if "/" in place and top in LABELS else None


def is_test_source(source: str, share: float) -> bool:
    """Return whether a video belongs to the test list: by its name, so more videos move none."""
    digest = hashlib.sha256(source.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def list_crops(folder: Path, part: str) -> list[str]:
    """Return the paths of the images below `folder`/`part`, with forward slashes, sorted."""
    places = []
    for top, _, files in os.walk(folder / part):
        below = os.path.relpath(top, folder / part).replace(os.sep, "/")
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                places.append(name if below == "." else f"{below}/{name}")
    return sorted(places)


def stream_jsonl(path: Path) -> Iterator:
    """Yield the rows of a JSON lines file of any length; raises UsageError with the line."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise UsageError(f"{path}:{number}: not JSON: {error}") from error


def find_crops(folder: Path) -> tuple[dict[str, dict[str, Crop]], list[str]]:
    """Return {part: {file name: Crop}} of the images there, and the files nobody knows.

    Known are the crops in `boxes.jsonl`; in a folder without one, every image is.
    """
    crops: dict[str, dict[str, Crop]] = {part: {} for part in PARTS}
    boxes, unknown = folder / "boxes.jsonl", []
    listed = boxes.is_file()
    for row in stream_jsonl(boxes) if listed else ():
        try:
            part, name = row["file"].split("/", 1) if row["file"] else (None, None)
            if part:
                crop = Crop(part, name, row["source"], row["score"], row["label"])
                crops[part].setdefault(name, crop)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UsageError(f"{boxes}: not written by preprocess.py: {row!r}") from error
    for part in PARTS:
        for place in list_crops(folder, part):
            name = place.rsplit("/", 1)[-1]
            if name not in crops[part]:
                if listed:
                    unknown.append(f"{part}/{place}")
                    continue
                source = re.sub(r"_f\d{6,}_p\d+(_\d+)?\.\w+$", "", name)
                crops[part][name] = Crop(part, name, source, None, None)
            crops[part][name].places.append(place)
            if word := _sorted_as(place):
                crops[part][name].votes.append((LABELS[word], f"{part}/{place}"))
    return crops, unknown


def write_lists(folder: Path, crops: dict[str, list[Crop]], keep_unlabelled: bool) -> None:
    """Write `{part}.jsonl` and, if preprocess.py was asked for a split, its train and test lists.

    Unlabelled crops are null there, or left out. `dataset.json` beside them says 1 is abnormal.
    """
    share = read_split(folder)
    write_json(folder / "dataset.json", {"abnormal_label": 1}, indent=None)
    for part, found in crops.items():
        if not (folder / part).is_dir():
            continue
        rows = [
            (is_test_source(crop.source, share), [crop.place(), crop.verdict(), crop.score])
            for crop in found
            if keep_unlabelled or crop.verdict() is not None
        ]
        if share:
            write_jsonl(folder / f"{part}_train.jsonl", (row for test, row in rows if not test))
            write_jsonl(folder / f"{part}_test.jsonl", (row for test, row in rows if test))
        write_jsonl(folder / f"{part}.jsonl", (row for _, row in rows))


def read_split(folder: Path) -> float:
    """Return the share of videos that preprocess.py was told to keep for testing (0: no split)."""
    try:
        return json.loads((folder / STATE_FILE).read_text())["train_test_split"]
    except FileNotFoundError:
        return 0.0

"""The crops in preprocess.py's folder, their labels, and the lists for training."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from human_anomaly.configs.defaults import PARTS
from human_anomaly.data.pictures import IMAGE_SUFFIXES
from human_anomaly.data.sources import printable
from human_anomaly.utils import UsageError, stream_jsonl, write_json, write_jsonl

logger = logging.getLogger(__name__)

LABELS = {"normal": 0, "abnormal": 1}
STATE_FILE = "preprocess.json"
LABELS_FILE = "labels.json"  # what the label page saves
CROP_NAME = re.compile(r"(?P<source>.+)_f(?P<frame>\d{6,})_p(?P<person>\d+)(_\d+)?\.\w+")


@dataclass
class Crop:
    """One crop of a part: where its copies lie, and every label that was given to it."""

    part: str
    name: str  # the file's own name, unique in its part
    source: str
    score: float | None
    label: int | None  # of the whole video, from preprocess.py --label
    decision: str | None = None  # the source's crops of one decision (--label-every) share a label
    places: list[str] = field(default_factory=list)  # below the part's folder
    votes: list[tuple[int, str]] = field(default_factory=list)  # (label, where it was read)

    def verdict(self) -> int | None:
        """Return the label a person gave, else the video's; None: unlabelled or contradictory."""
        if self.contradictory():
            return None
        return self.votes[0][0] if self.votes else self.label

    def contradictory(self) -> bool:
        return len({label for label, _ in self.votes}) > 1

    def place(self) -> str:
        """Return its path below the part's folder; of several copies, the one sorted by hand."""
        word = dict(map(reversed, LABELS.items())).get(self.verdict())
        return min(self.places, key=lambda p: (_sorted_as(p) != word, p))


def _sorted_as(place: str) -> str | None:
    """Return `normal` or `abnormal` if the path lies in such a folder, else None."""
    top = place.split("/")[0].lower()
    return top if "/" in place and top in LABELS else None


def _place_of(source: str) -> float:
    """Return a number from 0 to 1 that depends on the video's name alone."""
    digest = hashlib.sha256(source.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def choose_tested(groups: Iterable[set[str]], share: float) -> set[str]:
    """Return the videos of the test lists: of each group, such as the abnormal ones, some, not all.

    A video is tested if its number (`_place_of`) is below `share`, so new videos seldom move
    others. Where that would test all or none of a group, its last or first video changes sides.
    """
    groups = list(groups)
    every = set().union(*groups)
    tested = {source for source in every if _place_of(source) < share}
    for group in [*groups, every]:
        if len(group) > 1:
            *_, last = ordered = sorted(group, key=_place_of)
            tested |= set() if group & tested else {ordered[0]}
            tested -= {last} if group <= tested else set()
    return tested


def list_crops(folder: Path, part: str) -> list[str]:
    """Return the paths of the images below `folder`/`part`, with forward slashes, sorted.

    Raises UsageError for a name that is not UTF-8: lists and pages cannot hold it.
    """
    places = []
    for top, _, files in os.walk(folder / part):
        below = os.path.relpath(top, folder / part).replace(os.sep, "/")
        for name in files:
            if name.startswith(".") or Path(name).suffix.lower() not in IMAGE_SUFFIXES:
                continue
            place = name if below == "." else f"{below}/{name}"
            if printable(place) != place:
                raise UsageError(f"{folder}/{part}/{printable(place)}: the name is not UTF-8")
            places.append(place)
    return sorted(places)


def source_of(name: str) -> str | None:
    """Return the stem of a crop's video, by the crop's file name; None for another name."""
    view = view_of(name)
    return view[0] if view else None


def view_of(name: str) -> tuple[str, int, int] | None:
    """Return (stem of the video, frame, person's number in it) by a crop's file name, or None."""
    match = CROP_NAME.fullmatch(name)
    return (match["source"], int(match["frame"]), int(match["person"])) if match else None


def find_crops(folder: Path) -> tuple[dict[str, dict[str, Crop]], list[str]]:
    """Return {part: {file name: Crop}} of the images in `folder`, and the files that are no crops.

    `boxes.jsonl` lists the crops; without it, every image is a crop.
    """
    crops: dict[str, dict[str, Crop]] = {part: {} for part in PARTS}
    boxes, unknown = folder / "boxes.jsonl", []
    listed = boxes.is_file()
    for _, row in stream_jsonl(boxes) if listed else ():
        try:
            part, name = row["file"].split("/", 1) if row["file"] else (None, None)
            if part:
                crop = Crop(part, name, row["source"], row["score"], row["label"])
                crop.decision = row.get("decision")
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
                crops[part][name] = Crop(part, name, source_of(name) or name, None, None)
            crops[part][name].places.append(place)
            if word := _sorted_as(place):
                crops[part][name].votes.append((LABELS[word], f"{part}/{place}"))
    return crops, unknown


def by_decision(crops: Iterable[Crop]) -> list[list[Crop]]:
    """Return a part's crops in groups: one decision labels a group."""
    groups: dict[tuple, list[Crop]] = {}
    for crop in crops:
        groups.setdefault((crop.source, crop.decision or crop.name), []).append(crop)
    return list(groups.values())


def write_lists(folder: Path, crops: dict[str, list[Crop]], keep_unlabelled: bool) -> None:
    """Write `{part}.jsonl` and, if preprocess.py was asked for a split, its train and test lists.

    The label of an unlabelled crop is null, or the crop is left out. `dataset.json` says that 1 is
    abnormal.
    """
    share = read_split(folder)
    write_json(folder / "dataset.json", {"abnormal_label": 1}, indent=None)
    kept = {
        part: [crop for crop in found if keep_unlabelled or crop.verdict() is not None]
        for part, found in crops.items()
        if (folder / part).is_dir()
    }
    tested = choose_tested(_groups(kept), share) if share else set()
    for part, found in kept.items():
        if share:
            videos = len({crop.source for crop in found})
            for side, is_test in (("train", False), ("test", True)):
                listed = [crop for crop in found if (crop.source in tested) == is_test]
                _write_list(path := folder / f"{part}_{side}.jsonl", listed)
                if videos:
                    _warn_of_list(path, listed, f"--train-test-split {share:g}", videos)
        _write_list(folder / f"{part}.jsonl", found)


def _write_list(path: Path, crops: Sequence[Crop]) -> None:
    write_jsonl(path, ([crop.place(), crop.verdict(), crop.score] for crop in crops))


def _groups(crops: dict[str, list[Crop]]) -> Iterator[set[str]]:
    """Yield each part's videos with abnormal crops, those with normal ones only, and all."""
    for found in crops.values():
        abnormal, normal = ({c.source for c in found if c.verdict() == label} for label in (1, 0))
        yield from (abnormal, normal - abnormal, {crop.source for crop in found})


def _warn_of_list(path: Path, crops: Sequence[Crop], split: str, videos: int) -> None:
    """Log a warning of a train or test list that training would refuse."""
    labels = {crop.verdict() for crop in crops}
    if not crops:
        logger.warning(
            f"{path} is empty: {split} assigns whole videos, and none of the {videos} with such "
            "crops is in this list; add videos or change the share"
        )
    elif labels in ({0}, {1}):
        logger.warning(
            f"{path}: all {len(crops)} crops have label {min(labels)}, and training needs both; "
            "add videos or labels"
        )


def read_split(folder: Path) -> float:
    """Return the share of videos that preprocess.py was told to keep for testing (0: no split)."""
    path = folder / STATE_FILE
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["train_test_split"])
    except (FileNotFoundError, NotADirectoryError):
        return 0.0
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UsageError(f"{path}: cannot read train_test_split: {error!r}") from error


def remove_split(folder: Path) -> None:
    """Delete the train and test lists."""
    for part in PARTS:
        for name in ("train", "test"):
            (folder / f"{part}_{name}.jsonl").unlink(missing_ok=True)

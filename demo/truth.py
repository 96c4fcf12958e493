"""Reads the truth of the drawn world and compares boxes that a detector found with it.

Boxes are xyxy in pixels of the frame. `people` are the entries of a frame in truth.jsonl.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from human_anomaly.models.scoring.tracks import overlaps
from human_anomaly.utils import read_jsonl, write_jsonl

MATCH_IOU = 0.5


def write_truth(path: Path, frames: Mapping[str, Sequence[Sequence[Mapping]]]) -> None:
    """Write a truth.jsonl from {video: people of each frame}, sorted by video."""
    rows = (
        {"video": video, "frame": index, "people": people}
        for video in sorted(frames)
        for index, people in enumerate(frames[video])
    )
    write_jsonl(path, rows)


def read_truth(path: str | Path) -> dict[str, list[list[dict]]]:
    """Return {video: people of each frame} of a truth.jsonl."""
    frames = defaultdict(list)
    for row in read_jsonl(path):
        frames[row["video"]].append(row["people"])
    return dict(frames)


def abnormal_part(frames: list[list[dict]]) -> str | None:
    """Return the part that a video's truth (people of each frame) calls abnormal, else None."""
    named = {part for people in frames for person in people for part in person["abnormal_parts"]}
    return min(named, default=None)


def true_parts(people: Sequence[Mapping], part: str) -> list[tuple[list[float], bool, int]]:
    """Return (box, is it abnormal, index of its person) of every visible `part`.

    The body or face of a person is abnormal if the truth names that part. A hand is abnormal if
    its box is also one of the anomaly boxes.
    """
    found = []
    for index, person in enumerate(people):
        named = part in person["abnormal_parts"]
        for box in [person["human"]] if part == "human" else person[part]:
            abnormal = named and (part != "hand" or box in person["anomaly_boxes"])
            found.append((box, abnormal, index))
    return found


def match(boxes: Sequence, scores: Sequence[float], truth: Sequence) -> list[int | None]:
    """Return, for each box (N, 4), the index of the truth box (M, 4) that it finds, or None.

    Boxes are matched by falling score, each to the free truth box that it overlaps most.
    """
    used: set[int] = set()
    matches: list[int | None] = [None] * len(boxes)
    iou = overlaps(boxes, truth)
    for i in np.argsort(-np.asarray(scores, float), kind="stable").tolist():
        order = np.argsort(-iou[i], kind="stable").tolist()
        best = next((j for j in order if j not in used), None)
        if best is not None and iou[i, best] >= MATCH_IOU:
            used.add(best)
            matches[i] = best
    return matches


def label_crops(
    boxes: Iterable[Mapping], truth: Mapping[str, Sequence[Sequence[Mapping]]], part: str
) -> Iterator[tuple[str, int, float]]:
    """Yield (file, label, detector's score) of the crops of `part`; label 0 is normal, 1 abnormal.

    `boxes` are rows of preprocess.py's boxes.jsonl, `truth` maps each source to the people of its
    frames. A crop that shows no part is normal, because scoring judges such crops too. A crop that
    shows a piece of an abnormal part is left out.
    """
    for row in boxes:
        if row["part"] != part or not row["file"]:
            continue
        known = true_parts(truth[row["source"]][row["frame"]], part)
        iou = overlaps([row["box"]], [box for box, *_ in known])[0]
        if known and iou.max() >= MATCH_IOU:
            yield row["file"], int(known[iou.argmax()][1]), row["score"]
        elif not any(o > 0 and bad for o, (_, bad, _) in zip(iou, known, strict=True)):
            yield row["file"], 0, row["score"]

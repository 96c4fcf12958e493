"""What the drawn world's truth says about boxes that a detector found."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

MATCH_IOU = 0.5


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the (N, M) intersection over union of boxes (N, 4) and (M, 4), xyxy."""
    a, b = np.asarray(a, float).reshape(-1, 4), np.asarray(b, float).reshape(-1, 4)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0), 2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], 1) for boxes in (a, b)]
    return common / np.maximum(areas[0][:, None] + areas[1][None] - common, 1e-9)


def true_parts(people: Sequence[Mapping], part: str) -> list[tuple[list[float], bool, int]]:
    """Return (box, is it abnormal, index of the person) of every visible `part`.

    A person's body and face are abnormal where the truth names that part; of the two hands only
    those that are anomaly boxes themselves.
    """
    found = []
    for index, person in enumerate(people):
        named = part in person["abnormal_parts"]
        for box in [person["human"]] if part == "human" else person[part]:
            abnormal = named and (part != "hand" or box in person["anomaly_boxes"])
            found.append((box, abnormal, index))
    return found


def match(boxes: Sequence, scores: Sequence[float], truth: Sequence) -> list[int | None]:
    """Return for each box the truth box that it finds, highest score first, each found once."""
    taken: set[int] = set()
    matches: list[int | None] = [None] * len(boxes)
    overlaps = iou(np.array(boxes), np.array(truth))
    for i in np.argsort(-np.asarray(scores, float), kind="stable"):
        order = np.argsort(-overlaps[i], kind="stable")
        best = next((int(j) for j in order if int(j) not in taken), None)
        if best is not None and overlaps[i, best] >= MATCH_IOU:
            taken.add(best)
            matches[int(i)] = best
    return matches


def label_crops(boxes: Iterable[Mapping], truth: Mapping[tuple[str, int], Sequence], part: str):
    """Yield (file, 0 or 1, score) of the crops of `part`, labelled by the truth.

    `boxes` are rows of preprocess.py's boxes.jsonl, `truth` maps (source, frame) to people. A crop
    of nothing is normal, for scoring judges it too; one that shows an abnormal part only in part is
    left out.
    """
    for row in boxes:
        if row["part"] != part or not row["file"]:
            continue
        known = true_parts(truth[row["source"], row["frame"]], part)
        overlaps = iou([row["box"]], [box for box, *_ in known])[0]
        best = int(overlaps.argmax()) if known else None
        if best is not None and overlaps[best] >= MATCH_IOU:
            yield row["file"], int(known[best][1]), row["score"]
        elif not any(o > 0 and bad for o, (_, bad, _) in zip(overlaps, known, strict=True)):
            yield row["file"], 0, row["score"]

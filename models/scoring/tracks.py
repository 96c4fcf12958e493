"""Numbers the people of a video, so that the same person has the same number in every frame.

Each known person's box is moved on at its last speed. The boxes of a frame are assigned to the
people whose boxes they overlap most, all at once (the Hungarian algorithm). Nothing but boxes is
compared. So a person gets a new number after a cut or after more than GAP scored frames out of
sight, and two people may swap numbers when one hides the other.
"""

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass

import numpy as np

GAP = 4  # scored frames that a person may be out of sight
MIN_IOU = 0.2  # a box that overlaps less is somebody else
# Two boxes of one frame that overlap more than this are one person, found twice: by both texts of
# the detector, or by one text with an overlap just below the 0.7 at which NMS drops a box.
SAME_IOU = 0.6


@dataclass
class _Track:
    """A person: the last box (4,), its speed in pixels per scored frame, and when it was seen."""

    id: int
    box: np.ndarray
    seen: int
    speed: np.ndarray


class Tracker:
    """Numbers the people of one video from 0 on; `number` takes its frames' rows in order."""

    def __init__(self):
        self._tracks: list[_Track] = []
        self._frame = self._people = 0

    def number(self, row: MutableMapping) -> None:
        """Add "id" to each of a frame's people, whose "bbox" is (x1, y1, x2, y2)."""
        boxes = np.reshape([person["bbox"] for person in row["people"]], (-1, 4)).astype(float)
        first = _first_alike(boxes)
        people = sorted(set(first))
        ids = dict(zip(people, self._follow(boxes[people]), strict=True))
        row["people"] = [{"id": ids[i], **p} for i, p in zip(first, row["people"], strict=True)]

    def _follow(self, boxes: np.ndarray) -> list[int]:
        """Return the numbers of the people in `boxes` (N, 4), and move their tracks there."""
        self._frame += 1
        self._tracks = [t for t in self._tracks if self._frame - t.seen <= GAP + 1]
        expected = [t.box + t.speed * (self._frame - t.seen) for t in self._tracks]
        found = {i: self._tracks[j] for i, j in pair(boxes, expected, MIN_IOU)}
        for i, box in enumerate(boxes):
            if i not in found:
                found[i] = _Track(self._people, box, self._frame, np.zeros(4))
                self._tracks.append(found[i])
                self._people += 1
                continue
            track = found[i]
            moved = (box - track.box) / (self._frame - track.seen)
            centre = (moved[:2] + moved[2:]) / 2  # an arm that swings changes a box's sides
            track.speed = (track.speed + np.tile(centre, 2)) / 2
            track.box, track.seen = box, self._frame
        return [found[i].id for i in range(len(boxes))]


class Decisions:
    """Names the boxes of a video: boxes with the same name get one label.

    Each part's boxes are followed as people are; a name changes after `every` frames.
    """

    def __init__(self, every: int):
        self.every, self.frames = every, 0
        self.trackers: dict[str, Tracker] = {}

    def name(self, people: Sequence) -> list[dict]:
        """Return {"decision": name} of each part box of a frame's people, in order.

        `people` have "parts" with a "part" and a "bbox" (xyxy). Boxes of a part with the same
        name show, for example, the same hand.
        """
        boxes = [box for person in people for box in person.parts]
        rows = {part: {"people": []} for part in self.trackers}
        for box in boxes:
            rows.setdefault(box.part, {"people": []})["people"].append({"bbox": box.bbox})
        for part, row in rows.items():
            self.trackers.setdefault(part, Tracker()).number(row)
        ids = {part: iter(row["people"]) for part, row in rows.items()}
        window = self.frames // self.every
        self.frames += 1
        return [{"decision": f"{next(ids[box.part])['id']}.{window}"} for box in boxes]


def pair(a: Sequence, b: Sequence, least: float) -> list[tuple[int, int]]:
    """Return the pairs (index in a, index in b) of boxes (N, 4) and (M, 4) that belong together.

    The assignment has the largest sum of overlaps; pairs that overlap less than `least` are left
    out.
    """
    from scipy.optimize import linear_sum_assignment  # takes a while to import

    iou = overlaps(a, b)
    pairs = zip(*linear_sum_assignment(iou, maximize=True), strict=True)
    return [(i, j) for i, j in pairs if iou[i, j] >= least]


def overlaps(a: Sequence, b: Sequence) -> np.ndarray:
    """Return the (N, M) intersection over union of boxes (N, 4) and (M, 4), xyxy."""
    import torch
    from torchvision.ops import box_iou

    a, b = (torch.from_numpy(np.reshape(boxes, (-1, 4)).astype(float)) for boxes in (a, b))
    return box_iou(a, b).nan_to_num().numpy()


def _first_alike(boxes: np.ndarray) -> list[int]:
    """Return, for each box (N, 4), the index of the first box that shows the same person."""
    same = overlaps(boxes, boxes) > SAME_IOU
    first: list[int] = []
    for i in range(len(boxes)):
        first.append(next((first[j] for j in range(i) if same[i, j]), i))
    return first

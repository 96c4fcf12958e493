"""Do people keep their number? `python -m benchmarks.person_ids [--videos 60]`.

The demo's detector finds the people of drawn videos, whose truth tells who is who.

Kept: of the frames in which a true person is found (IoU of 0.5 or more), the share in which the
person has the number that it has most often. IDF1: numbers are assigned to true people once for
the whole video; a person who is missed, a box where nobody is and a second number all count as
errors. Hidden: every person is taken out of 4 scored frames in 12.
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from human_anomaly.data.stream import batched
from human_anomaly.data.video import FrameReader, Source
from human_anomaly.demo.evaluate import FIRST_SEED
from human_anomaly.demo.paths import DETECTOR_CONFIG, ROOT, WEIGHTS
from human_anomaly.demo.truth import match
from human_anomaly.demo.world.files import draw_videos
from human_anomaly.models.detector import PartDetector
from human_anomaly.models.scoring.tracks import Tracker


def find_people(detector: PartDetector, path: Path) -> Iterator[dict]:
    """Yield rows of a video's frames with the people's boxes and detector scores only."""
    for frames in batched(FrameReader(Source(path, path.stem)), 4):
        images = [frame.image for frame in frames]
        for found in detector.predictor(images, detector.people_texts, "detect people"):
            boxes = zip(found.xyxy.tolist(), found.scores.tolist(), strict=True)
            yield {"people": [{"bbox": box, "detector_score": score} for box, score in boxes]}


def hide(row: Mapping, index: int) -> dict:
    """Return the row without the people who are out of sight in scored frame `index`."""
    shown = [p for k, p in enumerate(row["people"]) if (index + 5 * k) % 12 >= 4]
    return {**row, "people": shown}


class Identities:
    """Counts, over videos, how often true people have which number."""

    def __init__(self):
        self.found = self.kept = self.true = self.given = self.right = 0
        self.people = self.tracks = 0

    def add(self, rows: Sequence[Mapping], truth: Sequence[Sequence[Mapping]]) -> None:
        """Take a video: rows of frames.jsonl, and the true people, in one order in every frame."""
        pairs: Counter = Counter()
        tracks = set()
        for row, people in zip(rows, truth, strict=True):
            by_id = {person["id"]: person for person in reversed(row["people"])}
            matches = match(
                [person["bbox"] for person in by_id.values()],
                [person["detector_score"] for person in by_id.values()],
                [person["human"] for person in people],
            )
            pairs.update((t, i) for t, i in zip(matches, by_id, strict=True) if t is not None)
            tracks |= by_id.keys()
            self.true += len(people)
            self.given += len(by_id)
        counts = np.zeros((len(truth[0]), max(tracks, default=0) + 1))
        for place, count in pairs.items():
            counts[place] = count
        self.right += counts[linear_sum_assignment(counts, maximize=True)].sum()
        self.found += counts.sum()
        self.kept += counts.max(1).sum()
        self.people += len(truth[0])
        self.tracks += len(tracks)

    def line(self) -> str:
        idf1 = 2 * self.right / (self.true + self.given)
        kept, found = self.kept / self.found, self.found / self.true
        return f"{self.people} | {self.tracks} | {found:.1%} | {kept:.2%} | {idf1:.4f}"


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--videos", type=int, default=60, help="how many to draw (60)")
    p.add_argument("--work", type=Path, default=ROOT / "build/demo/evaluation", help="for videos")
    args = p.parse_args()
    truth = draw_videos(args.work, range(FIRST_SEED, FIRST_SEED + args.videos), workers=2)
    # The truth leaves out hidden people. Where it does, its order no longer tells who is who.
    whole = {v: frames for v, frames in truth.items() if len(set(map(len, frames))) == 1}
    detector = PartDetector(DETECTOR_CONFIG, WEIGHTS / "detector.pth")
    found = {(stride, hidden): Identities() for stride in (1, 4) for hidden in (False, True)}
    for video, people in tqdm(whole.items()):
        all_rows = list(find_people(detector, args.work / video))
        for (stride, hidden), counts in found.items():
            rows = all_rows[::stride]
            rows = [hide(r, i) for i, r in enumerate(rows)] if hidden else [dict(r) for r in rows]
            tracker = Tracker()
            for row in rows:
                tracker.number(row)
            counts.add(rows, people[::stride])
    print(f"{len(whole)} of {len(truth)} videos")
    print("| frame stride | hidden | people | numbers | found | kept | IDF1 |\n" + "|---" * 7 + "|")
    for (stride, hidden), counts in found.items():
        print(f"| {stride} | {'4 in 12' if hidden else 'no'} | {counts.line()} |")


if __name__ == "__main__":
    main()

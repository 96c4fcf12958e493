"""Do people keep their number? Drawn videos, whose truth knows who is who, found by the demo's
detector: `python -m tests.benchmarks.person_ids [--videos 60]`.

Kept: of the frames in which a true person is found (IoU of 0.5 or more), the share in which the
person has the number that it has most often. IDF1: numbers are assigned to true people once for
the whole video; a person who is missed, a box where nobody is and a second number all count as
errors. Hidden: every person is taken out of 4 scored frames in 12.
"""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from configs.defaults import get_config
from demo.evaluate import FIRST_SEED
from demo.paths import CONFIG, DETECTOR_CONFIG, ROOT, WEIGHTS
from demo.truth import match
from demo.world.files import draw_videos
from models.scorer import VideoScorer
from models.tracks import Tracker


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
                [person["parts"][0]["detector_score"] for person in by_id.values()],
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
    # The truth leaves out whom nobody can see: then the order no longer says who is who.
    whole = {v: frames for v, frames in truth.items() if len(set(map(len, frames))) == 1}
    scorer = VideoScorer.from_files(
        DETECTOR_CONFIG,
        WEIGHTS / "detector.pth",
        {"human": WEIGHTS / "human.pth"},  # for the boxes' detector scores
        get_config(CONFIG),
        device="cpu",
    )
    found = {(stride, hidden): Identities() for stride in (1, 4) for hidden in (False, True)}
    for video, people in tqdm(whole.items()):
        all_rows = scorer.score(args.work / video).frames
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

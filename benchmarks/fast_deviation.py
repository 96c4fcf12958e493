"""How far fast mode is from exact mode: two result folders of the same videos.

    python inference.py --video DIR --output exact
    python inference.py --video DIR --output fast --fast
    python -m benchmarks.fast_deviation exact fast

People are matched by the overlap of their boxes, frame by frame.
"""

import argparse
from pathlib import Path

import numpy as np

from human_anomaly.demo.truth import match
from human_anomaly.models.scoring.results import SCORES, read_scores
from human_anomaly.utils import read_jsonl


def boxes(people: list[dict]) -> list[list[float]]:
    """Return each person's own box (without one, no box matches)."""
    own = [[p["bbox"] for p in person["parts"] if p["part"] == "human"] for person in people]
    return [found[0] if found else [0, 0, 0, 0] for found in own]


def compare_people(exact: Path, fast: Path) -> np.ndarray:
    """Return (views of exact, views of fast, matched, matched with another verdict)."""
    counts = np.zeros(4, int)
    for path in sorted(exact.glob("*.frames.jsonl")):
        rows = zip(read_jsonl(path), read_jsonl(fast / path.name), strict=True)
        for before, after in ((a["people"], b["people"]) for a, b in rows):
            scores = [p["parts"][0]["detector_score"] if p["parts"] else 0 for p in after]
            pairs = match(boxes(after), scores, boxes(before)) if before and after else []
            changed = [
                after[i]["abnormal"] != before[j]["abnormal"]
                for i, j in enumerate(pairs)
                if j is not None
            ]
            counts += [len(before), len(after), len(changed), sum(changed)]
    return counts


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("exact", type=Path, help="result folder of exact mode")
    p.add_argument("fast", type=Path, help="result folder of fast mode")
    args = p.parse_args()
    one, other = (
        {row["video_path"]: row for row in read_scores(folder)["videos"]}
        for folder in (args.exact, args.fast)
    )
    print("| score | videos | mean absolute change | largest | mean change |\n" + "|---" * 5 + "|")
    for key in SCORES:
        pairs = [(one[v][key], other[v][key]) for v in one if v in other]
        change = np.array([b - a for a, b in pairs if a is not None and b is not None])
        print(
            f"| {key} | {len(change)} | {np.abs(change).mean():.4f} | {np.abs(change).max():.4f} "
            f"| {change.mean():+.4f} |"
        )
    before, after, matched, changed = compare_people(args.exact, args.fast)
    print(
        f"\n{before} views in exact mode, {after} in fast mode, {matched} matched; "
        f"{changed} of these have another verdict ({changed / max(matched, 1):.2%})"
    )


if __name__ == "__main__":
    main()

"""Two sets of scores side by side: per video, and the mean with a paired bootstrap interval.

    python -m models.benchmark.compare results/before/scores.json results/after/scores.json

Videos are matched by their path below each set's own folder, so two models' outputs in two folders
are compared by file name. In the benchmark's naming (`<prompt>-<index>.mp4`) whole prompts are
drawn, because videos of one prompt are not independent.
"""

import argparse
from pathlib import Path

import numpy as np

from models.benchmark.results import SCORES, by_name, prompt_and_index, read_scores
from utils import UsageError, run_main, write_json

# What differs between any two runs and does not explain a difference of scores.
_NOT_SETTINGS = ("device", "batch_size", "output", "seconds")


def pair_videos(a: list[dict], b: list[dict]) -> tuple[list[tuple], list[str], list[str]]:
    """Return [(name, row of a, row of b)] sorted by name, and the names in one set only."""
    left, right = by_name(a), by_name(b)
    if not left.keys() & right.keys():  # one set holds folders, or one video only
        left = {Path(k).name: row for k, row in left.items()}
        right = {Path(k).name: row for k, row in right.items()}
    names = sorted(left.keys() & right.keys())
    return (
        [(name, left[name], right[name]) for name in names],
        sorted(left.keys() - right.keys()),
        sorted(right.keys() - left.keys()),
    )


def _clusters(names: list[str]) -> np.ndarray:
    """Return one integer per name: its prompt's number in the benchmark's naming, else its own."""
    parsed = [prompt_and_index(name) for name in names]
    keys = [p[0] for p in parsed] if all(parsed) else names
    return np.unique(keys, return_inverse=True)[1]


def paired_bootstrap(
    differences: np.ndarray, clusters: np.ndarray, samples: int = 10_000, seed: int = 0
) -> tuple[float, float] | None:
    """Return the 95% percentile interval of the mean of `differences`, clusters drawn whole.

    None where there are fewer than two clusters: nothing varies then.
    """
    count = int(clusters.max()) + 1 if len(clusters) else 0
    if count < 2:
        return None
    sums = np.bincount(clusters, differences, count)
    sizes = np.bincount(clusters, minlength=count)
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, samples, 500):  # 500 draws at a time keep memory small
        drawn = rng.integers(0, count, (min(500, samples - start), count))
        means.append(sums[drawn].sum(1) / sizes[drawn].sum(1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


def compare(a: dict, b: dict, score: str = "video_results", samples: int = 10_000) -> dict:
    """Return the comparison of two scores.json contents by `score`, differences as b - a."""
    pairs, only_a, only_b = pair_videos(a["videos"], b["videos"])
    if not pairs:
        raise UsageError("the two files have no video in common, by path or by file name")
    rows, no_score = [], []
    for name, left, right in pairs:
        if left.get(score) is None or right.get(score) is None:
            no_score.append(name)
        else:
            difference = right[score] - left[score]
            rows.append(
                {"video": name, "a": left[score], "b": right[score], "difference": difference}
            )
    differences = np.array([row["difference"] for row in rows])
    interval = paired_bootstrap(differences, _clusters([row["video"] for row in rows]), samples)
    return {
        "score": score,
        "videos": rows,
        "mean_a": float(np.mean([row["a"] for row in rows])) if rows else None,
        "mean_b": float(np.mean([row["b"] for row in rows])) if rows else None,
        "mean_difference": float(differences.mean()) if rows else None,
        "ci95": list(interval) if interval else None,
        "no_score": no_score,
        "only_a": only_a,
        "only_b": only_b,
        "settings": _differing_settings(a.get("settings", {}), b.get("settings", {})),
    }


def _flat(tree: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _differing_settings(a: dict, b: dict) -> dict[str, list]:
    a, b = _flat(a), _flat(b)
    return {
        key: [a.get(key), b.get(key)]
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key) and key not in _NOT_SETTINGS
    }


def _verdict(result: dict) -> str:
    if result["ci95"] is None:
        return "too few videos for an interval"
    low, high = result["ci95"]
    if low > 0:
        return "B is better"
    return "A is better" if high < 0 else "no difference shown: the interval holds 0"


def format_table(result: dict, most: int | None = None) -> str:
    """Return the comparison as text; `most` keeps the videos that changed most."""
    rows = sorted(result["videos"], key=lambda row: (-abs(row["difference"]), row["video"]))
    lines = [f"{result['score']:<18}{'A':>8}{'B':>9}{'B - A':>9}  video, largest change first"]
    lines += [
        f"{'':<18}{r['a']:8.4f} {r['b']:8.4f} {r['difference']:+8.4f}  {r['video']}"
        for r in rows[:most]
    ]
    if most is not None and len(rows) > most:
        lines.append(f"{'':<18}... and {len(rows) - most} more")
    if rows:
        interval = result["ci95"]
        shown = f"95% [{interval[0]:+.4f}, {interval[1]:+.4f}]" if interval else "no interval"
        lines.append(
            f"{'mean of ' + str(len(rows)):<18}{result['mean_a']:8.4f} {result['mean_b']:8.4f} "
            f"{result['mean_difference']:+8.4f}  {shown}: {_verdict(result)}"
        )
    for key, words in (
        ("no_score", "left out, no people in A or B"),
        ("only_a", "left out, only in A"),
        ("only_b", "left out, only in B"),
    ):
        if result[key]:
            lines.append(f"{words}: {len(result[key])} ({', '.join(result[key][:5])}"[:200] + ")")
    for key, (left, right) in result["settings"].items():
        lines.append(f"setting {key}: A {left}, B {right}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("a", type=Path, help="scores.json, or the folder that holds it")
    parser.add_argument("b", type=Path, help="the other one; differences are b - a")
    parser.add_argument("--score", choices=SCORES, default=SCORES[0], help="which score to compare")
    parser.add_argument("--samples", type=int, default=10_000, help="bootstrap samples")
    parser.add_argument("--most", type=int, help="print only this many videos")
    parser.add_argument("--output", type=Path, help="also write the comparison as JSON")
    args = parser.parse_args()
    if args.samples < 1:
        raise UsageError(f"--samples: expected at least 1, got {args.samples}")
    result = compare(read_scores(args.a), read_scores(args.b), args.score, args.samples)
    print(format_table(result, args.most))
    if args.output:
        write_json(args.output, result)
    return 0


if __name__ == "__main__":
    run_main(main)

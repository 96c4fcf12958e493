"""Two sets of scores side by side: per video, and the mean with a paired bootstrap interval.

    python -m tools.compare results/before/scores.json results/after/scores.json

Videos are matched by their path below each set's own folder, so two models' outputs in two folders
are compared by file name. Where all names are the benchmark's (`<prompt>-<index>.mp4`), the
bootstrap draws whole prompts, because videos of one prompt are not independent. Where settings
that change scores differ, the verdict is "not comparable" and names them.
"""

import argparse
import re
from pathlib import Path

from human_anomaly.configs.defaults import flatten
from human_anomaly.configs.values import SCORING_KEYS
from human_anomaly.data.runs.marks import is_same_file
from human_anomaly.models.scoring.results import (
    SCORES,
    by_name,
    csv_table,
    first_five,
    mean_interval,
    mean_known,
    read_scores,
)
from human_anomaly.models.scoring.tracks import pair
from human_anomaly.tools.vbench2.prompts import prompt_and_index
from human_anomaly.utils import (
    UsageError,
    atomic_write,
    command_parser,
    plain,
    read_jsonl,
    run_main,
    write_json,
)

SAME_PERSON = 0.5  # IoU
# Settings that change no score: the YAML's path (its values are under "changed"), pictures' times.
HARMLESS = ("cfg", "fps")


def pair_videos(
    a: list[dict], b: list[dict], without: str | None = None
) -> tuple[list[tuple], list[str], list[str]]:
    """Return [(name, row of a, row of b)] sorted by name, and the names in one set only.

    What matches the regular expression `without` is taken out of the names.
    """
    left, right = by_name(a), by_name(b)
    if without is not None:
        left, right = _shorter(left, without, "A"), _shorter(right, without, "B")
    if not left.keys() & right.keys():  # the sets differ in folders, or one holds a single video
        left = {Path(k).name: row for k, row in left.items()}
        right = {Path(k).name: row for k, row in right.items()}
    names = sorted(left.keys() & right.keys())
    pairs = [(name, left[name], right[name]) for name in names]
    return pairs, sorted(left.keys() - right.keys()), sorted(right.keys() - left.keys())


def _shorter(rows: dict[str, dict], without: str, which: str) -> dict[str, dict]:
    found: dict[str, dict] = {}
    for name, row in rows.items():
        short = re.sub(without, "", name)
        if short in found:
            both = f"{found[short]['video_path']} and {row['video_path']}"
            raise UsageError(f"--pair: in {which}, it gives {both} the same name {short!r}")
        found[short] = row
    return found


def compare(
    a: dict,
    b: dict,
    score: str = "video_results",
    samples: int = 10_000,
    without: str | None = None,
) -> dict:
    """Return the comparison of two scores.json contents by `score`, differences as b - a."""
    pairs, only_a, only_b = pair_videos(a["videos"], b["videos"], without)
    if not pairs:
        some = f"; in A {first_five(only_a)}, in B {first_five(only_b)}" if only_a or only_b else ""
        raise UsageError(f"the two files have no video in common, by path or by name{some}")
    rows, no_score = [], []
    for name, left, right in pairs:
        if left.get(score) is None or right.get(score) is None:
            no_score.append(name)
        else:
            row = {"video": name, "a": left[score], "b": right[score]}
            rows.append(row | {"difference": row["b"] - row["a"]})
    differences = [row["difference"] for row in rows]
    old, new = (dict(flatten(scores.get("settings", {}))) for scores in (a, b))
    parsed = [prompt_and_index(row["video"]) for row in rows]  # None: not the benchmark's name
    prompts = [prompt for prompt, _ in parsed] if all(parsed) else None
    interval = mean_interval(differences, prompts, samples)
    settings, sides = _differing(old, new), {"A": a, "B": b}
    result = {
        "score": score,
        "videos": rows,
        "mean_a": mean_known([row["a"] for row in rows]),
        "mean_b": mean_known([row["b"] for row in rows]),
        "mean_difference": mean_known(differences),
        "ci95": list(interval) if interval else None,
        "no_score": no_score,
        "only_a": only_a,
        "only_b": only_b,
        "settings": settings,
        "versions": _differing(_versions(a["videos"]), _versions(b["videos"])),
        "warnings": [f"{n}: {w}" for n in sides for w in sides[n].get("warnings", ())],
        "unlike": [key for key, values in settings.items() if _changes_scores(key, *values)],
    }
    return result | {"verdict": _verdict(result)}


def _changes_scores(key: str, a: object, b: object) -> bool:
    """Return whether scores depend on a setting of scores.json whose values are `a` and `b`."""
    group, _, name = key.partition(".")
    if group == "changed":
        return name.startswith((*SCORING_KEYS, "SCORE.NO_PERSON"))
    is_file = group == "models" or key.startswith("detector_")
    return key not in HARMLESS and not (is_file and is_same_file(a, b))


def format_csv(a: dict, b: dict, without: str | None = None) -> str:
    """Return a line per pair as CSV, unrounded: names, and each score in A and in B."""
    columns = [f"{score}_{side}" for score in SCORES for side in "ab"]
    rows = []
    for name, *two in pair_videos(a["videos"], b["videos"], without)[0]:
        paths = [row["video_path"] for row in two]
        rows.append([name, *paths, *(row.get(score) for score in SCORES for row in two)])
    return csv_table(["video", "path_a", "path_b", *columns], rows)


def _differing(a: dict, b: dict) -> dict[str, list]:
    both = sorted(a.keys() | b.keys())
    return {key: [a.get(key), b.get(key)] for key in both if a.get(key) != b.get(key)}


def _versions(rows: list[dict]) -> dict[str, str]:
    """Return the versions of each library that made the rows, "1.0, 1.1" if they differ."""
    found: dict[str, set[str]] = {}
    for row in rows:
        for library, version in row.get("versions", {}).items():
            found.setdefault(library, set()).add(version)
    return {library: ", ".join(sorted(versions)) for library, versions in found.items()}


def changed_verdicts(before: Path, after: Path, scale: float = 1) -> float | None:
    """Return the share of views found in both folders of results that have another verdict.

    People are matched by their boxes; those in `after` are `scale` times as large.
    """
    changed = []
    videos, _, _ = pair_videos(read_scores(before)["videos"], read_scores(after)["videos"])
    for _, *rows in videos:
        old, new = (
            {frame["frame"]: frame["people"] for frame in read_jsonl(folder / row["frames_file"])}
            for folder, row in zip((before, after), rows, strict=True)
        )
        for frame in old.keys() & new.keys():
            boxes = [[v / scale for v in person["bbox"]] for person in new[frame]]
            pairs = pair([person["bbox"] for person in old[frame]], boxes, SAME_PERSON)
            changed += [old[frame][i]["abnormal"] != new[frame][j]["abnormal"] for i, j in pairs]
    return sum(changed) / len(changed) if changed else None


def _verdict(result: dict) -> str:
    if unlike := result["unlike"]:
        return f"not comparable, other settings: {first_five(unlike)}"
    if result["ci95"] is None:
        return "too few videos for an interval"
    low, high = result["ci95"]
    if low > 0:
        return "B is better"
    return "A is better" if high < 0 else "no difference shown: the interval holds 0"


def format_table(result: dict, most: int | None = None) -> str:
    """Return the comparison as text, with the `most` videos that changed most (None: all)."""
    rows = sorted(result["videos"], key=lambda row: (-abs(row["difference"]), row["video"]))
    lines = [f"{result['score']:<18}{'A':>8}{'B':>9}{'B - A':>9}  video, largest change first"]
    lines += [
        f"{'':<18}{r['a']:8.4f} {r['b']:8.4f} {r['difference']:+8.4f}  {r['video']}"
        for r in rows[:most]
    ]
    if most is not None and len(rows) > most:
        lines.append(f"{'':<18}... and {len(rows) - most} more")
    for key, words in (
        ("no_score", "left out, no people in A or B"),
        ("only_a", "left out, only in A"),
        ("only_b", "left out, only in B"),
    ):
        if result[key]:
            lines.append(f"{words}: {len(result[key])} ({first_five(result[key])})")
    for key, (left, right) in result["settings"].items():
        lines.append(f"setting {key}: A {left}, B {right}")
    for key, (left, right) in result["versions"].items():
        lines.append(f"version of {key}: A {left or 'unknown'}, B {right or 'unknown'}")
    lines += [plain(f"warning: {warning}") for warning in result["warnings"]]
    if rows:
        interval = result["ci95"]
        shown = f"95% [{interval[0]:+.4f}, {interval[1]:+.4f}]: " if interval else ""
        lines.append(
            f"{'mean of ' + str(len(rows)):<18}{result['mean_a']:8.4f} {result['mean_b']:8.4f} "
            f"{result['mean_difference']:+8.4f}  {shown}{result['verdict']}"
        )
    else:
        lines.append("no video has a score in both: nothing to compare")
    return "\n".join(lines)


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"not a regular expression: {error}") from error
    return text


def main() -> int:
    parser = command_parser(__doc__, "tools.compare")
    parser.add_argument("a", type=Path, help="scores.json, or the folder that holds it")
    parser.add_argument("b", type=Path, help="the other one; differences are b - a")
    parser.add_argument("--score", choices=SCORES, default=SCORES[0], help="which score to compare")
    parser.add_argument("--samples", type=int, default=10_000, help="bootstrap samples")
    parser.add_argument("--most", type=int, help="print only this many videos")
    parser.add_argument("--output", type=Path, help="also write the comparison as JSON")
    parser.add_argument("--csv", type=Path, help="also write a row per pair, with all scores")
    text = "take out of the names what differs: '_seed[0-9]+' or '_(ours|base)'"
    parser.add_argument("--pair", metavar="REGEX", type=_pattern, help=text)
    args = parser.parse_args()
    if args.samples < 1:
        raise UsageError(f"--samples: expected at least 1, got {args.samples}")
    a, b = read_scores(args.a), read_scores(args.b)
    result = compare(a, b, args.score, args.samples, args.pair)
    print(format_table(result, args.most))
    if args.csv:
        with atomic_write(args.csv) as file:
            file.write(format_csv(a, b, args.pair))
    if args.output:
        write_json(args.output, result)
    return 0


if __name__ == "__main__":
    run_main(main)

"""Writes and reads scores.json, averages its scores and prints them."""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from human_anomaly.models.scoring.scores import bootstrap
from human_anomaly.models.weights import demo_warnings
from human_anomaly.utils import UsageError, parse_json, plain, write_json

SCORES = ("video_results", "score_frame_mean", "score_clean_frames", "score_soft", "score_people")


def merge(jobs, sources: Sequence, inputs, settings: dict, add: bool) -> dict:
    """Write scores.json from the rows of all finished videos; return its content.

    `inputs` lists the unusable inputs and what was skipped.
    """
    items = jobs.items()
    stems = [source.stem for source in sources]
    others = [stem for stem in items if stem not in set(stems)] if add else []
    rows = [items[stem]["row"] for stem in (*others, *stems)]
    failed = [{"video_path": path, "error": error} for path, error in inputs.failed]
    failed += [row for row in rows if "error" in row]
    videos = [row for row in rows if "error" not in row]
    for row in videos:  # earlier versions stored no views
        row |= {"views": row["people"], "abnormal_views": row["abnormal_people"]}
    weights = [settings["detector_weights"], *settings["models"].values()]
    dtypes = sorted({row["dtype"] for row in videos})  # --fast chooses by machine
    scores = {
        "version": 1,
        "settings": settings | {"dtype": ", ".join(dtypes)},
        "warnings": demo_warnings(weights, [row.get("sha256") for row in videos]),
        "mean": {key: mean_known([row[key] for row in videos]) for key in SCORES},
        "videos": videos,
        "failed": failed,
        "skipped": [{"path": path, "reason": reason} for path, reason in inputs.skipped],
    }
    write_json(jobs.folder / "scores.json", scores)
    return scores


def read_scores(path: str | Path) -> dict:
    """Return the content of a scores.json, or of the one in the folder `path`.

    Raises UsageError naming the file and what is wrong with it.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "scores.json"
    try:
        content = parse_json(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise UsageError(f"{path}: cannot read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected a scores.json with a list 'videos'")
    content = {"failed": [], "warnings": []} | content
    for key in ("videos", "failed", "warnings"):
        if not isinstance(rows := content.get(key), list):
            raise UsageError(f"{path}: expected a scores.json with a list '{key}'")
        for number, row in enumerate([] if key == "warnings" else rows):
            if not isinstance(row, dict) or not isinstance(row.get("video_path"), str):
                raise UsageError(f"{path}: {key}[{number}] has no video_path")
            if not isinstance(score := row.get("video_results"), (int, float, type(None))):
                raise UsageError(
                    f"{path}: {key}[{number}]: expected a number as video_results, got {score!r}"
                )
    return content


def by_name(rows: list[dict]) -> dict[str, dict]:
    """Return rows by the path of their video below the folder that all of them share."""
    paths = [row["video_path"].replace("\\", "/") for row in rows]
    try:
        common = os.path.commonpath([os.path.dirname(p) or "." for p in paths]) or "."
    except ValueError:  # no paths, or absolute and relative ones
        common = "."
    return {
        os.path.relpath(p, common) if common != "." else p: row
        for p, row in zip(paths, rows, strict=True)
    }


def mean_known(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are not None, None without any."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def mean_interval(
    values: Sequence[float], groups: Sequence[str] | None = None, samples: int = 10_000
) -> tuple[float, float] | None:
    """Return the 95% bootstrap interval of the mean of `values`, None for fewer than two groups.

    Draws are of whole groups, because values of one group are not independent. Without `groups`
    each value is a group.
    """
    names = range(len(values)) if groups is None else groups
    _, numbers = np.unique(names, return_inverse=True)
    sums, sizes = np.bincount(numbers, values), np.bincount(numbers)
    if len(sums) < 2:
        return None
    return bootstrap(len(sums), lambda drawn: sums[drawn].sum() / sizes[drawn].sum(), samples)


def count(number: int, noun: str) -> str:
    """Return "1 video", "2 videos"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def first_five(names: list[str]) -> str:
    """Return the first five names, and how many follow."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def csv_table(header: Sequence[str], rows: Iterable[Sequence]) -> str:
    """Return a table as CSV, numbers unrounded.

    Text that begins like a formula gets a ' before it, else a spreadsheet would run it.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in (header, *rows):
        formulas = [isinstance(v, str) and v.startswith(("=", "+", "-", "@", "\t")) for v in row]
        writer.writerow([f"'{v}" if f else v for v, f in zip(row, formulas, strict=True)])
    return out.getvalue()


def print_scores(scores: dict, path: Path, skipped: str = "", page: Path | None = None) -> None:
    """Print a row per video of a scores.json, what was skipped, the mean, and the page's path."""
    videos, failed = scores["videos"], scores["failed"]
    if videos:
        words = ("score", "95% interval", "people", "views", "abnormal")
        print("{:>6} {:>15} {:>7} {:>7} {:>9}  video".format(*words))
    for row in videos:
        score, ci = row["video_results"], row["ci95"]
        cells = f"{score:6.3f}" if score is not None else "     -"
        cells += f" {ci[0]:7.3f}..{ci[1]:.3f} " if ci else f"{'-':>16} "
        cells += f" {row['tracks']:7d} {row['views']:7d} {row['abnormal_views']:9d}"
        print(f"{cells}  {plain(row['video_path'])}")
        for warning in row["warnings"]:
            print(plain(f"{'':>49}  warning: {warning}"))
    for row in failed:
        print(plain(f"failed: {row['video_path']}: {row['error']}"))
    if skipped:
        print(f"skipped below the inputs, listed in scores.json: {skipped}")
    scored = sum(row["video_results"] is not None for row in videos)
    if scored:
        result = f"{scores['mean']['video_results']:6.3f} mean of {count(scored, 'video')}"
    elif videos:
        result = f"no score: no people in {count(len(videos), 'video')}"
    else:
        result = "no score: no video could be scored"
    lost = f", {count(len(failed), 'video')} failed" if failed else ""
    print("; ".join([f"{result}{lost}", f"results in {path}", *scores["warnings"]]))
    if page:
        print(f"report: {page}")


def is_below(mean: Mapping[str, float | None], least: float, score: str) -> bool:
    """Return whether the mean of `score` is None or below `least`; if so, print a last line."""
    found = mean[score]
    if found is not None and found >= least:
        return False
    print(f"below --min-score {least}: mean {score} is {'null' if found is None else found}")
    return True

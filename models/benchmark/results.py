"""Reading result files: scores.json, what its names mean, and its table."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils import UsageError

SCORES = ("video_results", "score_frame_mean", "score_clean_frames", "score_soft")


def read_scores(path: str | Path) -> dict:
    """Return the content of a scores.json, or of the one in the folder `path`.

    Raises UsageError naming the file and what is wrong with it.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "scores.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path}: not JSON: {error}") from error
    videos = content.get("videos") if isinstance(content, dict) else None
    if not isinstance(videos, list):
        raise UsageError(f"{path}: expected a scores.json with a list 'videos'")
    for number, row in enumerate(videos):
        if not isinstance(row, dict) or not isinstance(row.get("video_path"), str):
            raise UsageError(f"{path}: videos[{number}] has no video_path")
    return content


def by_name(rows: list[dict]) -> dict[str, dict]:
    """Return rows by the path of their video below the folder that all of them share."""
    paths = [row["video_path"].replace("\\", "/") for row in rows]
    if not paths:
        return {}
    common = os.path.commonpath([os.path.dirname(p) or "." for p in paths]) if _alike(paths) else ""
    return {
        os.path.relpath(p, common) if common not in ("", ".") else p: row
        for p, row in zip(paths, rows, strict=True)
    }


def _alike(paths: list[str]) -> bool:
    return len({p.startswith("/") for p in paths}) == 1


def prompt_and_index(path: str) -> tuple[str, int] | None:
    """Return (prompt, index) of a file in the benchmark's naming, `<prompt>-<index>.mp4`."""
    match = re.fullmatch(r"(.*)-(\d+)", Path(path.replace("\\", "/")).stem, re.DOTALL)
    return (match[1], int(match[2])) if match else None


def mean_known(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are not None, None without any."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def print_scores(scores: dict, path: Path) -> None:
    """Print a line per video of a scores.json on standard output."""
    print(f"{'score':>6} {'95% interval':>15} {'people':>7} {'abnormal':>9}  video")
    for row in scores["videos"]:
        score, ci = row["video_results"], row["ci95"]
        cells = f"{score:6.3f}" if score is not None else "     -"
        cells += f" {ci[0]:7.3f}..{ci[1]:.3f} " if ci else f"{'-':>16} "
        print(f"{cells} {row['people']:7d} {row['abnormal_people']:9d}  {row['video_path']}")
        for warning in row["warnings"]:
            print(f"{'':>41}  warning: {warning}")
    for row in scores["failed"]:
        print(f"{'failed':>6} {'':>33}  {row['video_path']}: {row['error']}")
    if scores["mean"]["video_results"] is not None:
        print(f"{scores['mean']['video_results']:6.3f} mean; results in {path}")

"""Reading result files: scores.json and what its names mean."""

import json
import os
import re
from pathlib import Path

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

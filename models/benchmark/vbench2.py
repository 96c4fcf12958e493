"""VBench-2.0's Human Anatomy of a scored folder, next to the published table.

    python inference.py --release --video VIDEOS --output results/mymodel
    python -m models.benchmark.vbench2 results/mymodel/scores.json

The folder is in the benchmark's naming: `<prompt>-<index>.mp4`, 120 prompts with 3 videos each.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

from configs.defaults import get_config, thresholds
from models.benchmark.results import prompt_and_index, read_scores
from models.weights import RELEASE_CONFIG, ROOT
from utils import UsageError, run_main

PUBLISHED = {
    "HunyuanVideo": 88.58,
    "Kling 1.6": 86.99,
    "Sora-480p": 86.45,
    "CogVideoX-1.5": 59.72,
}
PROMPTS, PER_PROMPT = 120, 3
_NAME_LENGTH = 180  # the benchmark cuts longer prompts in file names


def read_prompts(path: Path) -> list[str]:
    """Return the prompts of a text file (one a line), or of the benchmark's JSON list.

    In JSON the entries of the dimension Human_Anatomy count, where dimensions are named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--prompts: cannot read {path}: {error.strerror}") from error
    if path.suffix != ".json":
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        rows = json.loads(text)
        wanted = [
            row["prompt_en"]
            for row in rows
            if "dimension" not in row or "Human_Anatomy" in row["dimension"]
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"--prompts: {path}: expected a list of objects with prompt_en") from error
    return list(dict.fromkeys(wanted))


def summarise(scores: dict, prompts: list[str] | None = None) -> dict:
    """Return mean score in percent, and what is missing, of a folder in the benchmark's naming.

    Without `prompts`, the prompts are those seen; whole prompts that are missing can then be
    counted but not named.
    """
    found, other = defaultdict(dict), []
    for row in scores["videos"]:
        parsed = prompt_and_index(row["video_path"])
        if parsed is None:
            other.append(row["video_path"])
        else:
            found[parsed[0][:_NAME_LENGTH]][parsed[1]] = row
    failed = {Path(row["video_path"]).name for row in scores.get("failed", [])}
    names = [p[:_NAME_LENGTH] for p in prompts] if prompts else sorted(found)
    first = min((i for indices in found.values() for i in indices), default=0)
    numbers = range(min(first, 1), min(first, 1) + PER_PROMPT)  # some count from 1
    wanted = [(name, index) for name in names for index in numbers]
    missing = [f"{name}-{index}.mp4" for name, index in wanted if index not in found.get(name, {})]
    rows = [row for name in names for row in found.get(name, {}).values()]
    values = [row["video_results"] for row in rows if row["video_results"] is not None]
    return {
        "human_anatomy": 100 * sum(values) / len(values) if values else None,
        "videos": len(values),
        "expected": PER_PROMPT * (len(prompts) if prompts else PROMPTS),
        "prompts": sum(bool(found.get(name)) for name in names),
        "expected_prompts": len(prompts) if prompts else PROMPTS,
        "missing": missing,
        "failed": sorted(failed),
        "no_score": [row["video_path"] for row in rows if row["video_results"] is None],
        "other": other + [n for n in found if n not in set(names)],
    }


def differing_settings(scores: dict) -> list[str]:
    """Return in words where the settings are not those of the published numbers."""
    settings, release = scores.get("settings", {}), get_config(ROOT / RELEASE_CONFIG)
    notes = []
    if "thresholds" in settings and settings["thresholds"] != thresholds(release):
        notes.append(f"thresholds {settings['thresholds']}, published {thresholds(release)}")
    if settings.get("channels", release.TEST.CHANNELS) != release.TEST.CHANNELS:
        notes.append(f"channels {settings['channels']}, published {release.TEST.CHANNELS}")
    if settings.get("frame_stride", 1) != 1:
        notes.append(f"every {settings['frame_stride']}th frame, published every frame")
    return notes


def format_table(summary: dict, notes: list[str], name: str = "this folder") -> str:
    """Return the summary beside the published table as text."""
    score = summary["human_anatomy"]
    table = dict(PUBLISHED)
    if score is not None:
        table[f"{name} ({summary['videos']} of {summary['expected']} videos)"] = score
    lines = ["Human Anatomy (VBench-2.0)"]
    lines += [f"{v:7.2f}  {k}" for k, v in sorted(table.items(), key=lambda item: -item[1])]
    if score is None:
        lines.append(
            "      -  no video in the benchmark's naming (<prompt>-<index>.mp4) has a score"
        )
    whole = summary["prompts"] == summary["expected_prompts"] and not summary["missing"]
    if not whole:
        lines.append(
            f"incomplete: {summary['prompts']} of {summary['expected_prompts']} prompts, "
            f"{summary['videos']} of {summary['expected']} videos"
        )
    lines += [f"missing: {name}" for name in summary["missing"]]
    lines += [f"failed: {name}" for name in summary["failed"]]
    lines += [f"no people, left out of the mean: {name}" for name in summary["no_score"]]
    lines += [f"not in the benchmark's naming, left out: {name}" for name in summary["other"]]
    lines += [f"not comparable with the published: {note}" for note in notes]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scores", type=Path, help="scores.json, or the folder that holds it")
    parser.add_argument(
        "--prompts", type=Path, help="the benchmark's prompts (.txt or .json), to name what lacks"
    )
    parser.add_argument("--name", default="this folder", help="what to call these videos")
    args = parser.parse_args()
    scores = read_scores(args.scores)
    summary = summarise(scores, read_prompts(args.prompts) if args.prompts else None)
    print(format_table(summary, differing_settings(scores), args.name))
    complete = not summary["missing"] and summary["prompts"] == summary["expected_prompts"]
    return 0 if complete else 1


if __name__ == "__main__":
    run_main(main)

"""Computes published numbers again, prints both side by side, and names the files that are missing.

python -m tools.reproduce                   # all that weights and data here allow
python -m tools.reproduce --videos FOLDER   # FOLDER/HunyuanVideo/<prompt>-<0..2>.mp4
"""

import argparse
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from human_anomaly.configs.parts import BASE_PARTS
from human_anomaly.configs.places import ROOT, home, tool
from human_anomaly.models.scoring.results import read_scores
from human_anomaly.models.weights import RELEASE_CONFIG, WEIGHTS, find_weight, release_files
from human_anomaly.tools.vbench2.evaluation import PUBLISHED, VIDEOS, format_result, write_result
from human_anomaly.tools.vbench2.run import RunError, evaluate, run_script
from human_anomaly.utils import UsageError, command_parser, run_main

CLIP = "people are walking.-1.mp4"
CLIP_SCORE, CLIP_NORMAL, CLIP_PEOPLE = 0.9463087248322147, 141, 149
ACCURACY = {"human": 78.1, "face": 71.8, "hand": 76.1}  # percent, after epoch 29
TEST_CROPS = {"human": 1984, "face": 181, "hand": 142}
DATA_HINT = f"`{tool('vbench2_data')} VBench-2.0_human_anomaly` says how to fetch and unpack it"


@dataclass
class Item:
    """One published number, the files that are missing here, and how to compute ours."""

    name: str
    published: str
    missing: list[str]
    run: Callable[[], str]


def _run(script: str, *words: str | Path) -> None:
    """Run a script; raises RunError unless it succeeds, also where only an input failed."""
    if status := run_script(script, *words):
        raise RunError(status, f"{script} ended with exit status {status}")


def _weights_missing(names: tuple[str, ...], root: Path) -> list[str]:
    return [
        f"{root / WEIGHTS[name].path} ({tool('fetch_weights')} {name})"
        for name in names
        if find_weight(name, root) is None
    ]


def _release_flags(root: Path) -> list[str]:
    """Return inference.py's flags for the released weights below `root`."""
    files = release_files(root, ("detector", *BASE_PARTS))
    flags = ["--release", "--detector-weights", str(files["detector"])]
    return flags + [word for part in BASE_PARTS for word in (f"--{part}-model", str(files[part]))]


def clip_item(args: argparse.Namespace) -> Item:
    """The example clip's score."""
    folders = [folder for folder in (args.data, args.videos) if folder and folder.is_dir()]
    clip = args.clip or next((path for folder in folders for path in folder.rglob(CLIP)), None)
    missing = _weights_missing(("detector", *BASE_PARTS), args.root)
    if clip is None or not clip.is_file():
        where = args.clip or f"'{CLIP}' below {args.data}"
        missing.append(f"the example clip, {where} (1920x1080, 173 frames; --clip FILE)")

    def run() -> str:
        output = args.output / "clip"
        _run("inference.py", *_release_flags(args.root), "--video", clip, "--output", output)
        row = read_scores(output)["videos"][0]
        normal = row["views"] - row["abnormal_views"]
        off = row["video_results"] - CLIP_SCORE
        same = "equal" if abs(off) < 1e-9 else f"off by {off:+.6f}"
        return f"{row['video_results']!r} ({normal} of {row['views']} views): {same}"

    published = f"{CLIP_SCORE!r} ({CLIP_NORMAL} of {CLIP_PEOPLE} views)"
    return Item("example clip", published, missing, run)


def accuracy_item(args: argparse.Namespace, part: str) -> Item:
    """The released classifier's accuracy on the public test crops."""
    lines = args.data / "dataset" / f"{part}_test.jsonl"
    missing = _weights_missing((part,), args.root)
    if not lines.is_file():
        missing.append(f"{lines} ({TEST_CROPS[part]:,} test crops; {DATA_HINT})")

    def run() -> str:
        output = args.output / f"eval_{part}"
        weights = release_files(args.root, [part])[part]
        words = ["--val-path", lines, "--resume", weights, "--output", output, "--overwrite"]
        _run("main_finetune.py", "--eval", "--cfg", ROOT / RELEASE_CONFIG, *words)
        found = json.loads((output / "report/metrics.json").read_text())["metrics"]
        here = 100 * found["accuracy_at_half"]
        return f"{here:.1f}: off by {here - ACCURACY[part]:+.1f}"

    name = f"{part}: accuracy after epoch 29, percent"
    return Item(name, f"{ACCURACY[part]:.1f}", missing, run)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def table_item(args: argparse.Namespace, model: str) -> Item:
    """A video model's Human Anatomy over 120 prompts x 3 videos."""
    folders = {}
    if args.videos and args.videos.is_dir():
        folders = {_plain(p.name): p for p in sorted(args.videos.iterdir()) if p.is_dir()}
    folder = folders.get(_plain(model))
    missing = _weights_missing(("detector", *BASE_PARTS), args.root)
    if folder is None:
        where = args.videos / model if args.videos else f"--videos FOLDER with FOLDER/{model}/"
        missing.append(f"{model}'s videos, {where} (<prompt>-<0..2>.mp4, {VIDEOS} videos)")

    def run() -> str:
        output = args.output / _plain(model)
        flags = _release_flags(args.root)
        result = evaluate(folder, output, name=model, allow_missing=True, flags=flags)
        if result is None or result.mean is None:
            raise RunError(1, "no video was scored")
        write_result(result, output)
        print(format_result(result))
        score = 100 * result.mean
        off = score - PUBLISHED[model]
        return f"{score:.2f}, {len(result.rows)} of {VIDEOS} videos: off by {off:+.2f}"

    return Item(f"Human Anatomy of {model}", f"{PUBLISHED[model]:.2f}", missing, run)


def reproduce(items: list[Item], *, dry_run: bool = False) -> int:
    """Run what can be run, print a table, and return how many items have no number."""
    results = []
    for item in items:
        if item.missing:
            results.append("not run: something is missing")
        elif dry_run:
            results.append("would run")
        else:
            try:
                results.append(item.run())
            except (RunError, UsageError, OSError, LookupError, ValueError) as error:
                results.append(f"failed: {error}")
    width = max(len(item.name) for item in items)
    published = max(len(item.published) for item in items)
    print(f"\n{'what':{width}}  {'published':{published}}  here")
    for item, result in zip(items, results, strict=True):
        print(f"{item.name:{width}}  {item.published:{published}}  {result}")
    missing = list(dict.fromkeys(line for item in items for line in item.missing))
    if missing:
        print("\nmissing:")
        print("\n".join(f"  {line}" for line in missing))
    failed = sum(result.startswith("failed") for result in results)
    lacking = sum(bool(item.missing) for item in items)
    compared = len(items) - failed - lacking
    done = "would be compared" if dry_run else "compared"
    print(
        f"\n{compared} of {len(items)} published numbers {done}, {lacking} not run, {failed} failed"
    )
    return failed + lacking


def main() -> int:
    parser = command_parser(__doc__, "tools.reproduce")
    add = parser.add_argument
    data, results = home() / "VBench-2.0_human_anomaly", Path("results/reproduce")
    add("--data", type=Path, default=data, help="the public data set")
    add("--clip", type=Path, help=f"the example clip, {CLIP}")
    add("--videos", type=Path, help="folder with a folder of videos per model")
    add("--output", type=Path, default=results, help="folder for results")
    add("--root", type=Path, default=home(), help="folder of pretrain/ and checkpoint/release/")
    add("--dry-run", action="store_true", help="only say what would run")
    args = parser.parse_args()
    for name in ("data", "clip", "videos", "output"):
        if (value := getattr(args, name)) is not None:
            setattr(args, name, value.absolute())
    items = [clip_item(args)]
    items += [accuracy_item(args, part) for part in ACCURACY]
    items += [table_item(args, model) for model in PUBLISHED]
    return 1 if reproduce(items, dry_run=args.dry_run) else 0


if __name__ == "__main__":
    run_main(main)

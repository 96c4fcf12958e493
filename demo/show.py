"""Score the embedded videos with the embedded weights: `python -m demo.show` (make demo)."""

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from configs.defaults import PARTS
from demo.paths import ROOT, VIDEOS, shown_part
from utils import UsageError, read_jsonl, run_main


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.show", description=__doc__)
    parser.add_argument(
        "--output", type=Path, default=ROOT / "results/demo", help="folder for the results"
    )
    return parser.parse_args(argv)


def read_truth(path: Path = VIDEOS.parent / "truth.jsonl") -> dict[str, str | None]:
    """Return {video: the part that its truth calls abnormal, None if none}."""
    frames = defaultdict(list)
    for row in read_jsonl(path):
        frames[row["video"]].append(row["people"])
    return {video: shown_part(people) for video, people in frames.items()}


def table(rows: Mapping[str, Mapping], truth: Mapping[str, str | None]) -> str:
    """Return a line per video: its truth, its scores, and how many people each part flags."""
    lines = [
        f"{'video':<24}{'truth':<18}{'video_results':>14}{'score_soft':>12}"
        + "".join(f"{part + ' flags':>14}" for part in PARTS)
    ]
    for video, part in sorted(truth.items()):
        row = rows[video]
        shown = "normal" if part is None else f"{part} anomaly"
        scores = [row["video_results"], row["score_soft"]]
        words = ["-" if score is None else f"{score:.3f}" for score in scores]
        flags = "".join(f"{row['abnormal_by_part'][p]:>14.1%}" for p in PARTS)
        lines.append(f"{video:<24}{shown:<18}{words[0]:>14}{words[1]:>12}{flags}")
    return "\n".join(lines)


def score(output: Path) -> dict[str, dict]:
    """Run inference.py on the demo's videos; return its rows by video name."""
    script = [sys.executable, str(ROOT / "inference.py")]
    words = ["--video", str(VIDEOS), "--output", str(output), "--annotate", "--report"]
    words.append("--overwrite")  # results of earlier weights are no reason to stop
    status = subprocess.run([*script, *words], check=False).returncode
    if status:
        raise UsageError(f"inference.py ended with status {status}")
    content = json.loads((output / "scores.json").read_text(encoding="utf-8"))
    return {Path(row["video_path"]).name: row for row in content["videos"]}


def main() -> int:
    args = parse_args()
    rows = score(args.output)
    print(
        f"\n{table(rows, read_truth())}\n\n"
        "video_results: share of normal people (1 is best); flags: share of people flagged.\n"
        f"Look at: {args.output / 'report/index.html'}\n"
        f"and at:  {args.output}/*.annotated.*\n"
        "These weights know drawn people only. Real weights: `make weights`, then\n"
        "`python inference.py --release --video YOUR.mp4`."
    )
    return 0


if __name__ == "__main__":
    run_main(main, (OSError,))

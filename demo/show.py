"""Score the demo's videos with the demo's weights: `python -m demo.show` (make demo)."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from human_anomaly.configs.parts import BASE_PARTS
from human_anomaly.demo.paths import ROOT, VIDEOS
from human_anomaly.demo.truth import abnormal_part, read_truth
from human_anomaly.utils import UsageError, command_parser, run_main

EXPLANATION = """\
What to expect: the two normal videos score higher than the two with an anomaly, and an anomaly
raises the flags of its part. 1 is the best score. A view is one person in one frame: video_results
is the share of views judged normal, flags are the shares of views that a part's classifier flags.
These weights were trained on drawings: their scores on other video mean nothing.
"""


def table(rows: Mapping[str, Mapping], truth: Mapping[str, str | None]) -> str:
    """Return a line per video: its truth, the expected score, its scores, and flags per part.

    `rows` are the videos' rows of scores.json, `truth` their abnormal parts, None for normal ones.
    """
    lines = [
        f"{'video':<20}{'truth':<15}{'expected':<10}{'video_results':>13}{'score_soft':>12}"
        + "".join(f"{part + ' flags':>13}" for part in BASE_PARTS)
    ]
    for video, part in sorted(truth.items()):
        row = rows[video]
        shown, expected = ("normal", "high") if part is None else (f"{part} anomaly", "low")
        scores = [row["video_results"], row["score_soft"]]
        words = ["-" if score is None else f"{score:.3f}" for score in scores]
        flags = "".join(f"{row['abnormal_by_part'][p]:>13.1%}" for p in BASE_PARTS)
        lines.append(f"{video:<20}{shown:<15}{expected:<10}{words[0]:>13}{words[1]:>12}{flags}")
    return "\n".join(lines)


def score(output: Path) -> dict[str, dict]:
    """Run inference.py on the demo's videos; return their rows of scores.json by file name."""
    command = [
        sys.executable,
        "-m",
        "human_anomaly.inference",
        "--video",
        VIDEOS,
        "--output",
        output,
    ]
    # The folder may hold results of earlier weights, hence --overwrite.
    command += ["--output", output, "--annotate", "--report", "--overwrite"]
    if status := subprocess.run(command, check=False).returncode:
        raise UsageError(f"inference.py ended with status {status}")
    content = json.loads((output / "scores.json").read_text(encoding="utf-8"))
    return {Path(row["video_path"]).name: row for row in content["videos"]}


def main() -> int:
    parser = command_parser(__doc__, "demo.show")
    folder = Path("results/demo")
    parser.add_argument("--output", type=Path, default=folder, help="folder for the results")
    output = parser.parse_args().output
    rows = score(output)
    frames = read_truth(ROOT / "demo/truth.jsonl")
    truth = {video: abnormal_part(people) for video, people in frames.items()}
    print(f"\n{table(rows, truth)}\n\n{EXPLANATION}")
    print(f"Report:           {output / 'report/index.html'}")
    print(f"Annotated videos: {output}/*.annotated.*")
    print("Your own videos:  make weights, then python inference.py --release --video YOUR.mp4")
    return 0


if __name__ == "__main__":
    run_main(main, (OSError,))

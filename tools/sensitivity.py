"""What moves the score: the same videos, with one change of settings or pictures at a time.

    python -m tools.sensitivity --videos DIR --release --output results/sensitivity

Prints a row per change: the mean score, its difference from the unchanged one with a 95% interval
over videos, and the share of people's verdicts that changed. If DIR holds a truth.jsonl (drawn
videos), also how well the score tells abnormal from normal videos (AUROC), and the share of people
views that are flagged in normal videos. The detector runs again only if the change affects it. The
same command resumes after an interruption.
"""

import argparse
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from human_anomaly.configs.defaults import PARTS, get_config
from human_anomaly.data.sources import find_sources
from human_anomaly.data.video import VideoError
from human_anomaly.models.scoring.results import SCORES, mean_interval, mean_known
from human_anomaly.models.weights import choose_weights
from human_anomaly.tools.changes import Bench, changes_of
from human_anomaly.utils import (
    UsageError,
    command_parser,
    quiet_libraries,
    read_jsonl,
    run_main,
    setup_logging,
    write_json,
    write_jsonl,
)


def read_labels(folder: Path) -> dict[str, bool]:
    """Return {video: is it abnormal} from the folder's truth.jsonl, empty without one."""
    path = folder / "truth.jsonl"
    labels: dict[str, bool] = {}
    for row in read_jsonl(path) if path.is_file() else ():
        is_abnormal = any(person["abnormal_parts"] for person in row["people"])
        labels[row["video"]] = labels.get(row["video"], False) or is_abnormal
    return labels


def score_all(bench: Bench, videos: Path, most: int | None, output: Path) -> Iterator[dict]:
    """Yield each video's figures under every change; finished videos are read from `output`."""
    inputs = find_sources([videos])
    for name, error in inputs.failed:
        print(f"failed: {name}: {error}")
    path, done = output / "videos.jsonl", {}
    if path.is_file():
        head, *rows = read_jsonl(path)
        if head != bench.settings():
            raise UsageError(f"--output: {output} holds figures of other settings")
        done = {row["video"]: row for row in rows}
    for source in tqdm(inputs.sources[:most], unit="video"):
        name = source.path.name
        if name not in done:
            try:
                done[name] = {"video": name, "changes": bench.score(source)}
            except VideoError as error:
                print(f"failed: {name}: {error}")
                continue
            write_jsonl(path, [bench.settings(), *done.values()])
        yield done[name]


def summarise(rows: Sequence[dict], labels: dict[str, bool], score: str) -> list[dict]:
    """Return a row per change, the unchanged one first."""
    table = []
    for name in rows[0]["changes"]:
        pairs = [(row["changes"][name], next(iter(row["changes"].values()))) for row in rows]
        known = [(a[score], b[score]) for a, b in pairs if None not in (a[score], b[score])]
        found = {"change": name, "mean": mean_known([after[score] for after, _ in pairs])}
        found["difference"] = mean_known([a - b for a, b in known])
        found["ci95"] = mean_interval([a - b for a, b in known]) if table and known else None
        matched, changed = (sum(after[key] for after, _ in pairs) for key in ("matched", "changed"))
        found["changed"] = changed / matched if matched else None
        found |= _against_truth(rows, name, labels, score)
        table.append(found)
    return table


def _against_truth(rows: Sequence[dict], name: str, labels: dict[str, bool], score: str) -> dict:
    """Return the AUROC of `score` and the share of flagged people views in normal videos."""
    known = [(labels[r["video"]], r["changes"][name]) for r in rows if r["video"] in labels]
    scored = [(label, -row[score]) for label, row in known if row[score] is not None]
    if len({label for label, _ in scored}) < 2:
        return {"auroc": None, "false_flags": None}
    from sklearn.metrics import roc_auc_score

    normal = [row for label, row in known if not label]
    people = sum(row["people"] for row in normal)
    flagged = sum(row["abnormal_people"] for row in normal)
    return {
        "auroc": float(roc_auc_score(*zip(*scored, strict=True))),
        "false_flags": flagged / people if people else None,
    }


def format_table(table: Sequence[dict]) -> str:
    """Return the changes as a Markdown table."""

    def show(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    lines = ["| change | mean | difference [95%] | verdicts changed | AUROC | false flags |"]
    lines.append("|---|---|---|---|---|---|")
    for row in table:
        interval = row["ci95"]
        bounds = f" [{interval[0]:+.4f}, {interval[1]:+.4f}]" if interval else ""
        cells = [
            row["change"],
            show(row["mean"], ".4f"),
            show(row["difference"], "+.4f") + bounds,
            show(row["changed"], ".2%"),
            show(row["auroc"], ".3f"),
            show(row["false_flags"], ".1%"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__, "tools.sensitivity")
    add = parser.add_argument
    add("--videos", type=Path, required=True, metavar="DIR", help="folder of videos")
    add("--most", type=int, metavar="N", help="score the first N videos only")
    text = "folder for the figures of each video, from which a killed run resumes"
    add("--output", type=Path, default=Path("results/sensitivity"), metavar="DIR", help=text)
    add("--score", choices=SCORES, default=SCORES[0], help="which score to report")
    add("--cfg", metavar="FILE", help="YAML of the unchanged settings")
    add("--detector-config", metavar="FILE", help="YOLO-World's config")
    add("--detector-weights", metavar="FILE", help="YOLO-World's checkpoint")
    for part in PARTS:
        add(f"--{part}-model", metavar="FILE", help=f"checkpoint that judges the {part}")
    add("--release", action="store_true", help="use the released weights and their settings")
    add("--frame-stride", type=int, default=1, help="score every n-th frame (1)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    setup_logging()
    quiet_libraries()
    if not args.videos.is_dir():
        raise UsageError(f"--videos: no such folder: {args.videos}")
    weights = choose_weights(
        parts=PARTS,
        cfg=args.cfg,
        detector_config=args.detector_config,
        detector_weights=args.detector_weights,
        models={part: getattr(args, f"{part}_model") for part in PARTS},
        release=args.release,
    )
    config = get_config(weights.cfg)
    can_encode = shutil.which("ffmpeg") is not None
    if not can_encode:
        print("left out: re-encoding, which needs a program ffmpeg with libx264 on the PATH")
    args.output.mkdir(parents=True, exist_ok=True)
    bench = Bench(
        weights,
        changes_of(config, args.frame_stride, can_encode=can_encode),
        device=args.device,
        stride=args.frame_stride,
    )
    rows = list(score_all(bench, args.videos, args.most, args.output))
    if not rows:
        raise UsageError(f"--videos: no video in {args.videos} could be scored")
    table = summarise(rows, read_labels(args.videos), args.score)
    print(f"{args.score} of {len(rows)} videos, every {args.frame_stride}. frame\n")
    print(format_table(table))
    write_json(args.output / "sensitivity.json", table)
    return 0


if __name__ == "__main__":
    run_main(main, (OSError,))

"""What moves the score: the same videos, with one change of settings or pictures at a time.

    python -m tools.sensitivity --videos DIR --release --output results/sensitivity

Runs inference.py once per change, each into a folder of its own below --output, and prints a row
per change: the mean score, its difference from the unchanged one with a 95% interval over videos,
and the share of views whose verdict changed. All other flags go to inference.py. After an
interruption, run the same command again. `python -m tools.compare` compares two of the folders.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from human_anomaly.configs.defaults import flatten, get_config
from human_anomaly.configs.places import ROOT
from human_anomaly.data.sources import find_sources
from human_anomaly.models.scoring.results import SCORES, read_scores
from human_anomaly.tools.compare import changed_verdicts, compare
from human_anomaly.tools.vbench2.run import RunError, run_script
from human_anomaly.utils import UsageError, command_parser, run_main, write_json

# Copies of the videos: ffmpeg's options, and the factor of their sides. H.264 needs even sides.
H264 = "-vf crop=trunc(iw/2)*2:trunc(ih/2)*2 -c:v libx264 -pix_fmt yuv420p"
COPIES = {
    "half resolution": ("-vf scale=iw/2:ih/2:flags=area -c:v ffv1", 0.5),
    "re-encoded at CRF 28": (f"{H264} -crf 28", 1),
    "re-encoded at CRF 35": (f"{H264} -crf 35", 1),
    "2x upscaling": ("-vf scale=iw*2:ih*2:flags=bicubic -c:v ffv1", 2),
}


def changes_of(config, stride: int) -> Iterator[tuple[str, dict, list[str]]]:
    """Yield the changes of `config` and the frame stride: name, settings, inference.py's flags."""
    release = get_config(ROOT / "configs/vbench2_release.yaml").SCORE.THRESHOLDS
    documented = get_config(ROOT / "configs/documented.yaml").SCORE.THRESHOLDS
    is_exact = release == config.SCORE.THRESHOLDS
    others = dict(flatten(documented if is_exact else release, "SCORE.THRESHOLDS."))
    colours = "rgb" if config.TEST.CHANNELS == "bgr" else "bgr"
    crop, padding = not config.TEST.CROP, not config.DETECTOR.KEEP_PADDING_CLASS
    blank = "boxes of the blank text " + ("count as people" if padding else "ignored")
    nobody = 1.0 if config.SCORE.NO_PERSON is None else None
    yield f"colours {colours.upper()}", {"TEST.CHANNELS": colours}, []
    yield "centre crop" if crop else "direct resize", {"TEST.CROP": crop}, []
    yield f"thresholds {'rounded' if is_exact else 'exact'}", others, []
    yield blank, {"DETECTOR.KEEP_PADDING_CLASS": padding}, []
    yield f"no people: {'score 1' if nobody else 'no score'}", {"SCORE.NO_PERSON": nobody}, []
    for n in (2, 4, 8):
        yield f"--frame-stride {stride * n}", {}, ["--frame-stride", str(stride * n)]
    yield "--fast", {}, ["--fast"]


def copy_videos(files: Sequence[Path], root: Path, folder: Path, options: str) -> list[Path]:
    """Write copies of the videos below `root` into `folder` by ffmpeg; return their paths.

    Copies that are there are kept. Where ffmpeg fails, the video is left out and named.
    """
    copies = []
    for file in tqdm(files, unit="copy"):
        copies.append(target := folder / file.relative_to(root))
        if target.is_file() and target.stat().st_mtime > file.stat().st_mtime:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        words = ["ffmpeg", "-v", "error", "-y", "-i", file.absolute(), "-an", *options.split()]
        # Matroska holds both codecs, and readers know it by its content, not by the file's name.
        done = subprocess.run([*words, "-f", "matroska", part], capture_output=True, text=True)
        if done.returncode:
            print(f"left out: {copies.pop()}: ffmpeg: {' '.join(done.stderr.split())[:200]}")
        else:
            os.replace(part, target)
    return copies


def format_table(table: Sequence[dict]) -> str:
    """Return the changes as a Markdown table."""
    lines = ["| change | mean | difference [95%] | verdicts changed |", "|---|---|---|---|"]
    forms = {"mean": ".4f", "difference": "+.4f", "changed": ".2%"}
    for row in table:
        cells = [format(row[k], form) if row[k] is not None else "-" for k, form in forms.items()]
        if row["ci95"]:
            cells[1] += " [{:+.4f}, {:+.4f}]".format(*row["ci95"])
        lines.append(f"| {' | '.join([row['change'], *cells])} |")
    return "\n".join(lines)


def parse_args(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Return this command's flags, and the rest: inference.py's."""
    p = command_parser(__doc__, "tools.sensitivity", allow_abbrev=False)
    add = p.add_argument
    add("--videos", type=Path, required=True, metavar="DIR", help="folder of videos")
    add("--most", type=int, metavar="N", help="score the first N videos only")
    add("--output", type=Path, default=Path("results/sensitivity"), help="for a folder per change")
    add("--score", choices=SCORES, default=SCORES[0], help="which score to report")
    add("--opts", nargs="+", default=[], metavar="KEY VALUE", help="the unchanged settings")
    return p.parse_known_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args, rest = parse_args(argv)
    files = [source.path for source in find_sources([args.videos]).sources[: args.most]]
    if not args.videos.is_dir() or not files:
        raise UsageError(f"--videos: expected a folder with videos, got {args.videos}")
    before, table = args.output / "none", []
    if not (copies := COPIES.items() if shutil.which("ffmpeg") else ()):
        print("left out: copies of other sizes and qualities, for which ffmpeg is missing")

    def score(name: str, videos: list[Path], opts: dict, flags: list[str], scale: float) -> None:
        print(f"\n{name}", flush=True)
        after = args.output / re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        words = [*args.opts, *(w for key, v in opts.items() for w in (key, json.dumps(v)))]
        words = [*rest, *flags, *(["--opts", *words] if words else [])]
        run_script("inference.py", *words, "--output", after, "--video", *videos)
        scores = read_scores(after)
        result = compare(read_scores(before), scores, args.score)
        row = {"change": name, "mean": scores["mean"][args.score]}
        row |= {"difference": result["mean_difference"], "ci95": result["ci95"] if table else None}
        table.append(row | {"changed": changed_verdicts(before, after, scale)})

    try:
        score("none", files, {}, [], 1)
        settings = read_scores(before)["settings"]
        config = get_config(flags=settings["changed"])
        for name, opts, flags in changes_of(config, settings["frame_stride"]):
            score(name, files, opts, flags, 1)
        for name, (options, scale) in copies:
            folder = args.output / "copies" / name.replace(" ", "-")
            if copied := copy_videos(files, args.videos, folder, options):
                score(name, copied, {}, [], scale)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.status
    print(f"\n{args.score} of {len(files)} videos\n\n{format_table(table)}")
    write_json(args.output / "sensitivity.json", table)
    return 0


if __name__ == "__main__":
    run_main(main, (OSError,))

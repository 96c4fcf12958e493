"""VBench-2.0's Human Anatomy of a folder of generated videos.

    python -m models.benchmark.vbench2 --videos sampled/mymodel --output results/mymodel
    python -m models.benchmark.vbench2 results/mymodel/scores.json

The first command scores `<prompt>-<0..2>.mp4` with the released weights and writes
results/mymodel/mymodel_eval_results.json as the benchmark does; after an interruption, run it
again. The second reads what inference.py scored. Both print the result last.
"""

import argparse
import glob
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.defaults import PARTS
from models.benchmark.evaluation import Evaluation, collect, format_result, write_result
from models.benchmark.prompts import CUSTOM, STANDARD, mp4_names, read_prompts, standard_names
from models.benchmark.results import count, first_five, read_scores
from models.weights import ROOT
from utils import UsageError, run_main, world_size

WEIGHT_FLAGS = ("--detector-config", "--detector-weights", *(f"--{part}-model" for part in PARTS))


class RunError(Exception):
    """A script that failed; `status` is 2 for wrong use, else 1."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = 2 if status == 2 else 1


def run_script(script: str, *words: str | Path) -> int:
    """Run one of the three scripts with this interpreter and return its exit status.

    Status 1 says that inputs failed; any other but 0 raises RunError.
    """
    command = [sys.executable, str(ROOT / script), *map(str, words)]
    shown = shlex.join(["python", script, *command[2:]])
    shown = shown if len(shown) < 400 else f"{shown[:400]} ..."
    print(f"$ {shown}", flush=True)
    status = subprocess.run(command).returncode
    if status not in (0, 1):
        raise RunError(status, f"{script} ended with exit status {status}")
    return status


def evaluate(
    videos: Path,
    output: Path,
    *,
    name: str,
    mode: str = STANDARD,
    prompts: list[str] | None = None,
    allow_missing: bool = False,
    flags: Sequence[str] = (),
) -> Evaluation | None:
    """Score the benchmark's videos in the folder `videos` with inference.py into `output`.

    `flags` are inference.py's; if none of them names weights, the released ones are used. Returns
    None in a process of torchrun that ends while others still score. Raises UsageError for missing
    videos unless `allow_missing`, RunError where scoring fails.
    """
    present = mp4_names(videos)
    wanted = present if mode == CUSTOM else standard_names(present, prompts)
    found = set(wanted).intersection(present)
    _check_videos(videos, mode, wanted, found, allow_missing)
    given = {word.partition("=")[0].replace("_", "-") for word in flags}
    if given.isdisjoint(WEIGHT_FLAGS):
        flags = ["--release", *flags]
    inputs = [videos / file for file in sorted(found)]
    if mode == CUSTOM:  # a pattern, because a command line may not hold all names
        inputs = [f"{glob.escape(str(videos))}/*.mp4"]
    path = output / "scores.json"
    before = path.stat().st_mtime_ns if path.is_file() else None
    status = run_script("inference.py", *flags, "--output", output, "--video", *inputs)
    written = path.is_file() and path.stat().st_mtime_ns != before
    if not written and status:
        raise RunError(
            status, f"inference.py ended with exit status {status} before it wrote {path}"
        )
    if not written and world_size() > 1:
        return None
    result = collect(read_scores(path), wanted, name=name, folder=videos, mode=mode)
    if unknown := sorted(found.intersection(result.missing)):
        raise RunError(
            status, f"{path}: holds neither a score nor an error for {first_five(unknown)}"
        )
    result.left_out = sorted(set(present).difference(wanted))
    return result


def _check_videos(
    videos: Path, mode: str, wanted: list[str], found: set[str], allow_missing: bool
) -> None:
    """Raise UsageError where videos are missing."""
    if not found and mode == CUSTOM:
        raise UsageError(f"--videos: expected .mp4 files directly in {videos}, found none")
    if not found:
        raise UsageError(
            f"--videos: expected files named <prompt>-<0..2>.mp4 directly in {videos}, found none; "
            f"--mode {CUSTOM} scores .mp4 files of any name"
        )
    missing = [name for name in wanted if name not in found]
    if missing and not allow_missing:
        raise UsageError(
            f"--videos: {len(missing)} of {count(len(wanted), 'video')} missing in {videos}: "
            f"{first_five(missing)}; --allow-missing scores the others"
        )


def parse_args(argv: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """Return this command's flags, and the rest: inference.py's flags, or a scores.json."""
    p = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        usage="python -m models.benchmark.vbench2 --videos DIR [flags of inference.py]\n"
        "       python -m models.benchmark.vbench2 SCORES_JSON",
        epilog="All other flags go to inference.py, see `python inference.py --help`: weights (the "
        "released ones where none are named), --device, --overwrite, --opts and more.",
        allow_abbrev=False,  # a short form may be meant for inference.py
    )
    add = p.add_argument
    add("--videos", type=Path, metavar="DIR", help="folder with one model's videos")
    add("--output", type=Path, metavar="DIR", help="folder for results (results/NAME)")
    text = "score videos named after prompts, or any .mp4 file (vbench_standard)"
    add("--mode", choices=(STANDARD, CUSTOM), default=STANDARD, help=text)
    text = "text or JSON with the prompts, to know which videos are missing"
    add("--prompts", type=Path, metavar="FILE", help=text)
    add("--name", help="the model's name in results (the folder's name)")
    add("--allow-missing", action="store_true", help="go on where videos are missing")
    args, rest = p.parse_known_args(argv)
    if args.videos is None:
        if len(rest) != 1 or rest[0].startswith("-"):
            p.error("expected --videos DIR, or one scores.json to read")
        if args.output or args.mode == CUSTOM:
            p.error("--output and --mode: expected --videos DIR with them")
    if args.prompts and args.mode == CUSTOM:
        p.error(f"--prompts: means nothing with --mode {CUSTOM}")
    if any(word.partition("=")[0] == "--video" for word in rest):
        p.error("--video: expected --videos DIR")
    if args.name is not None and (Path(args.name).name != args.name or args.name == ".."):
        p.error(f"--name: expected a name without folders, got {args.name!r}")
    return args, rest


def main(argv: list[str] | None = None) -> int:
    args, rest = parse_args(argv)
    prompts = read_prompts(args.prompts) if args.prompts else None
    if args.videos is None:
        path = Path(rest[0])
        scores = read_scores(path)
        name = args.name or (path if path.is_dir() else path.parent).resolve().name
        files = [Path(row["video_path"]).name for row in scores["videos"] + scores["failed"]]
        wanted = standard_names(files, prompts)
        if not set(wanted).intersection(files):
            raise UsageError(f"{path}: holds no video named <prompt>-<0..2>.mp4")
        result = collect(scores, wanted, name=name)
        print(format_result(result))
        incomplete = result.failed or (result.missing and not args.allow_missing)
        return 1 if incomplete or not result.rows else 0
    name = args.name or args.videos.resolve().name
    output = args.output or Path("results") / name
    try:
        result = evaluate(
            args.videos,
            output,
            name=name,
            mode=args.mode,
            prompts=prompts,
            allow_missing=args.allow_missing,
            flags=rest,
        )
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.status
    if result is None:
        return 0
    if not result.rows or (result.failed and not args.allow_missing):
        hint = "; --allow-missing writes the result without them" if result.rows else ""
        failed = f"{count(len(result.failed), 'video')} failed: {first_five(result.failed)}"
        print(f"error: {failed}{hint}", file=sys.stderr)
        return 1
    print(f"written: {write_result(result, output)}")
    print(format_result(result))
    return 1 if result.failed else 0


if __name__ == "__main__":
    run_main(main)

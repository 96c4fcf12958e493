"""VBench-2.0's Human Anatomy of a folder of generated videos.

    python -m tools.vbench2 --videos sampled/mymodel --output results/mymodel
    python -m tools.vbench2 results/mymodel/scores.json

The first command scores `<prompt>-<0..2>.mp4` with the released weights and writes
results/mymodel/mymodel_eval_results.json as the benchmark does; after an interruption, run it
again. The second reads these scores, or inference.py's. Both print the result last.
All other flags go to inference.py, see `python inference.py --help`: weights (the released ones
where none are named), --device, --overwrite, --opts and more.
"""

import argparse
import sys
from pathlib import Path

from human_anomaly.models.scoring.results import count, first_five, read_scores
from human_anomaly.tools.vbench2.evaluation import collect, format_result, write_result
from human_anomaly.tools.vbench2.prompts import CUSTOM, STANDARD, read_prompts, standard_names
from human_anomaly.tools.vbench2.run import RunError, evaluate, read_asked
from human_anomaly.utils import UsageError, command_parser, run_main


def parse_args(argv: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """Return this command's flags, and the rest: inference.py's flags, or a scores.json."""
    p = command_parser(
        __doc__,
        usage="python -m tools.vbench2 --videos DIR [flags of inference.py]\n"
        "       python -m tools.vbench2 SCORES_JSON",
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


def read_results(path: Path, args: argparse.Namespace, prompts: list[str] | None) -> int:
    """Print the result of a scores.json; return the exit status."""
    scores, folder = read_scores(path), path if path.is_dir() else path.parent
    asked = read_asked(folder)
    name = args.name or asked.get("name") or folder.resolve().name
    files = [Path(row["video_path"]).name for row in scores["videos"] + scores["failed"]]
    if prompts or not set(asked.get("wanted", ())).intersection(files):
        asked = {}  # --prompts replaces what was asked, or the folder holds other videos now
    wanted = asked.get("wanted") or standard_names(files, prompts)
    if not set(wanted).intersection(files):
        raise UsageError(f"{path}: holds no video named <prompt>-<0..2>.mp4")
    place = {"folder": Path(asked["videos"]), "mode": asked["mode"]} if asked else {}
    result = collect(scores, wanted, name=name, **place)
    print(format_result(result))
    allowed = args.allow_missing or asked.get("allow_missing")
    incomplete = result.failed or (result.missing and not allowed)
    return 1 if incomplete or not result.rows else 0


def main(argv: list[str] | None = None) -> int:
    args, rest = parse_args(argv)
    prompts = read_prompts(args.prompts) if args.prompts else None
    if args.videos is None:
        return read_results(Path(rest[0]), args, prompts)
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
    path = write_result(result, output)
    print(f"written: {path} and {path.with_suffix('.csv').name}")
    print(format_result(result))
    return 1 if result.failed else 0


if __name__ == "__main__":
    run_main(main)

"""All measurements that need a GPU, in one command of a few minutes; see gpu.sh.

    python -m benchmarks.bench_gpu [--seconds 480] [--output FILE] [--cpu]

Each section runs in a process of its own for as long as its cap allows. A row is written the moment
it is known. The same command again measures what is missing. Weights are random, so every frame
gets a fixed list of people.
"""

import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.gpu_sections import ROOT, SECTIONS
from human_anomaly.utils import read_jsonl, write_json

ERROR_LINES = 60
# (what, section, row, figure, aim, whether more is better), for one H100 and size XL
AIMS = (
    ("passes/s, exact", "passes", "exact, batch 32", "network/s", 110, True),
    ("passes/s, fast", "passes", "fast, batch 32", "network/s", 600, True),
    (
        "passes/s, fast compiled",
        "passes_compiled",
        "fast+compile, batch 32",
        "network/s",
        850,
        True,
    ),
    ("crops/s, fast", "crops", "fast", "crops/s", 6000, True),
    ("frames/s with 2 people, fast", "pipeline", "fast, video", "frames/s", 200, True),
    ("training images/s, bf16", "training", "bf16", "images/s", 2500, True),
    ("MiB at batch 32, fast", "pipeline", "fast, video", "MiB", 20 * 1024, False),
    ("reference values at XL", "reference", "size XL, outputs", "met", True, True),
    ("reference values at S", "reference", "size S, scene", "met", True, True),
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--output", type=Path, default=ROOT / "build/bench/gpu.json")
    p.add_argument("--cpu", action="store_true", help="the demo's small networks on the CPU")
    p.add_argument("--seconds", type=float, default=480, help="all sections together (480)")
    p.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    p.add_argument("--one", nargs=2, metavar=("SECTION", "FILE"), help=argparse.SUPPRESS)
    args = p.parse_args(argv)
    if not args.cpu and not torch.cuda.is_available():
        p.error("no CUDA device is usable here; --cpu runs the same script at nano size")
    args.device = torch.device("cpu" if args.cpu else "cuda:0")
    args.size = "demo" if args.cpu else "xl"
    args.weights = ROOT / "build" / "bench"
    args.people = [2]
    return args


def measure(args: argparse.Namespace, section: str, file: Path) -> None:
    """Append the rows of `section` that `file` (JSON lines) lacks, each when it is known."""
    known = {row["row"] for row in read_jsonl(file)}
    for name, work in SECTIONS[section][0](args):
        if name not in known:
            line = json.dumps({"row": name, **work()})
            with file.open("a", encoding="utf-8") as lines:
                lines.write(line + "\n")


def die_with_parent() -> None:
    """Have Linux kill this process when the one that started it dies, so that the GPU is free."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Results:
    """The JSON file: per section its rows, whether it is done, and the last error."""

    def __init__(self, path: Path, kind: str):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = json.loads(path.read_text()) if path.is_file() else {}
        self.found = kept if kept.get("kind") == kind else {"kind": kind, "sections": {}}

    def section(self, name: str) -> dict:
        return self.found["sections"].setdefault(name, {"rows": [], "done": False})

    def set(self, name: str, **values) -> None:
        self.section(name).update(values)
        write_json(self.path, self.found)


def run(args: argparse.Namespace, results: Results, section: str, seconds: float) -> None:
    """Measure a section in a process of its own, for at most `seconds`."""
    with tempfile.TemporaryDirectory() as folder:
        file, errors = Path(folder) / "rows.jsonl", Path(folder) / "errors.txt"
        file.write_text("".join(json.dumps(r) + "\n" for r in results.section(section)["rows"]))
        command = [sys.executable, "-m", "benchmarks.bench_gpu", "--one", section, str(file)]
        with errors.open("w") as stream:
            child = subprocess.Popen(
                command + ["--cpu"] * args.cpu, cwd=ROOT, stderr=stream, start_new_session=True
            )
            end, status = time.monotonic() + seconds, None
            try:
                while status is None and time.monotonic() < end:
                    time.sleep(0.2)
                    status = child.poll()
                    results.set(section, rows=whole_lines(file))
            finally:
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)
                    child.wait()
        results.set(section, rows=whole_lines(file), done=status == 0, error=None)
        if status:
            results.set(section, error=errors.read_text().splitlines()[-ERROR_LINES:])
        elif status is None:
            results.set(section, error=[f"cut after {seconds:.0f} s"])


def whole_lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines(True) if line.endswith("\n")]


def print_section(name: str, section: dict) -> None:
    """Print a section's rows as a Markdown table, and its error."""
    print(f"\n## {name}{'' if section['done'] else ' (not finished)'}\n")
    rows = section["rows"]
    if heads := list(dict.fromkeys(key for row in rows for key in row)):
        print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for row in rows:
        cells = [row.get(key, "") for key in heads]
        cells = [f"{c:.4g}" if isinstance(c, float) else str(c) for c in cells]
        print(f"| {' | '.join(cells)} |")
    print("\n".join(section.get("error") or ()), flush=True)


def print_aims(sections: dict) -> None:
    """Print results against aims, or "not measured"."""
    print("\n## Aims (one H100, size XL)\n\n| what | aim | measured | met |\n|---|---|---|---|")
    for what, section, name, figure, aim, more in AIMS:
        rows = sections.get(section, {}).get("rows", ())
        value = next((row[figure] for row in rows if row["row"] == name), None)
        if value is None:
            print(f"| {what} | {aim} | not measured | |")
            continue
        met = value >= aim if more else value <= aim
        shown = f"{value:.4g}" if isinstance(value, float) else value
        print(f"| {what} | {aim} | {shown} | {'yes' if met else 'no'} |")


def stop(number: int, _frame) -> None:
    sys.exit(128 + number)


def main(argv: list[str] | None = None) -> int:
    start = time.monotonic()
    args = parse_args(argv)
    if args.one:
        die_with_parent()
        measure(args, args.one[0], Path(args.one[1]))
        return 0
    signal.signal(signal.SIGTERM, stop)  # so that children are killed and rows kept
    results = Results(args.output, "cpu" if args.cpu else "cuda")
    for name in args.sections:
        left = args.seconds - (time.monotonic() - start)
        if results.section(name)["done"]:
            pass
        elif left > 5:
            run(args, results, name, min(left, SECTIONS[name][1]))
        else:
            results.set(name, error=["no time was left"])
        print_section(name, results.section(name))
    sections = results.found["sections"]
    print_aims({} if args.cpu else sections)
    return 0 if all(sections[name]["done"] for name in args.sections) else 1


if __name__ == "__main__":
    sys.exit(main())

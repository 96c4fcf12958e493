"""Build the report of a folder of results again: `python -m models.report results/demo`."""

import argparse
from pathlib import Path

from models.report.page import build_report
from utils import run_main


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m models.report", description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder that inference.py wrote into")
    print(f"report: {build_report(parser.parse_args().folder)}")
    return 0


if __name__ == "__main__":
    run_main(main, (OSError,))

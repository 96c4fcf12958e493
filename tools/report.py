"""Build the report of a folder of results again: `python -m tools.report results/demo`."""

from pathlib import Path

from human_anomaly.models.report.page import build_report
from human_anomaly.utils import command_parser, run_main


def main() -> int:
    parser = command_parser(__doc__, "tools.report")
    parser.add_argument("folder", type=Path, help="the folder that inference.py wrote into")
    print(f"report: {build_report(parser.parse_args().folder)}")
    return 0


if __name__ == "__main__":
    run_main(main, (OSError,))

"""The released weights in one command: found on this machine or fetched, checked, put in place.

    python -m tools.fetch_weights scoring                     # detector, human, face, hand
    python -m tools.fetch_weights all                         # SimMIM's for training too
    python -m tools.fetch_weights human --mirror https://.../ # from a server with the same names
    python -m tools.fetch_weights all --mirror /mnt/weights   # from a folder

After an interruption, run it again. A file that is there already is checked and kept.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from human_anomaly.configs.parts import BASE_PARTS
from human_anomaly.configs.places import home
from human_anomaly.data.download.fetch import (
    FetchError,
    fetch_checked,
    from_drive,
    from_hub,
    from_mirror,
)
from human_anomaly.models.weights import WEIGHTS, good_shared_file, read_lock, record, verify
from human_anomaly.utils import run_main, setup_logging

logger = logging.getLogger(__name__)


def get_weight(name: str, mirror: str | None, root: Path) -> str:
    """Find or fetch the file `name` and check it; return one line that says what was done.

    Raises FetchError; a file that was in place before is then kept.
    """
    weight = WEIGHTS[name]
    target, locked = root / weight.path, read_lock(root).get(name)
    if target.is_file():
        try:
            record(root, name, verify(name, target, locked))
            return f"in place and good: {target}"
        except FetchError as error:
            logger.warning(f"{name}: {target}: {error}; looking for a good one")
    elif shared := good_shared_file(name, root):
        return f"used where it is, and good: {shared}"
    hub = [partial(from_hub, weight.hub_repo)] if weight.hub_repo else []
    public = [*hub, partial(from_drive, weight.drive_id)]
    sources = [partial(from_mirror, mirror)] if mirror else public
    found = fetch_checked(sources, target, lambda path: verify(name, path, locked))
    record(root, name, found)
    return f"fetched, {found[0] / 1e6:.1f} MB, checked, loads: {target}"


def by_hand(name: str, root: Path) -> str:
    """Return how to put the file in place by hand where the download does not work."""
    weight = WEIGHTS[name]
    where = f"https://drive.google.com/file/d/{weight.drive_id}/view"
    if weight.hub_repo:
        where = f"https://huggingface.co/{weight.hub_repo}/blob/main/{weight.path.name} or {where}"
    return (
        f"By hand: open {where} in a browser, save the file as {root / weight.path} and run this "
        "command again: it will be checked. From a copy nearby: --mirror URL_OR_FOLDER."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 1 when a file could not be had, else 0."""
    groups = {"scoring": ["detector", *BASE_PARTS], "all": list(WEIGHTS)}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=[*WEIGHTS, *groups], help="what to fetch")
    parser.add_argument("--mirror", help="URL or folder (default: Hugging Face, Google Drive)")
    args = parser.parse_args(argv)
    setup_logging()
    failed = 0
    for name in dict.fromkeys(name for word in args.names for name in groups.get(word, [word])):
        try:
            print(f"{name}: {get_weight(name, args.mirror, home())}", flush=True)
        except FetchError as error:
            failed += 1
            print(f"error: {name}: {error}", file=sys.stderr)
            print(f"  {by_hand(name, home())}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    run_main(main)

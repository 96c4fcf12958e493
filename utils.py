"""Atomic files, JSON lines, processes and logging: what every script needs."""

import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)


class UsageError(Exception):
    """Wrong use: the message is the one line that the user reads; exit status 2."""


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator:
    """Yield a file whose content appears at `path` all at once, or not at all on an error."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: str | Path, value, indent: int | None = 1) -> None:
    """Write `value` as JSON at once; NaN and infinity are refused."""
    with atomic_write(path) as file:
        json.dump(value, file, indent=indent, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def write_jsonl(path: str | Path, rows: Iterable) -> None:
    """Write `rows` as JSON lines at once."""
    with atomic_write(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def read_jsonl(path: str | Path) -> list:
    """Return the rows of a JSON lines file; raises UsageError with file and line number."""
    rows = []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot read: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise UsageError(f"{path}:{number}: not JSON: {error.msg}") from error
    return rows


def rank() -> int:
    """Return this process's number among all of torchrun's or srun's processes (0 if alone)."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0)))


def world_size() -> int:
    """Return how many processes torchrun or srun started (1 if alone)."""
    return int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", 1)))


def setup_logging(log_file: str | Path | None = None) -> None:
    """Send log lines to standard error (rank 0 only) and, when given, to `log_file`."""
    quiet = rank() != 0
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if log_file is not None and not quiet:
        handlers.append(logging.FileHandler(log_file, encoding="utf-8"))
    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
        handlers=handlers,
        force=True,
    )


def run_main(main, error_types: tuple[type[Exception], ...] = ()) -> None:
    """Run `main()` and exit with its status; a UsageError becomes one line and status 2."""
    try:
        status = main()
    except (UsageError, *error_types) as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    sys.exit(status)

"""Atomic files, JSON lines, processes and logging: what every script needs."""

import argparse
import csv
import io
import json
import logging
import os
import secrets
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from human_anomaly.configs.machine import local_rank, rank, world_size

if TYPE_CHECKING:
    import torch

TO_MEET = timedelta(minutes=10)  # for processes to find each other

T = TypeVar("T")


class UsageError(Exception):
    """Wrong use: the message is the one line that the user reads; exit status 2."""


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator:
    """Yield a file whose content appears at `path` all at once, or not at all on an error."""
    path = Path(path)
    # Not the process id: containers on two machines that share the folder may have the same one.
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(part, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: str | Path, value, indent: int | None = 1) -> None:
    """Write `value` as JSON, atomically; NaN and infinity are refused."""
    with atomic_write(path) as file:
        json.dump(value, file, indent=indent, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def write_jsonl(path: str | Path, rows: Iterable) -> None:
    """Write `rows` as JSON lines, atomically."""
    with atomic_write(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def read_jsonl(path: str | Path) -> list:
    """Return the rows of a JSON lines file; raises UsageError with file and line number."""
    return [row for _, row in stream_jsonl(path)]


def stream_jsonl(path: str | Path) -> Iterator[tuple[int, object]]:
    """Yield (line number, row) of each line that is not blank; raises as `read_jsonl` does."""
    try:
        with open(path, encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                yield number, parse_json(line, f"{path}:{number}")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot read: {error}") from error


def parse_json(text: str, place: str):
    """Return the JSON value in `text`; raises UsageError that begins with `place`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place}: not JSON: {getattr(error, 'msg', error)}") from error


def parse_csv(text: str, place: str, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) of each row; raises UsageError that begins with `place`."""
    reader, first = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), 1
    try:
        for cells in reader:
            yield reader.line_num, cells
            first = reader.line_num + 1
    except csv.Error as error:
        raise UsageError(f"{place}:{first}: {error}; is a quote not closed?") from error


@contextmanager
def process_group(backend: str = "gloo", **options) -> Iterator[None]:
    """Join the processes that torchrun started, if there are several.

    A process may wait for the others as long as their work takes; if one dies, torchrun ends all.
    Raises UsageError if MASTER_ADDR, by which they find each other, is not set.
    """
    if world_size() == 1:
        yield
        return
    if "MASTER_ADDR" not in os.environ:
        raise UsageError("several processes: start them with torchrun (or srun torchrun)")
    import torch.distributed as dist

    try:
        # A short timeout, because nobody answers if torchrun was killed meanwhile.
        store, *_ = next(dist.rendezvous("env://", rank(), world_size(), timeout=TO_MEET))
    except (dist.DistError, ValueError) as error:
        reason = one_line(error)
        raise UsageError(f"several processes: they do not find each other ({reason})") from error
    store.set_timeout(wait := timedelta(days=365))
    place = {"store": store, "rank": rank(), "world_size": world_size()}
    dist.init_process_group(backend, timeout=wait, **place, **options)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def distributed() -> Iterator["torch.device"]:
    """Join the other processes, if any (nccl on GPUs, gloo on CPU); yield this one's device."""
    import torch

    if not torch.cuda.is_available():
        with process_group():
            yield torch.device("cpu")
        return
    if local_rank() >= torch.cuda.device_count():
        raise UsageError(
            f"process {local_rank()} of this machine has no GPU "
            f"({torch.cuda.device_count()} found); start at most one process per GPU"
        )
    device = torch.device("cuda", local_rank())
    torch.cuda.set_device(device)
    with process_group("cpu:gloo,cuda:nccl", device_id=device):
        yield device


def sum_over_processes(tensor: "torch.Tensor") -> "torch.Tensor":
    """Replace `tensor` by its sum over all processes; return it."""
    if world_size() > 1:
        import torch.distributed as dist

        dist.all_reduce(tensor)
    return tensor


def gather_objects(value) -> list:
    """Return every process's `value`, in order of rank."""
    if world_size() == 1:
        return [value]
    import torch.distributed as dist

    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


@contextmanager
def shared_errors() -> Iterator[None]:
    """End all processes with the same error line if the code inside fails in any of them.

    Every process must reach the end of the block, so none may wait for others inside.
    """
    problem = None
    try:
        yield
    except (UsageError, OSError) as error:
        problem = str(error)
    problems = [found for found in gather_objects(problem) if found is not None]
    if problems:
        stop_all(problems[0])


def stop_all(problem: str) -> None:
    """Raise UsageError in process 0 and end the others; every process must call this.

    The others end with status 0: if one failed, torchrun would stop all processes at once, perhaps
    before process 0 has printed its line.
    """
    if rank() == 0:
        raise UsageError(problem)
    sys.exit(0)


def decide_in_first(decide: Callable[[], T]) -> T:
    """Call `decide` in process 0 and return what it returned in every process.

    If it fails, all processes end as `shared_errors` says.
    """
    found = None
    with shared_errors():
        if rank() == 0:
            found = decide()
    return gather_objects(found)[0]


def setup_logging(log_file: str | Path | None = None) -> None:
    """Send log lines to standard error (rank 0 only) and, when given, to `log_file`."""
    quiet = rank() != 0
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if log_file is not None and not quiet:
        handlers.append(logging.FileHandler(log_file, encoding="utf-8"))
    level = logging.WARNING if quiet else logging.INFO
    logging.basicConfig(level=level, handlers=handlers, force=True)
    for handler in handlers:
        handler.setFormatter(_PlainFormatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))


def message_of(error: BaseException) -> str:
    """Return what an error says, as one line."""
    return " ".join(str(error).split())


def one_line(error: Exception) -> str:
    """Return the class and message of a library's error."""
    return f"{type(error).__name__}: {message_of(error)[:300]}"


def plain(text: str) -> str:
    """Return `text` with control characters escaped, because they could steer a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class _PlainFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        return "\n".join(map(plain, super().formatMessage(record).split("\n")))


class _ShowVersion(argparse.Action):
    def __call__(self, parser, *_) -> None:
        from human_anomaly.configs.places import version

        print(version())
        parser.exit()


def command_parser(doc: str, module: str | None = None, **options) -> argparse.ArgumentParser:
    """Return a parser whose help is the docstring `doc`; `module` is run by `python -m module`."""
    from human_anomaly.configs import places

    first, _, rest = doc.partition("\n\n")
    is_module = module and sys.argv[0].endswith(".py")  # not a console command
    parser = argparse.ArgumentParser(
        prog=places.module(module) if is_module else None,
        description=first,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **options,
    )
    text = "print the version and the commit"
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help=text)
    return parser


def quiet_libraries() -> None:
    """Silence known warnings of libraries that a user can do nothing about."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    for message in (".*pkg_resources is", "torch.meshgrid: in an upcoming", "Image size "):
        warnings.filterwarnings("ignore", message=message)


def run_main(main, error_types: tuple[type[Exception], ...] = ()) -> None:
    """Run `main()` and exit with its status; any error becomes one line.

    The status is 2 for UsageError and `error_types`, else 1. HUMAN_ANOMALY_DEBUG shows tracebacks.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # the stream may be None, or no file
            stream.reconfigure(errors="backslashreplace")  # ASCII in some containers
    try:
        status = main()
    except Exception as error:
        status, text = 2, str(error)
        if isinstance(error, ImportError) and (error.name == "cv2" or "libGL" in text):
            how = "apt-get install libgl1, or pip uninstall opencv-python && pip install"
            text = f"OpenCV: {text}: {how} opencv-python-headless"
        elif not isinstance(error, (UsageError, *error_types)):
            status = 1
            text = f"{one_line(error)} (HUMAN_ANOMALY_DEBUG=1 shows where)"
        if os.environ.get("HUMAN_ANOMALY_DEBUG"):
            traceback.print_exc()
        print(f"error: {plain(text)}", file=sys.stderr)
    except KeyboardInterrupt:
        # Without cleaning up: threads and other processes would each print a traceback.
        if rank() == 0:
            print("\ninterrupted; run the same command to resume", file=sys.stderr, flush=True)
        os._exit(130)
    sys.exit(status)

"""A folder that processes fill item by item, and that a later run continues."""

import hashlib
import heapq
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from data.video import Source
from utils import UsageError, write_json, write_jsonl


def deal(sizes: Sequence[float], workers: int) -> list[int]:
    """Return each item's worker: longest first, each to the worker with the least to do."""
    loads = [(0.0, worker) for worker in range(workers)]
    owners = [0] * len(sizes)
    for item in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        load, worker = heapq.heappop(loads)
        owners[item] = worker
        heapq.heappush(loads, (load + sizes[item], worker))
    return owners


def identity(source: Source) -> list[int]:
    """Return what changes when the source's files do: their number, size and latest change."""
    stats = [path.stat() for path in source.images or (source.path,)]
    return [len(stats), sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats)]


class JobFolder:
    """Remembers under `folder`/.state which items are done, with which settings.

    `settings` is plain JSON. Raises UsageError where the folder holds a run with other settings,
    unless `overwrite`. Several processes may share the folder: each writes the items it claims.
    """

    def __init__(self, folder: str | Path, settings: dict, *, overwrite: bool = False):
        self.folder = Path(folder)
        self.settings = settings
        self._state = self.folder / ".state"
        self._digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        try:
            self._state.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--output: cannot write {folder}: {error.strerror}") from error
        self._check(overwrite)

    def _check(self, overwrite: bool) -> None:
        path = self._state / "settings.json"
        if path.is_file() and not overwrite:
            before = json.loads(path.read_text(encoding="utf-8"))
            changed = [k for k in self.settings | before if self.settings.get(k) != before.get(k)]
            if changed:
                raise UsageError(
                    f"--output: {self.folder} holds results of other settings "
                    f"({', '.join(changed)} differ); choose another folder or add --overwrite"
                )
        write_json(path, self.settings)

    def _path(self, source: Source) -> Path:
        return self._state / f"item.{source.stem}.json"

    def row(self, source: Source) -> dict | None:
        """Return what `finish` stored for this source as it is now, or None."""
        try:
            state = json.loads(self._path(source).read_text(encoding="utf-8"))
            whole = state["digest"] == self._digest and state["identity"] == identity(source)
        except (OSError, ValueError, KeyError):
            return None
        return state["row"] if whole else None

    def finish(self, source: Source, row: dict) -> None:
        """Store the row of a finished source at once."""
        state = {"digest": self._digest, "identity": identity(source), "row": row}
        write_json(self._path(source), state, indent=None)
        self._records_path(source).unlink(missing_ok=True)

    @contextmanager
    def claim(self, source: Source, *, dealt: bool = True) -> Iterator[bool]:
        """Yield whether this process may work on the source: no other one is, and it is not done.

        The system lets go of a claim when its process ends, however it ends. Where files cannot be
        locked (Windows, some network file systems), the process may that it was `dealt` to.
        """
        with (self._state / f"lock.{source.stem}").open("w") as file:
            try:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            except (ImportError, OSError):
                if not dealt:
                    yield False
                    return
            yield self.row(source) is None

    def forget(self, source: Source, *, records: bool = True) -> None:
        """Have the source done again: from the start, or, its `records` kept, from there."""
        self._path(source).unlink(missing_ok=True)
        if records:
            self._records_path(source).unlink(missing_ok=True)

    def _records_path(self, source: Source) -> Path:
        return self._state / f"part.{source.stem}.jsonl"

    @contextmanager
    def records(self, source: Source, **settings) -> Iterator[tuple[list, Callable]]:
        """Yield (records, add): what a run that was cut off added for this source, and how to add.

        Records are plain JSON. Those made with other `settings`, or of a source that has changed
        since, do not count. `finish` and `forget` drop them.
        """
        path = self._records_path(source)
        head = {"digest": self._digest, "identity": identity(source), **settings}
        before = _whole_rows(path)
        records = before[1:] if before[:1] == [head] else []
        write_jsonl(path, [head, *records])  # a last line that was cut off would spoil the next
        with path.open("a", encoding="utf-8") as file:

            def add(record) -> None:
                file.write(json.dumps(record) + "\n")
                file.flush()

            yield records, add


def _whole_rows(path: Path) -> list:
    """Return the rows of a JSON lines file up to the first that is not whole."""
    rows = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if not line.endswith("\n"):
                break
            rows.append(json.loads(line))
    except (OSError, ValueError):
        pass
    return rows

"""A folder that processes fill item by item, and that a later run continues."""

import hashlib
import heapq
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from data.records import Records
from data.video import Source
from utils import UsageError, write_json


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
        self._began = path.stat().st_mtime_ns  # by the clock of whoever keeps the files

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
        # After the row: who finds no records any more finds that.
        shutil.rmtree(self._records_folder(source), ignore_errors=True)

    @contextmanager
    def claim(self, source: Source, *, piece: int | None = None, dealt=True) -> Iterator[bool]:
        """Yield whether this process may work on the source: no other one is, and it is not done.

        `piece` claims one of the pieces that processes share a source in, apart from the source.

        The system lets go of a claim when its process ends, however it ends. Where files cannot be
        locked (Windows, some network file systems), the process may that it was `dealt` to.
        """
        name = "lock" if piece is None else f"piece.{piece}"
        with (self._state / f"{name}.{source.stem}").open("w") as file:
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
        """Have done again what was done of the source before this run: its row, and its records.

        What the other processes of this run did since is left.
        """
        folder = self._records_folder(source)
        for path in [self._path(source), *(folder.glob("*.jsonl") if records else ())]:
            with suppress(FileNotFoundError):
                if path.stat().st_mtime_ns < self._began:
                    path.unlink()

    def records(self, source: Source, **settings) -> Records:
        """Return the records that runs which were cut off, or other processes, kept of `source`.

        Those made with other `settings`, or of a file that has changed since, do not count.
        """
        head = {"digest": self._digest, "identity": identity(source), **settings}
        return Records(self._records_folder(source), head)

    def _records_folder(self, source: Source) -> Path:
        return self._state / f"part.{source.stem}"

"""A folder of results: which inputs are finished, with which settings; what killed runs left."""

import functools
import hashlib
import heapq
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from human_anomaly.configs.values import PARTS
from human_anomaly.data.runs.marks import digest_of, is_unchanged, mark, read_object
from human_anomaly.data.sources import Source, with_suffix
from human_anomaly.data.video import VideoError
from human_anomaly.utils import UsageError, rank, shared_errors, world_size, write_json

logger = logging.getLogger(__name__)

MOST_TRIES = 3

T = TypeVar("T")


def assign(sizes: Sequence[float], workers: int) -> list[int]:
    """Return each item's worker: the longest items first, each to the least loaded worker."""
    loads = [(0.0, worker) for worker in range(workers)]
    owners = [0] * len(sizes)
    for item in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        load, worker = heapq.heappop(loads)
        owners[item] = worker
        heapq.heappush(loads, (load + sizes[item], worker))
    return owners


def my_items(sizes: Mapping[T, float]) -> list[T]:
    """Return the items that this process works on; the processes' shares have about equal sizes.

    Several processes begin with their longest items; one alone keeps the order of `sizes`.
    """
    items = list(sizes)
    if world_size() > 1:
        items.sort(key=sizes.get, reverse=True)
    owners = assign([sizes[item] for item in items], world_size())
    return [item for item, owner in zip(items, owners, strict=True) if owner == rank()]


def identity(source: Source) -> list[int]:
    """Return a fingerprint of the source: number of files, bytes, newest time.

    Raises VideoError where a file is gone.
    """
    try:
        stats = [path.stat() for path in source.images or (source.path,)]
    except OSError as error:
        raise VideoError(error.strerror or "cannot be read") from error
    return [len(stats), sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats)]


def content_digest(source: Source) -> str | None:
    """Return the SHA-256 of a video's bytes, or of its images' in order; None if it is gone."""
    digest = hashlib.sha256()
    try:
        for path in source.images or (source.path,):
            with path.open("rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()


def where(source: Source) -> str:
    """Return the source's absolute path, by which a later run recognises it."""
    return os.path.abspath(source.path)


@functools.cache
def _warn_of(path: Path) -> None:
    logger.warning(f"{path}: damaged; its video counts as not done")


class JobFolder:
    """Remembers under `folder`/.state which inputs are finished, with which settings.

    `settings` is plain JSON. Nothing is written before `open`.
    """

    def __init__(self, folder: str | Path, settings: dict):
        self.folder, self.settings = Path(folder), settings
        self.state = self.folder / ".state"
        self.digest = digest_of(settings)

    def other_settings(self) -> list[str]:
        """Return the names of the settings in which the results here differ from this run's."""
        path = self.state / "settings.json"
        if not path.exists():
            return []
        before = read_object(path)
        if before is None:
            return ["all, because settings.json is damaged,"]
        return [k for k in {**self.settings, **before} if self.settings.get(k) != before.get(k)]

    @contextmanager
    def open(self) -> Iterator[None]:
        """Lock the folder for this run (in process 0) and write down its settings.

        All processes must call it. Raises UsageError if another run has locked the folder or it
        cannot be written.
        """
        with shared_errors():
            lock = self._lock() if rank() == 0 else None
        try:
            yield
        finally:
            if lock is not None:
                lock.release()

    def _lock(self):
        from filelock import FileLock, Timeout

        lock = FileLock(self.state / "run.lock")
        try:
            self.state.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
            write_json(self.state / "settings.json", self.settings)
        except Timeout as error:
            raise UsageError(f"--output: another run is writing into {self.folder}") from error
        except (OSError, NotImplementedError) as error:  # the latter where nothing can be locked
            lock.release()
            why = getattr(error, "strerror", "its file system cannot lock files")
            raise UsageError(f"--output: cannot write {self.folder}: {why}") from error
        return lock

    def items(self, *, any_settings: bool = False) -> dict[str, dict]:
        """Return the states that `finish` stored, {stem: state}, sorted by stem.

        Items of other settings are left out unless `any_settings`.
        """
        found = {}
        for stem in self.item_stems():
            state = self._state(self.item_path(stem))
            if state and (any_settings or state["digest"] == self.digest):
                found[stem] = state
        return found

    def item_stems(self) -> list[str]:
        """Return the stems of all sources that were finished, with whatever settings."""
        names = sorted(path.name for path in self.state.glob("item.*.json"))
        return [name.removeprefix("item.").removesuffix(".json") for name in names]

    def refuse_conflict(self, sources: Sequence[Source], *, add: bool, overwrite: bool) -> None:
        """Raise UsageError if the folder holds results that this run would silently replace.

        These are results of other settings and, without `add`, of other inputs.
        """
        if overwrite:
            return
        if changed := self.other_settings():
            raise UsageError(
                f"--output: {self.folder} holds results of other settings ({', '.join(changed)} "
                "differ); choose another folder, or --overwrite to delete them"
            )
        if add or not (others := self.other_inputs(sources)):
            return
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        now = where(sources[0]) if sources else "no video"
        raise UsageError(
            f"--output: {self.folder} holds results of {others[0]}{more}, other inputs than "
            f"{now}; choose another folder, --add to keep both, or --overwrite to delete them"
        )

    def clear(self, sources: Sequence[Source], *, overwrite: bool) -> None:
        """Delete what killed runs left, rows of failed `sources`, with `overwrite` all results."""
        self.forget_tries()
        for left in self.folder.glob(".*.part*"):
            left.unlink(missing_ok=True)
        now = {source.stem for source in sources}
        for stem, state in self.items(any_settings=overwrite).items():
            row = state["row"]
            if overwrite or ("error" in row and stem in now):
                self.item_path(stem).unlink(missing_ok=True)
                (self.state / f"part.{stem}.jsonl").unlink(missing_ok=True)
            for name in (row.get("frames_file"), f"{stem}.annotated.webm") if overwrite else ():
                if name and Path(name).name == name:
                    (self.folder / name).unlink(missing_ok=True)

    def other_inputs(self, sources: Iterable[Source]) -> list[str]:
        """Return the paths of the inputs that have results here and are none of `sources`."""
        now = {where(source) for source in sources}
        return [s["path"] for s in self.items().values() if s.get("path") not in now]

    def distinct(self, sources: Iterable[Source]) -> list[Source]:
        """Return the sources; a stem that another input's results have here is changed.

        A source that has results here keeps the stem it had.
        """
        stems = {state.get("path"): stem for stem, state in self.items().items()}
        used = {stem.lower() for stem in stems.values()}
        found = []
        for source in sources:
            stem = stems.get(where(source))
            if stem is None:
                taken = source.stem.lower() in used
                stem = with_suffix(source.stem, source.path) if taken else source.stem
            found.append(replace(source, stem=stem))
        return found

    def item_path(self, stem: str) -> Path:
        """Return where `finish` stores the row of a source."""
        return self.state / f"item.{stem}.json"

    def row(self, source: Source) -> dict | None:
        """Return the row that `finish` stored; None if source, settings or results have changed."""
        state = self._state(self.item_path(source.stem))
        try:
            if state and state["digest"] == self.digest and state["identity"] == identity(source):
                return state["row"] if self.is_whole(state) else None
        except VideoError:
            pass
        return None

    def is_scored(self, source: Source) -> bool:
        """Return whether the source is finished, and not as a failed one."""
        row = self.row(source)
        return row is not None and "error" not in row

    def _state(self, path: Path) -> dict | None:
        """Return the state that `finish` stored in a file; None, with a warning, if damaged."""
        state = read_object(path)
        check = state.pop("check", None) if state else None
        if state is not None and check == digest_of(state):
            return state
        if path.exists():
            _warn_of(path)
        return None

    def is_whole(self, state: Mapping) -> bool:
        """Return whether the files of a finished source are as `finish` left them; else warn.

        A person may move or delete crops.
        """
        for name, before in state["files"].items():
            path = self.folder / name
            gone = Path(name).parts[0] in PARTS and not path.exists()
            if not gone and not is_unchanged(path, before):
                _warn_of(path)
                return False
        return True

    def finish(self, source: Source, row: dict, files: Iterable[str] = ()) -> None:
        """Store the row of a finished source; `files`, below the folder, are its results.

        If they change, a later run does the source again.
        """
        try:
            version = identity(source)
        except VideoError:  # the source is gone; this run still lists its row
            version = None
        state = {
            "digest": self.digest,
            "identity": version,
            "path": where(source),
            "row": row,
            "files": {name: mark(self.folder / name) for name in files},
        }
        state["check"] = digest_of(state)
        write_json(self.item_path(source.stem), state, indent=None)
        self.batches_path(source).unlink(missing_ok=True)

    @contextmanager
    def tried(self, name: str) -> Iterator[None]:
        """Count in a file how often the work on `name` began, because it may kill the process.

        Raises VideoError if it has killed its process MOST_TRIES times.
        """
        path = self.state / f"tries.{name}"
        with path.open("ab") as file:
            file.write(b".")
            tries = file.tell()
        try:
            if tries > MOST_TRIES:
                raise VideoError(f"its process died {MOST_TRIES} times; out of memory?")
            yield
        finally:
            path.unlink(missing_ok=True)

    def forget_tries(self) -> None:
        """Reset the counts of `tried`."""
        for path in self.state.glob("tries.*"):
            path.unlink(missing_ok=True)

    def batches_path(self, source: Source) -> Path:
        """Return the file in which the batches of an unfinished source are kept."""
        return self.state / f"part.{source.stem}.jsonl"

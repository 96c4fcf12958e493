"""The folder that preprocess.py fills: many processes share it, and a later run continues."""

import errno
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import cv2

from configs.defaults import PARTS
from data.cropping.crop_lists import STATE_FILE, read_split, write_lists
from data.cropping.cropper import Cropper
from data.jobs import JobFolder, identity
from data.label import collect
from data.video import Source, VideoError
from utils import UsageError, atomic_write, read_jsonl, write_json, write_jsonl

logger = logging.getLogger(__name__)

STALE_SECONDS = 30.0  # after which an earlier run's failure counts as this run's
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES)


class DiskError(Exception):
    """The output folder takes no more; the message says what is safe and what to do."""


def printable(path: Path | str) -> str:
    """Return `path` as text that JSON takes, even where its name is not UTF-8."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


class CropFolder(JobFolder):
    """The output folder: crops in human/, face/ and hand/, each video's rows, the merged lists."""

    def __init__(self, folder: str | Path, settings: dict, *, overwrite: bool = False):
        super().__init__(folder, settings, overwrite=overwrite)
        self.overwrite = overwrite
        for part in PARTS:
            (self.folder / part).mkdir(exist_ok=True)

    def _file(self, kind: str, stem: str, suffix: str = ".json") -> Path:
        return self._state / f"{kind}.{stem}{suffix}"

    @staticmethod
    def _read(path: Path) -> dict | None:
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _same(self, state: dict | None, source: Source) -> bool:
        """Return whether `state` is of these settings and this file (copies keep no times)."""
        known = state is not None and state.get("digest") == self._digest
        return known and state["identity"][:2] == identity(source)[:2]

    def is_done(self, source: Source) -> bool:
        rows = self._file("boxes", source.stem, ".jsonl")
        return self._same(self._read(self._path(source)), source) and rows.exists()

    def prepare(self, source: Source, label: int | None) -> bool:
        """Return whether `source` is still to be cropped, and clear away what is in its way.

        Raises UsageError where the folder holds its name's crops of another file or label, unless
        the folder was opened to be overwritten; crops that a person sorted are never deleted.
        """
        if self.is_done(source):
            label_before = self._read(self._path(source))["row"]["label"]
            if label_before == label:
                return False
            self._refuse(source, f"with --label {label_before}, now {label}")
        elif (state := self._read(self._path(source))) and state.get("digest") == self._digest:
            self._refuse(source, f"from another file ({state['row']['video_path']})")
        started = self._read(self._file("started", source.stem))
        if not self._same(started, source) or self._path(source).exists():
            self.remove_crops(source.stem, search=started is not None)
        self._file("failed", source.stem).unlink(missing_ok=True)
        return True

    def _refuse(self, source: Source, why: str) -> None:
        if not self.overwrite:
            raise UsageError(
                f"--output: {self.folder} holds crops of '{source.stem}' made {why}; choose "
                "another folder, or add --overwrite to replace them"
            )

    def remove_crops(self, stem: str, *, search: bool = False) -> None:
        """Delete what is stored of a source; `search` finds crops that no row lists yet."""
        rows = self._file("boxes", stem, ".jsonl")
        files = {row["file"] for row in read_jsonl(rows) if row["file"]} if rows.exists() else set()
        if search:
            pattern = re.compile(rf"\.?{re.escape(stem)}_f\d{{6,}}_p\d+(_\d+)?\.(jpg|png)\b.*")
            files |= {f"{p}/{n}" for p in PARTS for n in self._names(p) if pattern.fullmatch(n)}
        sorted_here = self._sorted_by_hand() & files if files else set()
        if sorted_here:
            raise UsageError(
                f"--overwrite: {min(sorted_here)} and perhaps more in {self.folder} were sorted by "
                "hand; move those folders away first, or choose another output folder"
            )
        for file in files:
            (self.folder / file).unlink(missing_ok=True)
        for path in (rows, self._file("item", stem), self._file("started", stem)):
            path.unlink(missing_ok=True)

    def _names(self, part: str) -> list[str]:
        return [entry.name for entry in os.scandir(self.folder / part) if entry.is_file()]

    def _sorted_by_hand(self) -> set[str]:
        found = set()
        for part in PARTS:
            for entry in os.scandir(self.folder / part):
                if entry.is_dir():
                    names = (name for _, _, names in os.walk(entry.path) for name in names)
                    found.update(f"{part}/{name}" for name in names)
        return found

    def crop(self, source: Source, cropper: Cropper, label: int | None) -> dict:
        """Crop `source` and return its summary; its rows appear at once when all is written.

        A video without a frame is remembered as failed. Raises DiskError where the disk is full.
        """
        summary = {"video_path": printable(source.path), "label": label}
        state = {"digest": self._digest, "identity": identity(source)}
        try:
            write_json(self._file("started", source.stem), state, indent=None)
            with closing(cropper.rows(source, label, summary)) as rows:
                write_jsonl(self._file("boxes", source.stem, ".jsonl"), rows)
            self.finish(source, summary)
        except (VideoError, cv2.error) as error:
            summary["error"] = " ".join(str(error).split())
            self.remove_crops(source.stem, search=summary.get("crops", 0) > 0)
            row = {"video_path": summary["video_path"], "error": summary["error"]}
            write_json(self._file("failed", source.stem), row, indent=None)
        except OSError as error:
            if error.errno not in DISK_ERRORS:
                raise
            raise DiskError(
                f"{self.folder}: cannot write the crops of '{source.stem}': {error.strerror}; "
                "finished videos are safe. Make room and run the same command again"
            ) from error
        self._file("started", source.stem).unlink(missing_ok=True)
        return summary

    def beat(self, rank: int, frames: int) -> None:
        """Tell whoever waits for this process that it works."""
        write_json(self._state / f"alive.{rank}.json", frames, indent=None)

    def failures(self) -> dict[str, int]:
        """Return {state file: time of its last change} of the sources that failed so far."""
        return {p.name: p.stat().st_mtime_ns for p in self._state.glob("failed.*.json")}

    def missing(self, sources: Sequence[Source], stale: dict[str, int]) -> list[Source]:
        """Return the sources that are neither done nor failed since the state `stale`."""
        failed = self.failures()
        return [
            source
            for source in sources
            if failed.get(name := f"failed.{source.stem}.json") in (None, stale.get(name))
            and not self.is_done(source)
        ]

    def wait(
        self,
        sources: Sequence[Source],
        stale: dict[str, int],
        *,
        seconds: float,
        stale_seconds: float = STALE_SECONDS,
    ) -> list[Source]:
        """Return the sources that other processes still lack when they are done, or seem dead.

        They seem dead when for `seconds` none of them has written anything: what counts is that
        files change, not when, so that clocks need not agree.
        """
        left, seen, start = self.missing(sources, stale), None, time.monotonic()
        changed, told = start, start - 50
        while left:
            now = time.monotonic()
            beats = [len(left), *(p.read_text() for p in sorted(self._state.glob("alive.*.json")))]
            if beats != seen:
                seen, changed = beats, now
            if now - changed > seconds:
                return left
            if now - start > stale_seconds:
                stale = {}
            if now - told > 60:
                logger.info(f"waiting for {len(left)} videos of the other processes")
                told = now
            time.sleep(0.5)
            left = self.missing(left, stale)
        return left

    def merge(self, failed: Sequence[tuple[str, str]], split: float | None) -> dict[str, int]:
        """Write boxes.jsonl, the lists per part and failed.jsonl; return counts for the summary.

        All finished videos in the folder are merged, in order of their names, so the result does
        not depend on who did which. Lists are left as they are (perhaps with labels) where nothing
        was added. `failed` are inputs that are none; `split` is the share of videos to test on.
        """
        states = self._finished()
        before = read_split(self.folder)
        split = before if split is None else split
        rows = [{"video_path": printable(path), "error": error} for path, error in failed]
        rows += [row for path in self._state.glob("failed.*.json") if (row := self._read(path))]
        if rows:
            write_jsonl(
                self.folder / "failed.jsonl", sorted(rows, key=lambda row: row["video_path"])
            )
        else:
            (self.folder / "failed.jsonl").unlink(missing_ok=True)
        stamps = [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in states]
        stamp = hashlib.sha256(json.dumps([stamps, split]).encode()).hexdigest()
        if self._read(self._state / "merged.json") != stamp:
            state = {"version": 1, "settings": self.settings, "train_test_split": split}
            write_json(self.folder / STATE_FILE, state)
            self._merge_lists(list(states), unsplit=before > 0 and split == 0)
            write_json(self._state / "merged.json", stamp)
        for folder in (self.folder, self._state, *(self.folder / part for part in PARTS)):
            for path in [*folder.glob(".*.part"), *folder.glob("alive.*.json")]:
                path.unlink(missing_ok=True)
        counts = {name: sum(s["row"][name] for s in states.values()) for name in _COUNTED}
        return {"videos": len(states), "failed": len(rows), **counts}

    def _finished(self) -> dict[Path, dict]:
        """Return {rows file: state} of all finished videos of these settings, sorted by name."""
        found = {}
        for path in self._state.glob("item.*.json"):
            stem = path.name.removeprefix("item.").removesuffix(".json")
            state, rows = self._read(path), self._file("boxes", stem, ".jsonl")
            if state and state.get("digest") != self._digest:
                self.remove_crops(stem)  # of settings that were overwritten
            elif state and rows.exists():
                found[stem] = rows, state
        return dict(found[stem] for stem in sorted(found))

    def _merge_lists(self, paths: Sequence[Path], *, unsplit: bool) -> None:
        with atomic_write(self.folder / "boxes.jsonl", "wb") as out:
            for path in paths:
                out.write(path.read_bytes())
        crops, mistakes = collect(self.folder)
        for mistake in mistakes[:20]:
            logger.warning(f"{mistake}: not used")
        write_lists(self.folder, crops, keep_unlabelled=True)
        for part in PARTS if unsplit else ():
            for name in ("train", "test"):
                (self.folder / f"{part}_{name}.jsonl").unlink(missing_ok=True)


_COUNTED = ("frames", "people", "crops", "skipped_crops")

"""The folder that preprocess.py fills: its finished videos, and the lists made of them."""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2

from human_anomaly.configs.defaults import PARTS
from human_anomaly.configs.values import short
from human_anomaly.data.cropping.crop_lists import (
    STATE_FILE,
    choose_tested,
    read_split,
    remove_split,
    source_of,
    write_lists,
)
from human_anomaly.data.cropping.cropper import Cropper
from human_anomaly.data.cropping.labels import collect
from human_anomaly.data.runs.jobs import JobFolder, identity
from human_anomaly.data.runs.marks import digest_of, is_unchanged, mark, read_object
from human_anomaly.data.sources import Source, printable
from human_anomaly.data.video import VideoError
from human_anomaly.utils import UsageError, atomic_write, message_of, write_json, write_jsonl

logger = logging.getLogger(__name__)

COUNTED = ("frames", "people", "crops", "skipped_crops")


class DiskError(Exception):
    """The output folder cannot be written; the message says what is safe and what to do."""


@dataclass(frozen=True)
class Plan:
    """What a run will do: crop the sources `todo`, and delete old crops of the stems `replaced`."""

    todo: list[Source]
    replaced: set[str]


def _same_file(state: dict, source: Source) -> bool:
    """Return whether `state` was stored for this file; its time may differ, as a copy's does."""
    try:
        return (state.get("identity") or [])[:2] == identity(source)[:2]
    except VideoError:
        return False


def _noting_files(rows: Iterator[dict], files: set[str]) -> Iterator[dict]:
    """Yield the rows; add the crops that they name to `files`."""
    for row in rows:
        if row["file"]:
            files.add(row["file"])
        yield row


class CropFolder(JobFolder):
    """The output folder: crops in human/, face/ and hand/, each video's rows, the merged lists.

    A run calls `plan`, `open`, `prepare`, then `crop` for each source, and `merge`. Under torchrun,
    every process crops and process 0 does the rest.
    """

    def plan(self, sources: Sequence[Source], label: int | None, *, overwrite: bool) -> Plan:
        """Return the Plan for `sources`; nothing is changed yet.

        Without `overwrite`, raises UsageError if the folder holds crops of other settings, or crops
        that have a source's name but come from another file or have another label. With it, raises
        UsageError if crops that a person sorted would be replaced.
        """
        done = self._finished()
        changed = self.other_settings()
        if changed and not overwrite:
            raise UsageError(
                f"--output: {self.folder} holds crops made with other settings "
                f"({', '.join(changed)} differ); choose another folder, or add --overwrite to "
                "replace them"
            )
        todo, replaced = [], set(self.item_stems()) - done.keys()
        for source in sources:
            state = done.get(source.stem)
            if state is None:
                todo.append(source)
                continue
            label_before = state["row"]["label"]
            if not _same_file(state, source):
                why = f"from another file ({state['row']['video_path']})"
            elif label_before != label:
                why = f"with --label {label_before}, now {label}"
            else:
                continue
            if not overwrite:
                raise UsageError(
                    f"--output: {self.folder} holds crops of '{source.stem}' made {why}; choose "
                    "another folder, or add --overwrite to replace them"
                )
            todo.append(source)
            replaced.add(source.stem)
        if overwrite:
            self._refuse_sorted(replaced)
        return Plan(todo, replaced)

    def tell_split(self, sources: Sequence[Source], label: int | None, split: float | None) -> None:
        """Log which videos the test lists will hold, as far as that is known before cropping."""
        if not (share := read_split(self.folder) if split is None else split):
            return
        labels = {stem: state["row"]["label"] for stem, state in self._finished().items()}
        labels |= {source.stem: label for source in sources}
        words = {"normal": 0, "abnormal": 1, "unlabelled": None}
        groups = {word: {s for s in labels if labels[s] == value} for word, value in words.items()}
        tested = choose_tested(groups.values(), share)
        counts = (f"{len(tested & g)} of {len(g)} {word}" for word, g in groups.items() if g)
        text = f"--train-test-split {share:g}: videos for testing: {', '.join(counts)}"
        if len(labels) > 1:
            logger.info(f"{text}: {short(sorted(tested))}")
        else:
            logger.warning(f"{text}: a single video cannot be split, so one list will be empty")

    def prepare(self, plan: Plan) -> None:
        """Delete the crops that `plan` replaces and what killed runs left; make the folders."""
        for part in PARTS:
            (self.folder / part).mkdir(exist_ok=True)
        self.forget_tries()
        if not plan.todo and not plan.replaced:
            return
        # A later run reads here which sources' crops it must delete.
        unfinished = {source.stem for source in plan.todo} | plan.replaced | self._unfinished()
        write_json(self._unfinished_path, sorted(unfinished))
        for stem in plan.replaced:
            self.item_path(stem).unlink(missing_ok=True)
        self._delete_unfinished()

    def crop(self, source: Source, cropper: Cropper, label: int | None) -> dict:
        """Crop `source` and return its summary; its rows appear when all crops are written.

        The summary of a video without a frame has an "error". Raises DiskError if the folder cannot
        be written.
        """
        summary = {"video_path": printable(source.path), "label": label}
        try:
            with (
                self.disk_errors(f"the crops of '{source.stem}'"),
                closing(cropper.rows(source, label, summary)) as rows,
            ):
                files = {f".state/{self._rows_path(source.stem).name}"}
                write_jsonl(self._rows_path(source.stem), _noting_files(rows, files))
                self.finish(source, summary, sorted(files))
        except (VideoError, cv2.error) as error:
            summary["error"] = message_of(error)
        return summary

    def merge(self, failed: Sequence[dict], split: float | None) -> dict[str, int]:
        """Write boxes.jsonl, the lists per part and failed.jsonl; return counts for the summary.

        All finished videos in the folder are merged in the order of their names, so the result does
        not depend on which process cropped what. If nothing was added, the lists stay as they are,
        because a person may have labelled them. `failed` has a row for each input that could not be
        cropped; `split` is the share of videos to test on (None: as before).
        """
        failures = self.folder / "failed.jsonl"
        with self.disk_errors("the lists"):
            if failed:
                write_jsonl(failures, sorted(failed, key=lambda row: row["video_path"]))
            else:
                failures.unlink(missing_ok=True)
            if self._unfinished_path.exists():
                self._delete_unfinished()
                self._unfinished_path.unlink()
            states = self._finished()
            before = read_split(self.folder)
            split = before if split is None else split
            stamp = digest_of([states, split], sort_keys=False)
            if not self._is_merged(stamp):
                state = {"version": 1, "settings": self.settings, "train_test_split": split}
                write_json(self.folder / STATE_FILE, state)
                self._merge_lists(list(states))
                if before and not split:
                    remove_split(self.folder)
                merged = {"stamp": stamp, "boxes": mark(self.folder / "boxes.jsonl")}
                write_json(self.state / "merged", merged)
        counts = {name: sum(s["row"][name] for s in states.values()) for name in COUNTED}
        labelled = sum(s["row"]["label"] is not None for s in states.values())
        return {"videos": len(states), "labelled": labelled, "failed": len(failed), **counts}

    def _is_merged(self, stamp: str) -> bool:
        """Return whether the lists are those of `stamp`; labels may have been added to them."""
        merged = read_object(self.state / "merged") or {}
        are_there = all((self.folder / f"{part}.jsonl").is_file() for part in PARTS)
        is_same = are_there and merged.get("stamp") == stamp
        return is_same and is_unchanged(self.folder / "boxes.jsonl", merged.get("boxes"))

    @contextmanager
    def disk_errors(self, what: str) -> Iterator[None]:
        """Turn errors of writing `what` into a DiskError of one line."""
        try:
            yield
        except OSError as error:
            raise DiskError(
                f"{self.folder}: cannot write {what}: {error.strerror or error}. Finished videos "
                "are safe. Make room and run the same command again"
            ) from error

    def _rows_path(self, stem: str) -> Path:
        return self.state / f"boxes.{stem}.jsonl"

    def _finished(self) -> dict[str, dict]:
        """Return {stem: state} of the sources finished with these settings, sorted by stem."""
        return {stem: state for stem, state in self.items().items() if self.is_whole(state)}

    @property
    def _unfinished_path(self) -> Path:
        return self.state / "unfinished.json"

    def _unfinished(self) -> set[str]:
        """Return the stems that a run began and perhaps did not finish."""
        try:
            stems = json.loads(self._unfinished_path.read_text(encoding="utf-8"))
            return {stem for stem in stems if isinstance(stem, str)}
        except (FileNotFoundError, ValueError, TypeError):
            return set()

    def _delete_unfinished(self) -> None:
        """Delete the rows and crops of unfinished sources, except crops sorted by hand."""
        stems = self._unfinished() - self._finished().keys()
        for stem in stems:
            self._rows_path(stem).unlink(missing_ok=True)
        for folder in (self.folder, self.state, *(self.folder / part for part in PARTS)):
            for entry in os.scandir(folder):
                cut_off = entry.name.startswith(".") and entry.name.endswith(".part")
                ours = folder.name in PARTS and source_of(entry.name) in stems
                if (cut_off or ours) and entry.is_file():
                    os.unlink(entry)

    def _refuse_sorted(self, stems: set[str]) -> None:
        """Raise UsageError if a person sorted crops of `stems` into folders."""
        for part in PARTS if stems else ():
            for top, _, names in os.walk(self.folder / part):
                found = [name for name in names if source_of(name) in stems]
                if found and Path(top) != self.folder / part:
                    raise UsageError(
                        f"--overwrite: {Path(top) / min(found)} and perhaps more were sorted by "
                        "hand; move those folders away first, or choose another output folder"
                    )

    def _merge_lists(self, stems: Sequence[str]) -> None:
        with atomic_write(self.folder / "boxes.jsonl", "wb") as out:
            for stem in stems:
                out.write(self._rows_path(stem).read_bytes())
        crops, mistakes = collect(self.folder)
        for mistake in mistakes[:20]:
            logger.warning(f"{mistake}: not used")
        write_lists(self.folder, crops, keep_unlabelled=True)

"""Finds the inputs in files, folders and globs, and records everything that it leaves out."""

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from natsort import natsorted, ns

from human_anomaly.data.pictures import IMAGE_SUFFIXES, count_pictures
from human_anomaly.utils import UsageError

VIDEO_SUFFIXES = {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".gif", ".mpg", ".mpeg"}
VIDEO_SUFFIXES |= {".ts", ".mts", ".m2ts", ".wmv", ".asf", ".flv", ".3gp", ".ogv", ".mjpeg"}
VIDEO_SUFFIXES |= {".vob", ".mxf", ".y4m", ".ivf", ".obu", ".h264", ".264", ".h265", ".265"}
MAX_STEM = 200  # bytes; file systems allow names of 255, and suffixes are added to a stem


def printable(path: str | Path) -> str:
    """Return `path` as text that can be printed and stored, even where its name is not UTF-8."""
    try:
        return os.fsencode(path).decode("utf-8", errors="backslashreplace")
    except UnicodeEncodeError:  # a lone surrogate, which JSON may hold, but no file name
        return ascii(str(path))[1:-1]


@dataclass(frozen=True)
class Source:
    """One input: a video file, or the pictures of a folder (or of one file) as a video."""

    path: Path
    stem: str
    images: tuple[Path, ...] = ()


@dataclass
class Found:
    """The inputs, (path, error) of unusable ones, and (path, reason) of what is no input."""

    sources: list[Source] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def said(self) -> str:
        """Return how many paths were skipped for which reason, "" if none."""
        count = Counter(reason.split(":")[0] for _, reason in self.skipped)
        return ", ".join(f"{number:,} {reason}" for reason, number in sorted(count.items()))

    def refuse_none(self, flag: str) -> None:
        """Raise UsageError about `flag` and the first unusable path if there is no input."""
        if not self.sources:
            (path, reason), *others = self.failed
            more = f" (and {len(others)} more)" if others else ""
            raise UsageError(f"{flag}: {path}: {reason}{more}")


def find_sources(paths: Sequence[str | Path]) -> Found:
    """Return the inputs below files, folders and globs, in natural order.

    An input is a video, a file of several pictures, or all other pictures of a folder together. No
    two inputs share a stem. Unusable are files whose path is not UTF-8 (results cannot name them),
    links that lead nowhere, and folders that cannot be read.
    """
    found, inputs = Found(), {}
    for given in map(str, paths):
        matches = [given] if os.path.exists(given) else natsorted(glob.glob(given, recursive=True))
        if not matches:
            found.failed.append((printable(given), "no such file or folder"))
        for path in map(Path, matches):
            if path.is_dir():
                sources = _in_folder(path, found)
            else:
                is_image = path.suffix.lower() in IMAGE_SUFFIXES
                sources = [Source(path, path.name, (path,) if is_image else ())]
            for source in sources:
                usable = _without_odd_names(source, found.failed)
                if usable is not None:
                    inputs.setdefault(usable.path, usable)
    found.sources = _with_stems(list(inputs.values()))
    return found


def _in_folder(root: Path, found: Found) -> list[Source]:
    """Return the inputs in a folder, with file names as stems; add all else to `found`."""
    sources, problems = [], len(found.failed)
    for folder, files in _walk(root, found):
        pictures = []
        for path in files:
            suffix = path.suffix.lower()
            stem = "__".join(path.relative_to(root).parts)
            if suffix in VIDEO_SUFFIXES:
                sources.append(Source(path, stem))
            elif suffix not in IMAGE_SUFFIXES:
                found.skipped.append((printable(path), "neither video nor picture by its name"))
            elif count_pictures(path) > 1:
                sources.append(Source(path, stem, (path,)))
            else:
                pictures.append(path)
        if pictures:
            stem = "__".join(folder.relative_to(root).parts) or root.resolve().name or "root"
            sources.append(Source(folder, stem, tuple(pictures)))
    if not sources and problems == len(found.failed):
        found.failed.append((printable(root), "the folder holds no video and no images"))
    return natsorted(sources, key=lambda source: source.path, alg=ns.PATH)


def _walk(root: Path, found: Found) -> Iterator[tuple[Path, list[Path]]]:
    """Yield (folder, its files in natural order) for `root` and the folders below it.

    Links to folders are followed last, so that a folder is named by its own path, not by a link.
    """
    folders, links, seen = [root], [], {}
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            state = folder.stat()
            first = seen.setdefault((state.st_dev, state.st_ino), folder)
            entries = list(os.scandir(folder)) if first is folder else []
        except OSError as error:
            found.failed.append((printable(folder), f"cannot read: {error.strerror}"))
            continue
        if first is not folder:
            reason = f"link to a folder already read: {printable(first)}"
            found.skipped.append((printable(folder), reason))
            continue
        files = []
        for entry in natsorted(sorted(entries, key=lambda e: e.name), key=lambda e: e.name):
            path = folder / entry.name
            if entry.name.startswith("."):
                found.skipped.append((printable(path), "hidden"))
            elif entry.is_symlink() and not path.exists():
                found.failed.append((printable(path), "the link leads nowhere"))
            elif entry.is_dir():
                (links if entry.is_symlink() else folders).append(path)
            elif entry.is_file():
                files.append(path)
            else:
                found.skipped.append((printable(path), "not a file"))
        if not entries:
            found.skipped.append((printable(folder), "empty folder"))
        yield folder, files


def _without_odd_names(source: Source, failed: list[tuple[str, str]]) -> Source | None:
    """Return the source without images whose path is not UTF-8, which are added to `failed`."""
    odd = [p for p in (source.path, *source.images) if printable(p.absolute()) != str(p.absolute())]
    if source.path in odd:
        odd = [source.path]  # one line for a folder
    failed += [(printable(p), "the name is not UTF-8: rename it") for p in odd]
    images = tuple(p for p in source.images if p not in odd)
    if source.path in odd or (odd and not images):
        return None
    return replace(source, images=images)


def _with_stems(sources: Sequence[Source]) -> list[Source]:
    """Return the sources with stems of their own: without extension, or with a suffix if needed."""
    bare = [s.stem if s.path.is_dir() else Path(s.stem).stem for s in sources]
    count = Counter(stem.lower() for stem in bare)  # some file systems ignore case
    named, used = [], set()
    for source, stem in zip(sources, bare, strict=True):
        if count[stem.lower()] > 1:
            stem = source.stem.replace(".", "_")
        if len(os.fsencode(stem)) > MAX_STEM or stem.lower() in used or count[stem.lower()] > 1:
            stem = with_suffix(stem, source.path)
        used.add(stem.lower())
        named.append(replace(source, stem=stem))
    return named


def with_suffix(stem: str, path: Path) -> str:
    """Return a stem that no other path has: shortened, with a digest of the path."""
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    return f"{stem[: MAX_STEM // 4]}_{digest}"

"""Videos and image folders as one stream of frames, decoded once."""

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

VIDEO_SUFFIXES = {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".gif", ".mpg", ".mpeg"}
VIDEO_SUFFIXES |= {".ts", ".m2ts", ".wmv", ".flv", ".3gp", ".ogv", ".mjpeg"}
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
MIN_SIDE = 32  # pixels; in smaller frames a detector finds nothing
MAX_PIXELS = 2**26  # of a frame or an image (8192 x 8192); larger ones would fill the memory
LEAST_FRAME = 8  # bytes that a frame takes in a file, at least
MAX_STEM = 200  # bytes; file systems allow names of 255, and suffixes are added to a stem


class VideoError(Exception):
    """An input that cannot be scored or cropped; the message says why."""


def printable(path: str | Path) -> str:
    """Return `path` as text that can be printed and stored, even where its name is not UTF-8."""
    try:
        return os.fsencode(path).decode("utf-8", errors="backslashreplace")
    except UnicodeEncodeError:  # a lone surrogate, which JSON may hold, but no file name
        return ascii(str(path))[1:-1]


@dataclass(frozen=True)
class Source:
    """One input: a video file, or the images of a folder (or one image) as a video."""

    path: Path
    stem: str
    images: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Frame:
    """Frame `index` of the source, at `time` seconds, as (H, W, 3) uint8 BGR."""

    index: int
    time: float
    image: np.ndarray


def find_sources(paths: Sequence[str | Path]) -> tuple[list[Source], list[tuple[str, str]]]:
    """Return the inputs below files, folders and globs, and (path, error) of unusable ones.

    A folder with any video in it is a list of videos; one of images only is one video. No two
    inputs share a stem. Unusable are files whose path is not UTF-8, for OpenCV cannot open them,
    and folders that cannot be read.
    """
    found: dict[Path, Source] = {}
    failed: list[tuple[str, str]] = []
    for given in map(str, paths):
        matches = [given] if os.path.exists(given) else sorted(glob.glob(given, recursive=True))
        if not matches:
            failed.append((printable(given), "no such file or folder"))
        for path in map(Path, matches):
            if path.is_dir():
                sources = _in_folder(path, failed)
            else:
                is_image = path.suffix.lower() in IMAGE_SUFFIXES
                sources = [Source(path, path.name, (path,) if is_image else ())]
            for source in sources:
                usable = _without_odd_names(source, failed)
                if usable is not None:
                    found.setdefault(usable.path, usable)
    return _with_stems(list(found.values())), failed


def _in_folder(root: Path, failed: list[tuple[str, str]]) -> list[Source]:
    """Return the inputs in a folder, with file names as stems; add problems to `failed`."""
    closed: list[OSError] = []
    walk = os.walk(root, onerror=closed.append)
    found = (Path(top, name) for top, _, names in walk for name in names)
    files = sorted(p for p in found if p.is_file() and not _hidden(p, root))
    failed += [(printable(e.filename), f"cannot read: {e.strerror}") for e in closed]
    videos = [p for p in files if p.suffix.lower() in VIDEO_SUFFIXES]
    if videos:
        return [Source(p, "__".join(p.relative_to(root).parts)) for p in videos]
    images = tuple(p for p in files if p.suffix.lower() in IMAGE_SUFFIXES)
    if images:
        return [Source(root, root.resolve().name or "root", images)]
    if not closed:
        failed.append((printable(root), "the folder holds no video and no images"))
    return []


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


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


def count_frames(source: Source) -> int:
    """Return how many frames the source declares, at least 1."""
    try:
        return FrameReader(source).frames_expected or 1
    except VideoError:
        return 1


class FrameReader:
    """Streams the frames of one source: iterate once; memory does not grow with length.

    `frames_expected` is how many the container declares (None if it does not), after `stride`.
    Only frames `start` to `stop` are given, but earlier ones are decoded too. Rotated phone videos
    come upright, grey and transparent ones as BGR. Raises VideoError for a source that cannot be
    opened or gives no frame; smaller problems are in `warnings`.
    """

    def __init__(
        self,
        source: Source,
        *,
        stride: int = 1,
        fps: float = 25.0,
        start: int = 0,
        stop: int | None = None,
    ):
        self.source, self.stride, self.start, self.stop = source, stride, start, stop
        self.warnings: list[str] = []
        self._capture = None
        if source.images:
            self.fps, count = fps, len(source.images)
        else:
            self._capture = self._open(source.path)
            rate = self._capture.get(cv2.CAP_PROP_FPS)
            self.fps = rate if 0 < rate < 1000 else fps
            count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
            if count > source.path.stat().st_size / LEAST_FRAME:
                self.warnings.append(f"it declares {count} frames, which its size cannot hold")
                count = 0
        self.frames_expected = -(-count // stride) if count > 0 else None

    @staticmethod
    def _open(path: Path) -> cv2.VideoCapture:
        if not path.is_file():
            raise VideoError("not a file" if path.exists() else "no such file")
        try:
            with path.open("rb") as file:
                if not file.read(1):
                    raise VideoError("the file is empty (0 bytes)")
        except OSError as error:
            raise VideoError(f"cannot read: {error.strerror}") from error
        capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise VideoError("not a video that OpenCV's FFmpeg can open (no video stream found)")
        width, height = (int(capture.get(p)) for p in (3, 4))  # CAP_PROP_FRAME_WIDTH, _HEIGHT
        if width * height > MAX_PIXELS:
            capture.release()
            raise VideoError(f"{width} x {height} pixels, expected at most {MAX_PIXELS:,}")
        return capture

    def __iter__(self) -> Iterator[Frame]:
        images = self._image_frames() if self.source.images else self._video_frames()
        given, small = 0, 0
        try:
            for index, image in images:
                given += 1
                small += min(image.shape[:2]) < MIN_SIDE
                yield Frame(index, index / self.fps, image)
        finally:
            if self._capture is not None:
                self._capture.release()
        if not given:
            raise VideoError("no frame could be decoded")
        if small:
            self.warnings.append(f"{small} frames are smaller than {MIN_SIDE} px")
        if self.frames_expected and given < self.frames_expected:
            self.warnings.append(
                f"{given} of {self.frames_expected} frames could be decoded; the file may be "
                "truncated"
            )
        elif not self.frames_expected and self.stop is None:
            stored = -(-_count_stored(self.source.path) // self.stride)
            if given < stored / 2:  # some codecs store two packets per frame
                self.warnings.append(f"{given} frames of about {stored} could be decoded")

    def _video_frames(self) -> Iterator[tuple[int, np.ndarray]]:
        index = 0
        while (self.stop is None or index < self.stop) and self._capture.grab():
            if index >= self.start and index % self.stride == 0:
                ok, image = self._capture.retrieve()
                if not ok:
                    return
                yield index, image
            index += 1

    def _image_frames(self) -> Iterator[tuple[int, np.ndarray]]:
        images = list(enumerate(self.source.images))[self.start : self.stop]
        for index, path in images:
            if index % self.stride:
                continue
            if problem := image_problem(path):
                self.warnings.append(f"{path.name}: {problem}; skipped")
            elif (image := cv2.imread(str(path), cv2.IMREAD_COLOR)) is None:
                self.warnings.append(f"{path.name}: not a readable image; skipped")
            else:
                yield index, image


def image_problem(path: Path) -> str | None:
    """Return why an image must not be decoded: not a file (a pipe never ends), or too large."""
    if not path.is_file():
        return "not a file" if path.exists() else "no such image"
    try:
        with Image.open(path) as image:
            width, height = image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"not a readable image ({error})"
    if width * height > MAX_PIXELS:
        return f"{width} x {height} pixels, expected at most {MAX_PIXELS:,}"
    return None


def _count_stored(path: Path) -> int:
    """Return how many video packets a file holds, read without decoding (0: unknown)."""
    import av

    try:
        with av.open(str(path)) as container:
            return sum(packet.size > 0 for packet in container.demux(video=0))
    except (av.error.FFmpegError, IndexError):
        return 0

"""What a person can look at, kept while a video is scored: worst crops, annotated video.

    with Evidence(folder, limits, report=True, explain=explainer).watch(source) as on_frame:
        scorer.score(source, on_frame=on_frame)

One decoding serves both. A video that was scored earlier is decoded again by `Evidence.catch_up`.
"""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from data.crops import cut
from data.video import Frame, Source
from models.report.annotate import GREEN, RED, AnnotatedVideo, AnnotateError, probe, replay
from utils import atomic_write, read_jsonl, write_json

logger = logging.getLogger(__name__)

WORST = 10
CROP_SIZE, THUMB_WIDTH = 256, 240
# The same part of the same person in neighbouring frames looks alike and is kept once.
ALIKE_SECONDS, ALIKE_IOU = 0.4, 0.4

Explain = Callable[[str, Sequence[np.ndarray]], Sequence[np.ndarray]]


@dataclass
class Suspect:
    """A person's part with the highest p, and its square cut from the frame (BGR)."""

    frame: int
    time: float
    person: int
    part: Mapping
    others: dict[str, float]
    crop: np.ndarray

    @property
    def p(self) -> float:
        return self.part["p_abnormal"]


def _iou(a: Sequence[float], b: Sequence[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (both - width * height)


class WorstPeople:
    """Keeps the people with the highest p of a video, near-identical neighbours once."""

    def __init__(self, most: int = WORST):
        self.most = most
        self.kept: list[Suspect] = []  # highest p first

    def add(self, frame: Frame, row: Mapping) -> bool:
        """Take a frame's people; return whether the worst of all so far is among them."""
        before = self.kept[0].p if self.kept else -1.0
        for number, person in enumerate(row["people"]):
            if person["parts"]:
                self._offer(frame, row, number, person["parts"])
        return bool(self.kept) and self.kept[0].p > before

    def _offer(self, frame: Frame, row: Mapping, number: int, parts: Sequence[Mapping]) -> None:
        part = max(parts, key=lambda p: p["p_abnormal"])
        p = part["p_abnormal"]
        if len(self.kept) == self.most and p <= self.kept[-1].p:
            return
        alike = [s for s in self.kept if self._alike(s, row["time"], part)]
        if any(s.p >= p for s in alike):
            return
        others: dict[str, float] = {}
        for other in parts:
            others[other["part"]] = max(other["p_abnormal"], others.get(other["part"], 0.0))
        crop = cut(frame.image, part["square"]).copy()
        kept = [s for s in self.kept if not any(s is a for a in alike)]
        kept.append(Suspect(row["frame"], row["time"], number, part, others, crop))
        self.kept = sorted(kept, key=lambda s: (-s.p, s.frame, s.person))[: self.most]

    @staticmethod
    def _alike(kept: Suspect, time: float, part: Mapping) -> bool:
        return (
            kept.part["part"] == part["part"]
            and abs(kept.time - time) <= ALIKE_SECONDS
            and _iou(kept.part["square"], part["square"]) >= ALIKE_IOU
        )


class VideoEvidence:
    """The evidence of one video: its worst people and a thumbnail."""

    def __init__(self, limits: Mapping[str, float]):
        self.limits, self.worst, self.thumb = limits, WorstPeople(), None

    def add(self, frame: Frame, row: Mapping) -> None:
        """Take a frame and its row of frames.jsonl."""
        if self.worst.add(frame, row) or self.thumb is None:
            self.thumb = self._thumbnail(frame)

    def _thumbnail(self, frame: Frame) -> np.ndarray:
        """Return the frame made small, with the worst part marked in it."""
        height, width = frame.image.shape[:2]
        zoom = THUMB_WIDTH / width
        size = (THUMB_WIDTH, max(1, round(height * zoom)))
        thumb = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
        if self.worst.kept and self.worst.kept[0].frame == frame.index:
            part = self.worst.kept[0].part
            colour = RED if part["p_abnormal"] > self.limits[part["part"]] else GREEN
            x1, y1, x2, y2 = (round(v * zoom) for v in part["bbox"])
            cv2.rectangle(thumb, (x1, y1), (x2, y2), colour, 2)
        return thumb

    def save(self, folder: Path, frames_jsonl: Path, explain: Explain | None) -> None:
        """Write images and evidence.json into `folder`; the JSON comes last and names the rest."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if self.thumb is not None:
            _write_jpeg(folder / "thumb.jpg", self.thumb)
        heats = self._explain(explain) if explain else {}
        rows = []
        for rank, suspect in enumerate(self.worst.kept):
            row = {
                "frame": suspect.frame,
                "time": suspect.time,
                "person": suspect.person,
                **suspect.part,
                "others": suspect.others,
                "crop": f"{rank}.jpg",
            }
            shown = _resized(suspect.crop)
            _write_jpeg(folder / row["crop"], shown)
            if rank in heats:
                row["heat"] = f"{rank}_heat.jpg"
                _write_jpeg(folder / row["heat"], overlay(shown, heats[rank]))
            rows.append(row)
        content = {"frames_sha256": _digest(frames_jsonl), "worst": rows}
        write_json(folder / "evidence.json", content)

    def _explain(self, explain: Explain) -> dict[int, np.ndarray]:
        """Return heatmaps by rank, one batch per part."""
        heats = {}
        for part in {s.part["part"] for s in self.worst.kept}:
            ranks = [i for i, s in enumerate(self.worst.kept) if s.part["part"] == part]
            maps = explain(part, [self.worst.kept[i].crop for i in ranks])
            heats.update(zip(ranks, maps, strict=True))
        return heats


def _resized(crop: np.ndarray) -> np.ndarray:
    method = cv2.INTER_AREA if min(crop.shape[:2]) > CROP_SIZE else cv2.INTER_CUBIC
    return cv2.resize(crop, (CROP_SIZE, CROP_SIZE), interpolation=method)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return `image` (H, W, 3) BGR greyed under `heat` (h, w) in 0..1, with a ring at its peak."""
    height, width = image.shape[:2]
    heat = cv2.resize(heat.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    heat = np.clip(heat, 0, 1)
    colours = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    weight = (0.85 * heat**0.8)[..., None]
    mixed = (grey * (1 - weight) + colours * weight).astype(np.uint8)
    y, x = np.unravel_index(int(heat.argmax()), heat.shape)
    for colour, thickness in (((0, 0, 0), 4), ((255, 255, 255), 2)):
        cv2.circle(mixed, (int(x), int(y)), width // 20, colour, thickness, cv2.LINE_AA)
    return mixed


def _write_jpeg(path: Path, image: np.ndarray) -> None:
    ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not ok:
        raise ValueError(f"{path}: cannot encode an image of shape {image.shape}")
    with atomic_write(path, "wb") as file:
        file.write(data.tobytes())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def safe_name(stem: str) -> str:
    """Return a folder name that is harmless in a URL, in HTML and on any file system."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-")[:40]
    return (
        f"{words or 'video'}-{hashlib.sha256(stem.encode(errors='surrogatepass')).hexdigest()[:8]}"
    )


class Evidence:
    """The evidence of a run's videos, below the folder of results.

    `report`: keep what `models.report.page` shows, in `<folder>/report/`. The annotated video is
    `<folder>/<stem>.annotated.webm`. `explain(part, crops)` gives the heatmaps of BGR crops.
    `stride` and `fps` are those of the scoring. What could not be written is in `failed`.
    """

    def __init__(
        self,
        folder: str | Path,
        limits: Mapping[str, float],
        *,
        report: bool = False,
        explain: Explain | None = None,
        stride: int = 1,
        fps: float = 25.0,
    ):
        self.folder, self.limits, self.report = Path(folder), dict(limits), report
        self.explain, self.timing = explain, {"stride": stride, "fps": fps}
        self.failed: list[str] = []

    def annotated(self, source: Source) -> Path:
        """Return where the annotated video of `source` is or will be."""
        return self.folder / f"{source.stem}.annotated.webm"

    def rows(self, source: Source) -> Path:
        """Return the frames.jsonl of `source`."""
        return self.folder / f"{source.stem}.frames.jsonl"

    def page(self, source: Source) -> Path:
        """Return the folder of `source` in the report."""
        return self.folder / "report" / "videos" / safe_name(source.stem)

    def missing(self, source: Source) -> bool:
        """Return whether a scored video lacks evidence, or has some of another scoring."""
        if not self.annotated(source).is_file():
            return True
        rows = self.rows(source)
        if self.annotated(source).stat().st_mtime < rows.stat().st_mtime - 1:
            return True
        return self.report and not fresh(self.page(source), rows)

    @contextmanager
    def watch(self, source: Source) -> Iterator[Callable[[Frame, Mapping], None]]:
        """Yield what takes each frame and its row; the result file must be whole at the end.

        On an error inside, nothing is left behind. Evidence that cannot be written is not worth
        the scores: it is named in `failed`, and `missing` stays true.
        """
        rate, expected = probe(source, **self.timing)
        video = AnnotatedVideo(
            self.annotated(source), self.limits, fps=rate, frames_expected=expected
        )
        worst = VideoEvidence(self.limits)

        def on_frame(frame: Frame, row: Mapping) -> None:
            video.add(frame, row)
            if self.report:
                worst.add(frame, row)

        try:
            yield on_frame
        except BaseException:
            video.abort()
            raise
        try:
            video.close()
            if self.report:
                worst.save(self.page(source), self.rows(source), self.explain)
        except (AnnotateError, OSError) as error:
            self.failed.append(f"{source.path}: {error}")
            logger.error("%s: no evidence: %s", source.path, error)

    def catch_up(self, source: Source) -> None:
        """Make the evidence of a video scored earlier, decoding it again."""
        with self.watch(source) as on_frame:
            for frame, row in replay(source, read_jsonl(self.rows(source)), **self.timing):
                on_frame(frame, row)


def fresh(page: Path, rows: Path) -> bool:
    """Return whether `page` holds the evidence of just these result rows."""
    try:
        content = json.loads((page / "evidence.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("frames_sha256") == _digest(rows)

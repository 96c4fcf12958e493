"""What a person can look at, kept while a video is scored: worst crops and annotated video.

    with Evidence(folder, thresholds, report=True, explain=explainer).watch(source) as on_frame:
        scorer.score(source, on_frame=on_frame)

A video that was scored earlier is decoded again by `Evidence.catch_up`.
"""

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from human_anomaly.data.runs.marks import is_unchanged, mark, read_object
from human_anomaly.data.video import Frame, Source
from human_anomaly.models.report.annotate import (
    AnnotateError,
    Annotation,
    WebmWriter,
    probe,
    replay,
)
from human_anomaly.models.report.worst import Explain, WorstParts
from human_anomaly.utils import read_jsonl, write_json

logger = logging.getLogger(__name__)

FORMAT = 3  # of evidence.json and the files it names; evidence in another format is made again


def safe_name(stem: str) -> str:
    """Return a folder name that is safe in a URL, in HTML and on any file system."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-")[:40]
    digest = hashlib.sha256(stem.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{words or 'video'}-{digest}"


@dataclass
class Evidence:
    """The evidence of a run's videos, below the folder of results.

    The annotated video is `<folder>/<stem>.annotated.webm`. With `report`, `<folder>/report/` gets
    what the pages show: pictures of the worst parts, and the video without boxes, because the page
    draws them. `explain(part, crops)` gives the heatmaps of BGR crops. `stride`, `fps`
    and `colours` are those of the scoring. `failed` lists what could not be written.
    """

    folder: Path
    thresholds: Mapping[str, float]
    report: bool = False
    explain: Explain | None = None
    stride: int = 1
    fps: float = 25.0
    colours: str = "original"
    failed: list[str] = field(default_factory=list, init=False)

    @property
    def reading(self) -> dict:
        return {"stride": self.stride, "fps": self.fps, "colours": self.colours}

    def annotated(self, stem: str) -> Path:
        """Return where the annotated video of the source called `stem` is or will be."""
        return self.folder / f"{stem}.annotated.webm"

    def rows(self, stem: str) -> Path:
        """Return the frames.jsonl of the source called `stem`."""
        return self.folder / f"{stem}.frames.jsonl"

    def page(self, stem: str) -> Path:
        """Return the folder in the report of the source called `stem`."""
        return self.folder / "report" / "videos" / safe_name(stem)

    def missing(self, source: Source) -> bool:
        """Return whether a scored video lacks evidence, or has evidence of another scoring."""
        annotated, rows = self.annotated(source.stem), self.rows(source.stem)
        if not annotated.is_file() or annotated.stat().st_mtime < rows.stat().st_mtime - 1:
            return True
        return self.report and read_evidence(self.page(source.stem), rows) is None

    @contextmanager
    def watch(self, source: Source) -> Iterator[Callable[[Frame, Mapping], None]]:
        """Yield a function that takes each frame and its row.

        The file of rows must be complete when the block ends. An error in the block leaves no
        evidence. Evidence that cannot be written raises nothing, because the scores are good:
        `failed` names the video, and `missing` stays true.
        """
        rate, expected = probe(source, **self.reading)
        draw = Annotation(self.thresholds, expected)
        annotated = WebmWriter(self.annotated(source.stem), fps=rate, draw=draw)
        writers, worst = [annotated], WorstParts(self.thresholds)
        plain = self.folder / f".{safe_name(source.stem)}.part.webm"
        if self.report:
            writers.append(WebmWriter(plain, fps=rate))

        def on_frame(frame: Frame, row: Mapping) -> None:
            for writer in writers:
                writer.add(frame, row)
            if self.report:
                worst.add(frame, row)

        try:
            yield on_frame
        except BaseException:
            for writer in writers:
                writer.abort()
            raise
        self._finish(source, writers, worst, plain)

    def _finish(self, source: Source, writers: list[WebmWriter], worst, plain: Path) -> None:
        """Close the videos and write the page's pictures; add errors to `failed`."""
        errors = []
        for writer in writers:
            try:
                writer.close()
            except (AnnotateError, OSError) as error:
                errors.append(str(error))
        try:
            if self.report and not errors:
                self._save(source.stem, worst, plain)
        except OSError as error:
            errors.append(str(error))
        plain.unlink(missing_ok=True)
        if errors:  # the first is enough: both videos usually fail for the same reason
            self.failed.append(f"{source.path}: {errors[0]}")
            logger.error("%s: cannot write its pictures and videos: %s", source.path, errors[0])

    def _save(self, stem: str, worst: WorstParts, plain: Path) -> None:
        """Fill the page's folder; evidence.json comes last and names the rest."""
        page = self.page(stem)
        shutil.rmtree(page, ignore_errors=True)
        page.mkdir(parents=True)
        if plain.is_file():
            os.replace(plain, page / "video.webm")
        content = worst.save(page, self.explain)
        content |= {"format": FORMAT, "frames": mark(self.rows(stem))}
        write_json(page / "evidence.json", content)

    def catch_up(self, source: Source) -> None:
        """Make the evidence of a video scored earlier, decoding it again."""
        with self.watch(source) as on_frame:
            for frame, row in replay(source, read_jsonl(self.rows(source.stem)), **self.reading):
                on_frame(frame, row)


def read_evidence(page: Path, rows: Path) -> dict | None:
    """Return the evidence.json in `page` if it was made from this file of rows, else None."""
    content = read_object(page / "evidence.json") or {}
    is_fresh = content.get("format") == FORMAT and is_unchanged(rows, content.get("frames"))
    return content if is_fresh else None

"""Report pages of uploaded videos: random names, deleted after a while."""

import json
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from human_anomaly.data.runs.jobs import content_digest
from human_anomaly.data.video import Frame, Source
from human_anomaly.models.report.evidence import Evidence
from human_anomaly.models.report.page import build_report
from human_anomaly.models.scoring.scorer import VideoScorer
from human_anomaly.models.scoring.scores import VideoResult
from human_anomaly.models.scoring.worker import explainer
from human_anomaly.models.weights import demo_warnings
from human_anomaly.utils import atomic_write, write_json

EXPIRED = "<!doctype html><title>No report</title><p>This report has expired or never existed.</p>"


class Reports:
    """Folders of pages below `folder`, at most `seconds` old and `most` bytes in all."""

    def __init__(self, folder: Path, seconds: float, most: int):
        self.folder, self.seconds, self.most = folder, seconds, most
        self._lock = threading.Lock()
        folder.mkdir()
        (folder / "404.html").write_text(EXPIRED)

    def publish(self, report: Path) -> str:
        """Move the pages in `report` here; return their name, which nobody can guess."""
        name = secrets.token_urlsafe(16)
        os.replace(report, self.folder / name)
        self.tidy(keep=name)
        return name

    def tidy(self, keep: str = "") -> None:
        """Delete reports that are too old, and the oldest ones while all are too large together."""
        with self._lock:
            left = self.most
            for page in sorted(self.folder.glob("*/"), key=os.path.getmtime, reverse=True):
                size = sum(file.stat().st_size for file in page.rglob("*") if file.is_file())
                left -= size
                old = time.time() - page.stat().st_mtime > self.seconds
                if page.name != keep and (old or left < 0):
                    shutil.rmtree(page, ignore_errors=True)
                    left += size


def score_with_report(
    scorer: VideoScorer, source: Source, name: str, on_frame: Callable, reports: Reports
) -> VideoResult:
    """Score a video and publish its report, whose path below the reports is the summary's "page".

    The report shows the video as `name`. Raises VideoError as `VideoScorer.score` does.
    """
    with tempfile.TemporaryDirectory(dir=source.path.parent) as place:
        thresholds = dict(scorer.config.SCORE.THRESHOLDS)
        colours = scorer.config.VIDEO.COLOURS
        evidence = Evidence(Path(place), scorer.thresholds, report=True, colours=colours)
        evidence.explain = explainer(scorer)
        with evidence.watch(source) as watch, atomic_write(evidence.rows(source.stem)) as lines:

            def on_both(frame: Frame, row: dict) -> None:
                on_frame(frame, row)
                watch(frame, row)
                lines.write(json.dumps(row) + "\n")

            result = scorer.score(source, on_frame=on_both)
        row = result.summary | {"video_path": name, "frames_file": f"{source.stem}.frames.jsonl"}
        scores = {"settings": {"thresholds": thresholds}, "videos": [row], "failed": []}
        scores["warnings"] = demo_warnings(scorer.weight_files, [content_digest(source)])
        write_json(Path(place) / "scores.json", scores)
        report = build_report(place).parent
        page = evidence.page(source.stem).relative_to(report) / "index.html"
        result.summary["page"] = f"{reports.publish(report)}/{page.as_posix()}"
        return result

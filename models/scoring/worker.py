"""How a process or a Ray actor scores a video into the folder of results."""

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial

import av
import cv2
import PIL
import torch
from tqdm import tqdm

from human_anomaly.data.runs.jobs import JobFolder, content_digest, identity, my_items
from human_anomaly.data.runs.on_ray import ray_actors
from human_anomaly.data.runs.resume_log import ResumeLog
from human_anomaly.data.video import Frame, Source, VideoError
from human_anomaly.models.classifier import input_of
from human_anomaly.models.device import frames_per_batch
from human_anomaly.models.report.evidence import Evidence
from human_anomaly.models.report.heatmap import Explainer
from human_anomaly.models.scoring.scorer import VideoScorer
from human_anomaly.utils import atomic_write, message_of

logger = logging.getLogger(__name__)


def versions() -> dict[str, str]:
    """Return the versions of the libraries that make pixels and numbers."""
    libraries = {"torch": torch, "av": av, "opencv": cv2, "pillow": PIL}
    return {name: str(library.__version__) for name, library in libraries.items()}


def explainer(scorer: VideoScorer) -> Explainer:
    """Return the Explainer that makes heatmaps of the scorer's classifiers."""
    return Explainer(scorer.classifiers, input_of(scorer.config))


class VideoWorker:
    """Scores videos into a folder of results: worker(source) writes and returns its row."""

    def __init__(self, scorer: VideoScorer, jobs: JobFolder, evidence: Evidence | None = None):
        self.scorer, self.jobs, self.evidence = scorer, jobs, evidence
        if evidence is not None:
            evidence.explain = explainer(scorer)

    def __call__(self, source: Source, bar: tqdm | None = None) -> dict:
        """Score a video, or resume one that a killed run left; `bar` counts the frames."""
        row = self._score(source, bar)
        files = [row["frames_file"]] if "frames_file" in row else []
        self.jobs.finish(source, row, files)
        return row

    def _score(self, source: Source, bar: tqdm | None) -> dict:
        frames_file, views = f"{source.stem}.frames.jsonl", 0

        def on_frame(frame: Frame, row: dict) -> None:
            nonlocal views
            if watch is not None:
                watch(frame, row)
            lines.write(json.dumps(row) + "\n")
            views += len(row["people"])
            if bar is not None:
                bar.set_postfix(views=views, refresh=False)
                bar.update()

        try:
            with (
                ResumeLog(self.jobs.batches_path(source), self.head(source)) as resume_log,
                self.evidence.watch(source) if self.evidence else nullcontext() as watch,
                atomic_write(self.jobs.folder / frames_file) as lines,
            ):
                result = self.scorer.score(
                    source,
                    on_frame=on_frame,
                    on_batch=resume_log.add,
                    kept=resume_log.kept(),
                    keep_frames=False,
                )
        except (VideoError, cv2.error) as error:
            return {"video_path": str(source.path), "error": message_of(error)}
        row = {"video_path": str(source.path), "frames_file": frames_file, **result.summary}
        return row | {"sha256": content_digest(source), "versions": versions()}

    def head(self, source: Source) -> dict:
        """Return the settings on which a video's batches depend, for its ResumeLog."""
        return {
            "settings": self.jobs.digest,
            "identity": identity(source),
            "batch_size": self.scorer.batch_size,
            "device": self.scorer.detector.device.type,
            "dtype": self.scorer.dtype,
        }


def catch_up(scorer: VideoScorer, evidence: Evidence, sources: Sequence[Source]) -> None:
    """Make the evidence of this process's share of videos that were scored earlier."""
    evidence.explain = explainer(scorer)
    for source in my_items(dict.fromkeys(sources, 1)):
        evidence.catch_up(source)


def ray_worker(
    options: dict, jobs: JobFolder, evidence: Evidence | None
) -> Callable[[Source], list[str]]:
    """Return the function with which a Ray actor scores a video.

    That function returns the evidence that could not be written. `options` are those of
    `VideoScorer.from_files`.
    """
    worker = VideoWorker(VideoScorer.from_files(**options), jobs, evidence)

    def score(source: Source) -> list[str]:
        if jobs.row(source) is None:  # it may be scored already, by an actor that died afterwards
            worker(source)
        lost = list(evidence.failed) if evidence else []
        if evidence:
            evidence.failed.clear()
        return lost

    return score


def score_on_ray(
    address: str,
    options: dict,
    jobs: JobFolder,
    evidence: Evidence | None,
    sources: Sequence[Source],
    *,
    cores: int | None = None,
) -> list[str]:
    """Score the videos in a Ray cluster's actors; return the evidence that could not be written.

    `options` are those of `VideoScorer.from_files`, `cores` each actor's.
    """
    lost: list[str] = []
    with ray_actors(address, device=options["device"], cores=cores) as actors:
        size = options["batch_size"] or frames_per_batch(actors.device, options["fast"])
        of_actors = {"device": actors.device, "batch_size": size, "cores": actors.cores}
        logger.info(f"{actors.count} actors of the Ray cluster score {len(sources)} videos")
        make = partial(ray_worker, options | of_actors, jobs, evidence)
        done = actors.map(make, sources, jobs)
        for source, unwritten, error in tqdm(done, total=len(sources), unit="video"):
            if error is not None:
                jobs.finish(source, {"video_path": str(source.path), "error": error})
            lost += unwritten or []
    return lost

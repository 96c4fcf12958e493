"""How a process, or one of Ray's actors, scores a video into the folder of results."""

import glob
import json
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path

import cv2
from tqdm import tqdm

from human_anomaly.data.runs.jobs import JobFolder, identity
from human_anomaly.data.runs.marks import content_digest
from human_anomaly.data.runs.resume_log import Batches
from human_anomaly.data.video import Frame, Source, VideoError
from human_anomaly.models.classifier import input_of
from human_anomaly.models.report.evidence import Evidence
from human_anomaly.models.report.heatmap import Explainer
from human_anomaly.models.scoring.scorer import VideoScorer
from human_anomaly.utils import atomic_write, read_jsonl, write_jsonl


def explainer(scorer: VideoScorer) -> Explainer:
    """Return what makes the heatmaps of the scorer's classifiers."""
    return Explainer(scorer.classifiers, **input_of(scorer.config))


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
        frames_file, people = f"{source.stem}.frames.jsonl", 0

        def on_frame(frame: Frame, row: dict) -> None:
            nonlocal people
            if watch is not None:
                watch(frame, row)
            lines.write(json.dumps(row) + "\n")
            people += len(row["people"])
            if bar is not None:
                bar.set_postfix(people=people, refresh=False)
                bar.update()

        try:
            with (
                Batches(self.jobs.batches_path(source), self.head(source)) as batches,
                self.evidence.watch(source) if self.evidence else nullcontext() as watch,
                atomic_write(self.jobs.folder / frames_file) as lines,
            ):
                result = self.scorer.score(
                    source,
                    on_frame=on_frame,
                    on_batch=batches.add,
                    kept=batches.kept(),
                    keep_frames=False,
                )
        except (VideoError, cv2.error) as error:
            return {"video_path": str(source.path), "error": " ".join(str(error).split())}
        row = {"video_path": str(source.path), "frames_file": frames_file, **result.summary}
        return row | {"sha256": content_digest(source)}

    def keep(self, stretch: "Stretch") -> None:
        """Score the batches of a stretch and keep what was found in them, for `join`.

        Raises VideoError where the video cannot be read.
        """
        found = self.scorer.score_stretch(stretch.source, stretch.first, stretch.count)
        write_jsonl(stretch.path(self.jobs), chain([self.head(stretch.source)], found))

    def head(self, source: Source) -> dict:
        """Return what a video's batches depend on: the first line of the file that keeps them."""
        return {
            "settings": self.jobs.digest,
            "identity": identity(source),
            "batch_size": self.scorer.batch_size,
            "device": self.scorer.detector.device.type,
            "dtype": self.scorer.dtype,
        }


def ray_worker(options: dict, jobs: JobFolder, evidence: Evidence | None):
    """Return the function with which one of Ray's actors scores a video.

    It returns what evidence could not be written. `options` are those of `VideoScorer.from_files`.
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


@dataclass(frozen=True)
class Stretch:
    """The batches `first` to `first + count` of a video."""

    source: Source
    first: int
    count: int

    @property
    def stem(self) -> str:
        return f"{self.source.stem}.{self.first:09d}"

    def path(self, jobs: JobFolder) -> Path:
        """Return the file that keeps what was found in the stretch until the video is scored."""
        return jobs.state / f"stretch.{self.stem}.jsonl"


def ray_stretch_worker(options: dict, jobs: JobFolder):
    """Return the function with which one of Ray's actors scores a stretch: `VideoWorker.keep`."""
    return VideoWorker(VideoScorer.from_files(**options), jobs).keep


def split(frames: Mapping[Source, int], most: int, per_batch: int) -> list[Stretch]:
    """Split the videos that are longer than `most` frames; return their stretches.

    `frames` maps each video to its length. A batch covers `per_batch` frames of a video, and a
    stretch holds whole batches, about `most` frames.
    """
    stretches, batches = [], max(most // per_batch, 1)
    for source, length in frames.items():
        count = -(-length // per_batch)
        if count > batches:
            stretches += [Stretch(source, i, batches) for i in range(0, count, batches)]
    return stretches


def join(stretches: Iterable[Stretch], jobs: JobFolder) -> None:
    """Keep the batches of a video's stretches as a killed run does, so that scoring resumes there.

    Only the stretches before the first missing one are used.
    """
    for source, parts in groupby(stretches, key=lambda stretch: stretch.source):
        seconds, batches = 0.0, None
        for stretch in parts:
            path = stretch.path(jobs)
            if not path.is_file():
                break
            head, *found = read_jsonl(path)
            batches = batches or Batches(jobs.batches_path(source), head)
            for batch in found:
                batches.add(batch | {"seconds": seconds + batch["seconds"]})
            seconds += found[-1]["seconds"] if found else 0.0
        if batches is not None:
            batches.close()
        for path in jobs.state.glob(f"stretch.{glob.escape(source.stem)}.*.jsonl"):
            path.unlink()

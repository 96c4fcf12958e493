"""What a process, or one of Ray's actors, does with each video: score it into the results."""

import glob
import json
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path

import cv2
from tqdm import tqdm

from data.batches import Batches
from data.jobs import JobFolder, identity
from data.video import Frame, Source, VideoError
from models.report.evidence import Evidence
from models.report.heatmap import Explainer
from models.scorer import VideoScorer
from utils import atomic_write, read_jsonl, write_jsonl


def explainer(scorer: VideoScorer) -> Explainer:
    """Return what draws the heatmaps of the scorer's classifiers."""
    config = scorer.config
    return Explainer(
        scorer.classifiers,
        size=config.DATA.IMG_SIZE,
        crop=config.TEST.CROP,
        interpolation=config.DATA.INTERPOLATION,
        channels=config.TEST.CHANNELS,
    )


class VideoWorker:
    """Scores videos into a folder of results: worker(source) writes and returns its row."""

    def __init__(self, scorer: VideoScorer, jobs: JobFolder, evidence: Evidence | None = None):
        self.scorer, self.jobs, self.evidence = scorer, jobs, evidence
        if evidence is not None:
            evidence.explain = explainer(scorer)

    def __call__(self, source: Source, bar: tqdm | None = None) -> dict:
        """Score a video, or go on within it; `bar` is told of each frame."""
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
                self._batches(source) as batches,
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
        return {"video_path": str(source.path), "frames_file": frames_file, **result.summary}

    def _batches(self, source: Source) -> Batches:
        return Batches(self.jobs.batches_path(source), self.head(source))

    def keep(self, stretch: "Stretch") -> None:
        """Keep what is in the batches of a stretch, for `join`.

        Raises VideoError where its video cannot be read.
        """
        head = self.head(stretch.source)
        found = self.scorer.score_stretch(stretch.source, stretch.first, stretch.count)
        write_jsonl(stretch.path(self.jobs), chain([head], found))

    def head(self, source: Source) -> dict:
        """Return what the batches of a video depend on."""
        return {
            "settings": self.jobs.digest,
            "identity": identity(source),
            "batch_size": self.scorer.batch_size,
            "device": self.scorer.detector.device.type,
            "dtype": self.scorer.dtype,
        }


def ray_worker(options: dict, jobs: JobFolder, evidence: Evidence | None):
    """Return what one of Ray's actors does with a video; it returns what could not be written.

    `options` are those of `VideoScorer.from_files`.
    """
    worker = VideoWorker(VideoScorer.from_files(**options), jobs, evidence)

    def score(source: Source) -> list[str]:
        if jobs.row(source) is None:  # else an actor that died after it had come this far
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
        """Return where what was found in the stretch is kept until the video is scored."""
        return jobs.state / f"stretch.{self.stem}.jsonl"


def ray_stretch_worker(options: dict, jobs: JobFolder):
    """Return what one of Ray's actors does with a stretch: it keeps what is in its batches."""
    return VideoWorker(VideoScorer.from_files(**options), jobs).keep


def split(frames: Mapping[Source, int], most: int, per_batch: int) -> list[Stretch]:
    """Return the stretches of about `most` frames of those videos in `frames` that have more.

    `per_batch` is how many frames of a video a batch covers; stretches hold whole batches.
    """
    stretches, batches = [], max(most // per_batch, 1)
    for source, length in frames.items():
        count = -(-length // per_batch)
        if count > batches:
            stretches += [Stretch(source, i, batches) for i in range(0, count, batches)]
    return stretches


def join(stretches: Iterable[Stretch], jobs: JobFolder) -> None:
    """Keep what was found in the stretches as a killed run's batches, with which scoring goes on.

    A stretch that is missing ends what is kept of its video.
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

"""A scoring run: many videos, any number of processes, one folder of results."""

import glob
import json
import logging
import sys
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path

import cv2
import torch
from tqdm import tqdm

from configs.defaults import differences, thresholds
from data.jobs import JobFolder, deal
from data.video import Frame, FrameReader, Source, VideoError, find_sources
from models.benchmark.results import SCORES, mean_known, print_scores
from models.classifier import load_classifier
from models.detector import PartDetector
from models.device import (
    choose_device,
    fast_dtype,
    set_matmul_precision,
    share_cores,
)
from models.report.evidence import Evidence
from models.report.heatmap import Explainer
from models.report.page import build_report
from models.scorer import VideoResult, VideoScorer
from models.sharing import Sharing
from models.weights import Weights
from utils import (
    atomic_write,
    rank,
    world_size,
    write_json,
)

logger = logging.getLogger(__name__)


def _stamp(path: str) -> list:
    """Return what tells a weight file from another of the same name."""
    file = Path(path)
    if not file.is_file():
        return [str(path), None, None]
    return [str(path), file.stat().st_size, file.stat().st_mtime_ns]


class ScoringRun:
    """Scores the videos of `args` into `args.output`; `run()` returns the exit status."""

    def __init__(self, args: Namespace, weights: Weights, config):
        self.args, self.weights, self.config = args, weights, config
        self.sources, self.unusable = find_sources(args.video)
        self.folder = Path(args.output)
        self._lengths: dict[Source, int] = {}
        identity = self.settings() | {
            "files": [_stamp(p) for p in (weights.detector_weights, *weights.models.values())]
        }
        self.jobs = JobFolder(self.folder, identity, overwrite=args.overwrite)
        self.evidence = (
            Evidence(
                self.folder,
                thresholds(config),
                report=args.report,
                stride=args.frame_stride,
                fps=args.fps,
            )
            if args.annotate or args.report
            else None
        )

    def settings(self) -> dict:
        """Return what the results depend on, as scores.json records it."""
        weights, args = self.weights, self.args
        return {
            "cfg": weights.cfg,
            "changed": {k: v for k, (_, v) in sorted(differences(self.config).items())},
            "detector_config": weights.detector_config,
            "detector_weights": weights.detector_weights,
            "models": weights.models,
            "thresholds": dict(self.config.SCORE.THRESHOLDS),
            "channels": self.config.TEST.CHANNELS,
            "fast": args.fast,
            "frame_stride": args.frame_stride,
            "fps": args.fps,
        }

    def run(self) -> int:
        mine = self._mine()
        stale = {s for s in self.sources if self.args.overwrite or self._row(s) is None}
        unseen = [s for s in mine if s not in stale and self.evidence and self.evidence.missing(s)]
        if done := len(self.sources) - len(stale):
            logger.info("%d of %d videos are scored already", done, len(self.sources))
        for source in stale:
            self.jobs.forget(source, records=self.args.overwrite)
        todo = [source for source in self.sources if self.jobs.row(source) is None]
        if todo or unseen:
            scorer = self._scorer()
            if self.evidence:
                self.evidence.explain = Explainer(
                    scorer.classifiers,
                    size=self.config.DATA.IMG_SIZE,
                    crop=self.config.TEST.CROP,
                    interpolation=self.config.DATA.INTERPOLATION,
                    channels=self.config.TEST.CHANNELS,
                )
            self._score_all(scorer, todo, set(mine))
            for source in unseen:
                self.evidence.catch_up(source)
        return self._merge()

    def _row(self, source: Source) -> dict | None:
        """Return the row of a video that was scored; one that failed is tried again."""
        row = self.jobs.row(source)
        return None if row is None or "error" in row else row

    def _mine(self) -> list[Source]:
        """Return the videos dealt to this process, of about the same length as the others'."""
        if world_size() == 1:
            return self.sources
        sizes = [self._length(source) for source in self.sources]
        owners = deal(sizes, world_size())
        return [s for s, owner in zip(self.sources, owners, strict=True) if owner == rank()]

    def _length(self, source: Source) -> int:
        """Return the frames that the video should have; each is opened for that once."""
        if source not in self._lengths:
            try:
                self._lengths[source] = FrameReader(source).frames_expected or 1
            except VideoError:
                self._lengths[source] = 1
        return self._lengths[source]

    def _frames(self, source: Source) -> int:
        """Return how many of the video's frames are to be scored."""
        return -(-self._length(source) // self.args.frame_stride)

    def _scorer(self) -> VideoScorer:
        """Load the detector and the classifiers, once for all videos."""
        config, args = self.config, self.args
        device = choose_device(args.device)
        workers, threads = share_cores(device)
        batch_size = args.batch_size or (2 if device.type == "cpu" else 8)
        dtype = fast_dtype(device) if args.fast else torch.float32
        set_matmul_precision("fp32")
        classifiers = {
            part: load_classifier(path, config, device)
            for part, path in self.weights.models.items()
        }
        detector = PartDetector(
            self.weights.detector_config,
            self.weights.detector_weights,
            device,
            score_thr=config.DETECTOR.SCORE_THR,
            keep_padding_class=config.DETECTOR.KEEP_PADDING_CLASS,
            batch_size=batch_size,
            threads=threads,
            dtype=dtype,
            to_aspect=args.fast,
            on_device=args.fast and device.type == "cuda",
            compile=args.compile,
        )
        return VideoScorer(
            detector,
            classifiers,
            config,
            batch_size=batch_size,
            stride=args.frame_stride,
            fps=args.fps,
            workers=workers,
            threads=threads,
            dtype=dtype,
        )

    def _score_all(self, scorer: VideoScorer, sources: list[Source], mine: set[Source]) -> None:
        """Score those of `sources` that no other process scores, the longest first."""
        if world_size() > 1:  # one process keeps the order in which videos were named
            sources = sorted(sources, key=self._length, reverse=True)
        sharing = Sharing(self.jobs, scorer, len(self.sources), compile=self.args.compile)
        total = sum(self._frames(source) for source in mine.intersection(sources))
        with tqdm(total=total, unit="frame", disable=rank() != 0, dynamic_ncols=True) as bar:
            # Again as long as there was something: a process that died, or forgot what it was told
            # to overwrite, leaves pieces of a video behind.
            while sum([self._take(sharing, source, source in mine, bar) for source in sources]):
                pass

    def _take(self, sharing: Sharing, source: Source, dealt: bool, bar: tqdm) -> bool:
        """Score the video, or pieces of it; return whether there was something to do."""
        if self.jobs.row(source) is not None:
            return False
        bar.set_description(source.stem[:30])
        pieces = sharing.pieces(self._frames(source))
        worked = False
        try:
            if len(pieces) > 1 and not sharing.records(source).complete():
                worked = sharing.score(source, pieces, bar.update, dealt=dealt)
                if not sharing.records(source).complete():
                    return worked  # who ends the last piece goes on
        except (VideoError, cv2.error):
            pass  # scoring the whole meets it again, and says so
        with self.jobs.claim(source, dealt=dealt) as claimed:
            if claimed:
                self.jobs.finish(source, self._row_of(sharing, source, bar))
        return worked or claimed

    def _row_of(self, sharing: Sharing, source: Source, bar: tqdm) -> dict:
        """Return the video's row of scores.json, or what is wrong with it."""
        try:
            return self._score_one(sharing, source, bar).summary
        except (VideoError, cv2.error) as error:
            message = " ".join(str(error).split())
            bar.write(f"failed: {source.path}: {message}", file=sys.stderr)
            return {"video_path": str(source.path), "error": message}

    def _score_one(self, sharing: Sharing, source: Source, bar: tqdm) -> VideoResult:
        people = 0
        for left in self.folder.glob(f".{glob.escape(source.stem)}.frames.jsonl.*.part"):
            left.unlink(missing_ok=True)  # of a run that was killed: nobody else works on this one
        records = sharing.records(source)
        shared = records.complete()  # then its frames were counted
        with (
            self.evidence.watch(source) if self.evidence else nullcontext() as watch,
            atomic_write(self.folder / f"{source.stem}.frames.jsonl") as lines,
            records.adding(),
        ):

            def on_frame(frame: Frame, row: dict) -> None:
                nonlocal people
                if watch is not None:
                    watch(frame, row)
                lines.write(json.dumps(row) + "\n")
                people += len(row["people"])
                bar.set_postfix(people=people, refresh=False)
                bar.update(not shared)

            return sharing.scorer.score(
                source,
                on_frame=on_frame,
                on_batch=records.add,
                known=records.known,
                keep_frames=False,
            )

    def _merge(self) -> int:
        """Write scores.json once every process's videos are done; the last one to end does it."""
        rows = [self.jobs.row(source) for source in self.sources]
        if any(row is None for row in rows):
            return 0
        failed = [{"video_path": path, "error": error} for path, error in self.unusable]
        failed += [row for row in rows if "error" in row]
        videos = [row for row in rows if "error" not in row]
        scores = {
            "version": 1,
            "settings": self.settings(),
            "mean": {key: mean_known([row[key] for row in videos]) for key in SCORES},
            "videos": videos,
            "failed": failed,
        }
        write_json(self.folder / "scores.json", scores)
        print_scores(scores, self.folder / "scores.json")
        if self.args.report:
            print(f"report: {build_report(self.folder, self.sources)}")
        lost = self.evidence.failed if self.evidence else []
        return 1 if failed or lost else 0

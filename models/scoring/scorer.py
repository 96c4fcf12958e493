"""From a video to verdicts: per person, per frame and for the whole.

scorer = VideoScorer.from_files("detector.py", "detector.pth", {"hand": "hand.pth"}, get_config())
result = scorer.score("people.mp4")
print(result.summary["video_results"], result.frames[0]["people"])
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, repeat
from pathlib import Path

import torch
from torch import nn

from human_anomaly.configs.defaults import thresholds
from human_anomaly.configs.parts import used_parts
from human_anomaly.data.clips import to_clips
from human_anomaly.data.stream import batched, clip_frames, keep_to_one_core, map_ahead, prefetch
from human_anomaly.data.video import Frame, FrameReader, Source
from human_anomaly.models.classifier import in_type, input_of, load_classifier
from human_anomaly.models.detector import PartDetector, Person
from human_anomaly.models.device import (
    choose_device,
    enough_memory,
    fast_dtype,
    frames_per_batch,
    name_of,
    share_cores,
)
from human_anomaly.models.guest import StaysInProcess, leave_no_trace
from human_anomaly.models.on_device import place
from human_anomaly.models.scoring.judge import CropJudge
from human_anomaly.models.scoring.scores import Tally, VideoResult, frame_score, is_abnormal
from human_anomaly.models.scoring.tracks import Tracker

logger = logging.getLogger(__name__)


class VideoScorer(StaysInProcess):
    """Scores videos with a detector and one classifier per part.

    `classifiers` maps parts ("human", ..) to modules from (B, 3, S, S) to (B,) logits; a
    part without one is not judged. `config` comes from `get_config`. `workers` batches of the
    networks are computed at the same time, on CPU each on one core, and the detector's `threads`
    cut and resize the crops of a batch. Neither changes the results, because the frames alone
    decide what is in a batch. The classifiers compute in the detector's number type; if that is not
    float32, `score_frames` fills batches with frames of several clips.
    """

    def __init__(
        self,
        detector: PartDetector,
        classifiers: Mapping[str, nn.Module],
        config,
        *,
        batch_size: int = 2,
        stride: int = 1,
        fps: float = 25.0,
        workers: int = 2,
    ):
        super().__init__()
        self.detector, self.config = detector, config
        dtype = detector.dtype
        judging = {part: in_type(model, dtype) for part, model in classifiers.items()}
        # int8 has no gradients, which heatmaps need.
        self.classifiers = classifiers if dtype == torch.int8 else judging
        self.dtype = name_of(dtype)
        self.clock = detector.predictor.clock
        self.batch_size, self.stride, self.fps = batch_size, stride, fps
        self.thresholds = thresholds(config)
        self.judge = CropJudge(
            judging,
            input_of(config),
            device=detector.device,
            dtype=torch.float32 if dtype == torch.int8 else dtype,
            threads=1 if detector.on_device else detector.threads,
            clock=self.clock,
        )
        self.weight_files: list[str] = []  # which `from_files` read
        self.workers, self.mix_clips = workers, dtype != torch.float32
        # One pool runs the networks. The other has a thread per batch of frames, which waits for
        # them: twice as many, so that a frame with few people leaves no worker idle.
        self._networks = ThreadPoolExecutor(workers, "networks", keep_to_one_core)
        if detector.compiled:  # in a thread that runs the networks, and before any other does
            self._networks.submit(detector.compile_all).result()
        self.in_flight = 2 * workers
        self._batches_ahead = ThreadPoolExecutor(self.in_flight, "frames", keep_to_one_core)

    @classmethod
    @leave_no_trace()
    def from_files(
        cls,
        detector_config: str | Path,
        detector_weights: str | Path,
        models: Mapping[str, str | Path],
        config,
        *,
        device: str | torch.device = "auto",
        batch_size: int | None = None,
        stride: int = 1,
        fps: float = 25.0,
        fast: bool = False,
        compile: bool = False,
        cores: int | None = None,
    ) -> "VideoScorer":
        """Load the detector and the classifiers; `models` maps parts to files.

        `batch_size` is frames per detector batch (default: `frames_per_batch`); `fast` and
        `compile` are inference.py's; `cores` is how many CPU cores may be used. Raises
        CheckpointError for a file that cannot be used, UsageError for a device that is not there.
        """
        device = choose_device(str(device))
        if compile and device.type == "cpu":
            logger.info("--compile is ignored: on a CPU it makes nothing faster")
            compile = False
        workers, threads = share_cores(device, cores)
        shared = {
            "batch_size": batch_size or frames_per_batch(device.type, fast),
            "threads": threads,
            "dtype": fast_dtype(device) if fast else torch.float32,
        }
        classifiers = {p: load_classifier(path, config, device) for p, path in models.items()}
        detector = PartDetector(
            detector_config,
            detector_weights,
            device,
            parts=used_parts(models),
            score_thr=config.DETECTOR.SCORE_THR,
            keep_padding_class=config.DETECTOR.KEEP_PADDING_CLASS,
            on_device=fast and device.type == "cuda",
            compile=compile,
            **shared,
        )
        options = {"stride": stride, "fps": fps, "workers": workers}
        scorer = cls(detector, classifiers, config, batch_size=shared["batch_size"], **options)
        scorer.weight_files = [str(file) for file in (detector_weights, *models.values())]
        return scorer

    def score(
        self,
        source: str | Path | Source,
        *,
        on_frame: Callable[[Frame, dict], None] | None = None,
        on_batch: Callable[[dict], None] | None = None,
        kept: Iterable[dict] = (),
        keep_frames: bool = True,
    ) -> VideoResult:
        """Return the scores of a video.

        `on_frame` gets each frame and its row, `on_batch` what was found in each new batch (plain
        JSON), both in order. `kept` holds what `on_batch` got for the first batches in an earlier
        run with the same batch size; they are not computed again. Raises VideoError where no frame
        can be decoded, or a GPU has too little memory.
        """
        self.refuse_a_fork()
        start = time.perf_counter()
        if not isinstance(source, Source):
            source = Source(Path(source), Path(source).stem)
        reader = self._reader(source)
        tally, tracker = Tally(self.config.SCORE.NO_PERSON, self.classifiers), Tracker()
        rows, skipped = [], 0
        for frames, found, is_new in self._batches(reader, kept):
            if not is_new:  # the time of the earlier run counts too
                start = time.perf_counter() - found["seconds"]
            elif on_batch is not None:
                on_batch(found | {"seconds": time.perf_counter() - start})
            skipped += sum(found["skipped"])
            for frame, row in zip(frames, found["rows"], strict=True):
                tracker.number(row)  # here, because all rows come in order, kept ones too
                tally.add(row, self.thresholds)
                if keep_frames:
                    rows.append(row)
                if on_frame is not None:
                    on_frame(frame, row)
        summary = {"video_path": str(source.path)}
        for key, value in tally.scores().items():
            summary[key] = value
            if key == "frames":
                summary["frames_expected"] = reader.frames_expected
        summary |= {
            "skipped_crops": skipped,
            "warnings": reader.warnings,
            "dtype": self.dtype,
            "seconds": round(time.perf_counter() - start, 3),
        }
        return VideoResult(summary, rows, self.thresholds)

    def _reader(self, source: Source) -> FrameReader:
        colours = self.config.VIDEO.COLOURS
        return FrameReader(source, stride=self.stride, fps=self.fps, colours=colours)

    def score_frames(self, clips, layout: str | None = None) -> VideoResult | list[VideoResult]:
        """Return the scores of a clip in memory, or a list of results for several clips.

        `data/clips.py` says what a clip may be; `layout` decides between THWC and TCHW where both
        could be meant. Batches of several clips are computed at the same time. In float32 no batch
        holds frames of two clips, so that the rows are those of `score` to the last bit. Raises
        ValueError for another shape, type or range.
        """
        self.refuse_a_fork()
        clips, alone = to_clips(clips, layout)
        found = [[] for _ in clips]
        frames = [
            zip(repeat(number), clip_frames(clip, self.fps, self.detector.on_device))
            for number, clip in enumerate(clips)
        ]
        if self.mix_clips:
            batches = batched(chain.from_iterable(frames), self.batch_size)
        else:
            batches = chain.from_iterable(batched(f, self.batch_size) for f in frames)

        def judge(batch: list[tuple[int, Frame]]) -> dict:
            return self._score_batch([frame for _, frame in batch])

        for batch, result in self._map_ahead(judge, batches):
            per_frame = zip(batch, result["rows"], result["skipped"], strict=True)
            for (number, _), row, skipped in per_frame:
                found[number].append((row, skipped))
        results = [self._clip_result(rows) for rows in found]
        return results[0] if alone else results

    def _clip_result(self, found: Sequence[tuple[dict, int]]) -> VideoResult:
        tally, tracker = Tally(self.config.SCORE.NO_PERSON, self.classifiers), Tracker()
        for row, _ in found:
            tracker.number(row)
            tally.add(row, self.thresholds)
        skipped = sum(count for _, count in found)
        summary = tally.scores() | {"skipped_crops": skipped}
        return VideoResult(summary, [row for row, _ in found], self.thresholds)

    def _batches(
        self, reader: Iterable[Frame], kept: Iterable[dict] = ()
    ) -> Iterator[tuple[list[Frame], dict, bool]]:
        """Yield each batch of frames, what was found in it, and whether it was computed now."""
        # Frames are decoded while the networks compute, but not too many, so memory stays flat.
        ahead = batched(prefetch(reader, self.batch_size), self.batch_size)

        def decode() -> list[Frame] | None:
            with self.clock.stage("decode"):  # the time that the networks had to wait
                return next(ahead, None)

        def find(batch: tuple[list[Frame], dict | None]) -> dict:
            frames, found = batch
            return self._score_batch(frames) if found is None else found

        batches = zip(iter(decode, None), chain(kept, repeat(None)), strict=False)
        for (frames, known), found in self._map_ahead(find, batches):
            yield frames, found, known is None

    def _map_ahead(self, function: Callable, batches: Iterable) -> Iterator[tuple]:
        """Yield (batch, function(batch)) in order; several are computed at the same time."""
        return map_ahead(self._batches_ahead, function, batches, self.in_flight - 1)

    @enough_memory()
    def _score_batch(self, frames: Sequence[Frame]) -> dict:
        """Return the frames' "rows", and how many crops of each were "skipped"."""
        images = [frame.image for frame in frames]
        if self.detector.on_device:  # it cuts and resizes there
            images = place(images, self.detector.device)
        found = self.detector.detect(images, self._networks.map)
        boxes = [[box for person in one.people for box in person.parts] for one in found]
        judged = self.judge.squares(images, boxes, self._networks.map)
        rows = []
        for i, (frame, detections) in enumerate(zip(frames, found, strict=True)):
            people = [self._person_row(person, i, judged) for person in detections.people]
            row = {"frame": frame.index, "time": frame.time, "score": frame_score(people)}
            rows.append(row | {"people": people})
        return {"rows": rows, "skipped": [one.skipped for one in found]}

    def _person_row(self, person: Person, frame: int, judged: Mapping[str, dict]) -> dict:
        parts = [
            {
                "part": box.part,
                "bbox": [float(v) for v in box.bbox],
                "detector_score": box.score,
                "square": list(box.square),
                "p_abnormal": judged[box.part][frame, box.square],
            }
            for box in person.parts
            if box.part in judged
        ]
        abnormal = is_abnormal(parts, self.thresholds)
        return {"abnormal": abnormal, "bbox": [float(v) for v in person.bbox], "parts": parts}

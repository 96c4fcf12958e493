"""Drawn videos and stills on disk, each with its truth."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from human_anomaly.demo.truth import read_truth, write_truth
from human_anomaly.utils import atomic_write, read_jsonl

from .video import FPS, HEIGHT, WIDTH, World, draw_still

SAVE_EVERY = 20  # videos
CHUNK = 50  # stills per folder; an interrupted run draws at most one folder again


def _pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of new processes: a forked copy of one that uses threads may hang."""
    return ProcessPoolExecutor(workers, get_context("spawn"))


def video_name(seed: int, anomaly: str) -> str:
    """Return a video's file name, which tells everything that its content depends on."""
    return f"figures_{seed:06d}{'' if anomaly == 'random' else '_' + anomaly}.mp4"


def _draw_video(path: Path, seed: int, anomaly: str) -> list[list[dict]]:
    """Draw one MPEG-4 video, visible only when complete; return the people of each frame."""
    cv2.setNumThreads(1)
    world = World(seed, None if anomaly == "none" else anomaly)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    writer = cv2.VideoWriter(str(part), cv2.VideoWriter_fourcc(*"mp4v"), FPS, (WIDTH, HEIGHT))
    if not writer.isOpened():
        raise RuntimeError(f"{path}: this OpenCV cannot write mp4v")
    truth = []
    try:
        for index in range(world.length):
            frame, people = world.render(index)
            writer.write(frame)
            truth.append(people)
        writer.release()
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return truth


def draw_videos(
    folder: Path, seeds: Sequence[int], *, anomaly: str = "random", workers: int = 1
) -> dict[str, list[list[dict]]]:
    """Draw a video per seed and folder/truth.jsonl; return {video: people of each frame}.

    Keeps what is there already. The truth is also written when the run is interrupted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "truth.jsonl"
    truth = read_truth(path) if path.exists() else {}
    names = {video_name(seed, anomaly): seed for seed in seeds}
    missing = [n for n in names if n not in truth or not (folder / n).exists()]
    with _pool(workers) as pool:
        jobs = [pool.submit(_draw_video, folder / n, names[n], anomaly) for n in missing]
        bar = tqdm(missing, total=len(names), initial=len(names) - len(missing), unit="video")
        try:
            for count, (name, job) in enumerate(zip(bar, jobs, strict=True), 1):
                truth[name] = job.result()
                if count % SAVE_EVERY == 0:
                    write_truth(path, truth)
        finally:
            write_truth(path, truth)
            pool.shutdown(cancel_futures=True)
    return {name: truth[name] for name in names}


def chunks(folder: Path, seeds: range) -> list[tuple[Path, range]]:
    """Return the subfolders of `folder`, each with the seeds of its stills, in order."""
    parts = (seeds[i : i + CHUNK] for i in range(0, len(seeds), CHUNK))
    return [(folder / f"stills_{part[0]:06d}_{part[-1]:06d}", part) for part in parts]


def truth_file(chunk: Path) -> Path:
    """Return the path of a subfolder's truth: beside the subfolder, which holds only pictures."""
    return chunk.with_suffix(".jsonl")


def _draw_chunk(chunk: Path, seeds: range) -> int:
    """Draw the stills of a subfolder and their truth; return how many they are."""
    cv2.setNumThreads(1)
    chunk.mkdir(parents=True, exist_ok=True)
    truth = []
    for seed in seeds:
        frame, people = draw_still(seed)
        # JPEG of varied quality stands for the lossy codecs of videos.
        quality = int(np.random.default_rng([seed, 30]).integers(70, 97))
        with atomic_write(chunk / f"{seed:06d}.jpg", "wb") as file:
            file.write(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])
        truth.append(people)
    write_truth(truth_file(chunk), {chunk.name: truth})
    return len(seeds)


def draw_stills(folder: Path, seeds: range, *, workers: int = 1) -> Iterator[int]:
    """Draw a JPEG per seed and each subfolder's truth; yield how many stills are done.

    Finished subfolders are kept, so the same call continues an interrupted one.
    """
    missing = {c: part for c, part in chunks(folder, seeds) if not truth_file(c).exists()}
    done = len(seeds) - sum(map(len, missing.values()))
    yield done
    with _pool(workers) as pool:
        for drawn in pool.map(_draw_chunk, missing, missing.values()):
            done += drawn
            yield done


def read_stills(folder: Path, seeds: range) -> Iterator[tuple[Path, list[dict]]]:
    """Yield (picture, people as in truth.jsonl) of the drawn stills of `seeds`."""
    for chunk, part in chunks(folder, seeds):
        for seed, row in zip(part, read_jsonl(truth_file(chunk)), strict=True):
            yield chunk / f"{seed:06d}.jpg", row["people"]

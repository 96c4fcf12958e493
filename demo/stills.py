"""Drawn stills on disk: pictures of the drawn world and their truth, for training on it."""

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from utils import read_jsonl, write_jsonl

CHUNK = 50  # stills in a folder; an interrupted run repeats at most one folder


def chunks(folder: Path, seeds: range) -> list[tuple[Path, range]]:
    """Return the folders below `folder`, each with the seeds of its pictures, in order."""
    parts = (seeds[i : i + CHUNK] for i in range(0, len(seeds), CHUNK))
    return [(folder / f"stills_{part[0]:06d}_{part[-1]:06d}", part) for part in parts]


def truth_file(chunk: Path) -> Path:
    """Return the truth of a folder of stills, which lies beside it: pictures only inside."""
    return chunk.with_suffix(".jsonl")


def _draw_chunk(job: tuple[Path, range, str]) -> None:
    import cv2
    import numpy as np

    from demo.world import draw_still

    cv2.setNumThreads(1)
    folder, seeds, anomaly = job
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index, seed in enumerate(seeds):
        frame, people = draw_still(seed, anomaly=anomaly)
        # Videos reach the classifiers through a lossy codec: so do stills, by a varied JPEG.
        quality = int(np.random.default_rng([seed, 30]).integers(70, 97))
        part = folder / f".{os.getpid()}.part.jpg"
        cv2.imwrite(str(part), frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
        os.replace(part, folder / f"{seed:06d}.jpg")
        rows.append({"video": folder.name, "frame": index, "people": people})
    write_jsonl(truth_file(folder), rows)


def draw_stills(
    folder: Path, seeds: range, *, anomaly: str = "each", workers: int = 1
) -> Iterator[int]:
    """Draw a JPEG per seed, CHUNK in a folder, and each folder's truth; yield how many are done.

    What is there already is kept, so the same call continues an interrupted one.
    """
    missing = [(f, part) for f, part in chunks(folder, seeds) if not truth_file(f).exists()]
    done = len(seeds) - sum(len(part) for _, part in missing)
    yield done
    # A forked copy of a process that has used OpenCV's or torch's threads may wait for ever.
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        drawn = pool.map(_draw_chunk, [(f, part, anomaly) for f, part in missing])
        for (_, part), _ in zip(missing, drawn, strict=True):
            done += len(part)
            yield done


def read_stills(folder: Path, seeds: range) -> Iterator[tuple[Path, list[dict]]]:
    """Yield (picture, people as in truth.jsonl) of the drawn stills of `seeds`."""
    for chunk, part in chunks(folder, seeds):
        for seed, row in zip(part, read_jsonl(truth_file(chunk)), strict=True):
            yield chunk / f"{seed:06d}.jpg", row["people"]

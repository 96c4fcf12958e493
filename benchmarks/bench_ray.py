"""What a Ray cluster's actors gain and cost on a CPU.

    python -m benchmarks.bench_ray [actors] [memory] [scheduler] [folder]

actors: 24 videos in one actor of one core, then in two. memory: 1,000 videos of two frames in one
job; what the driver and the object store hold meanwhile. scheduler: items without any work, to see
how many the driver can assign in a second. folder: rows of finished videos, written as at the end
of a run and read as at its start.
"""

import argparse
import json
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import torch

from benchmarks.bench_scale import VIDEOS, frames_of, loop
from benchmarks.machine import describe
from human_anomaly import inference
from human_anomaly.data.runs.jobs import JobFolder
from human_anomaly.data.runs.on_ray import ray_actors
from human_anomaly.data.video import Source
from tests.ray_cluster import Cluster, start_cluster

TABLES = ("actors", "memory", "scheduler", "folder")


def score(folder: Path, output: Path, address: str) -> float:
    """Score a folder of videos on the cluster; return the wall seconds, start-up included."""
    words = ["--video", folder, "--output", output, "--device", "cpu", "--ray", address]
    start = time.perf_counter()
    if status := inference.main(list(map(str, words))):
        sys.exit(f"inference.py ended with status {status}")
    return time.perf_counter() - start


def actors(args, folder: Path) -> None:
    (folder / "videos").mkdir()
    for path in VIDEOS.glob("*.mp4"):
        frames = frames_of(path)
        for copy in range(6):
            loop(folder / "videos" / f"{path.stem}_{copy}.mp4", frames, args.frames)
    print("| actors | wall s | videos/s after the first | CPU s: actors | driver | Ray | load |")
    print("|---|---|---|---|---|---|---|")
    walls, rates = [], []
    for count in (1, 2):
        driver = time.process_time()
        with start_cluster(cores=count) as cluster, cpu_seconds(cluster) as spent:
            walls.append(score(folder / "videos", folder / str(count), cluster.address))
        driver = time.process_time() - driver
        ends = sorted(p.stat().st_mtime for p in (folder / str(count)).glob(".state/item.*.json"))
        rates.append((len(ends) - count) / (ends[-1] - ends[count - 1]))
        ours = sum(seconds for is_actor, seconds in spent.values() if is_actor)
        others = sum(seconds for is_actor, seconds in spent.values() if not is_actor)
        print(
            f"| {count} | {walls[-1]:.1f} | {rates[-1]:.3f} | {ours:.1f} | {driver:.1f} "
            f"| {others:.1f} | {os.getloadavg()[0]:.1f} |",
            flush=True,
        )
    print(f"\nwall {walls[0] / walls[1]:.2f}x, without start-up {rates[1] / rates[0]:.2f}x\n")


@contextmanager
def cpu_seconds(cluster: Cluster) -> Iterator[dict[int, tuple[bool, float]]]:
    """Yield {process id: (is it an actor, CPU seconds)} of the cluster, filled while it works."""
    spent: dict[int, tuple[bool, float]] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            now = set(cluster.processes(b"ray::MapWorker"))
            for number in cluster.processes():
                with suppress(OSError):  # ended meanwhile
                    words = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
                    ticks = int(words[11]) + int(words[12])
                    is_actor = number in now or spent.get(number, (False,))[0]
                    spent[number] = (is_actor, ticks / os.sysconf("SC_CLK_TCK"))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield spent
    ended.set()
    thread.join()


def held_now() -> tuple[float, float]:
    """Return the MiB that this process (the driver) and the object store hold."""
    import ray

    pages = int(Path("/proc/self/statm").read_text().split()[1])
    names = ray.cluster_resources(), ray.available_resources()
    total, free = (found.get("object_store_memory", 0) for found in names)
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, (total - free) / 2**20


def memory(args, folder: Path) -> None:
    (folder / "videos").mkdir()
    frames = [cv2.resize(frame, (160, 120)) for frame in frames_of(VIDEOS / "normal_1.mp4")[:2]]
    for i in range(args.videos):
        loop(folder / "videos" / f"{i:04d}.mp4", frames, 2)
    ended = threading.Event()
    print("| videos scored | driver MiB | object store MiB |\n|---|---|---|")

    def watch() -> None:
        told = -1
        while not ended.wait(1):
            done = len(list((folder / "out/.state").glob("item.*.json")))
            if done and done >= told + args.videos // 10:
                told = done
                driver, store = held_now()
                print(f"| {done} | {driver:.0f} | {store:.2f} |", flush=True)

    threading.Thread(target=watch, daemon=True).start()
    with start_cluster(cores=2) as cluster:
        seconds = score(folder / "videos", folder / "out", cluster.address)
    ended.set()
    found = json.loads((folder / "out/scores.json").read_text())
    print(f"\n{len(found['videos'])} of {args.videos} videos in {seconds:.0f} s\n")


def scheduler(args, folder: Path) -> None:
    jobs = JobFolder(folder, {})
    jobs.state.mkdir()
    print(
        "| items | s until the first result | items/s after it | driver MiB before, at its end "
        "| object store MiB at half |\n|---|---|---|---|---|"
    )
    with start_cluster(cores=2) as cluster:
        for count in (args.items // 10, args.items):
            items = [Source(Path(f"clips/{i:07d}.mp4"), f"{i:07d}") for i in range(count)]
            with ray_actors(cluster.address, device="cpu") as found:
                before, start, store = held_now()[0], time.perf_counter(), 0.0
                for number, _ in enumerate(found.map(lambda: _nothing, items, jobs)):
                    if number == 0:
                        first = time.perf_counter()
                    if number == count // 2:
                        store = held_now()[1]
                rate = count / (time.perf_counter() - first)
                print(
                    f"| {count} | {first - start:.1f} | {rate:.0f} | {before:.0f}, "
                    f"{held_now()[0]:.0f} | {store:.1f} |",
                    flush=True,
                )


def folder_of_rows(args, folder: Path) -> None:
    jobs, video = JobFolder(folder, {}), VIDEOS / "normal_1.mp4"
    jobs.state.mkdir()
    start = time.perf_counter()
    for i in range(args.rows):
        jobs.finish(Source(video, f"{i:07d}"), {"video_path": f"{i:07d}.mp4", "frames": 120})
    written = time.perf_counter()
    found = len(jobs.items())
    read = time.perf_counter()
    print(f"{found} rows written in {written - start:.1f} s, read in {read - written:.1f} s\n")


def _nothing(_source: Source) -> None:
    return None


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("tables", nargs="*", default=list(TABLES), help=f"{', '.join(TABLES)} (all)")
    p.add_argument("--frames", type=int, default=60, help="frames of each of the 24 videos (60)")
    p.add_argument("--videos", type=int, default=1000, help="videos of the memory table (1000)")
    p.add_argument("--rows", type=int, default=20_000, help="finished videos in a folder (20000)")
    p.add_argument("--items", type=int, default=100_000, help="items for the scheduler (100000)")
    args = p.parse_args()
    if wrong := set(args.tables) - set(TABLES):
        p.error(f"expected tables of {', '.join(TABLES)}, got {', '.join(sorted(wrong))}")
    logging.disable(logging.INFO)
    print(f"{describe(torch.device('cpu'))}; load {os.getloadavg()[0]:.1f}\n", flush=True)
    table = dict(zip(TABLES, (actors, memory, scheduler, folder_of_rows), strict=True))
    for name in args.tables:
        with tempfile.TemporaryDirectory() as folder:
            table[name](args, Path(folder))


if __name__ == "__main__":
    main()

"""What the service costs: throughput and latency of clips, in-process and over HTTP.

    python -m benchmarks.bench_service --size demo --clips 16
    python -m benchmarks.bench_service --size xl --clips 2 --device cuda

Clips are 16 x 480 x 480 with 2 people in each frame, as rewards score them. The weights of `xl` are
random, so every frame gets fixed people after the real passes (see bench_scoring.py).
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
import uvicorn

from benchmarks.bench_scoring import (
    ROOT,
    FixedPeople,
    FixedPredictor,
    config_of,
    detector_files,
    write_weights,
)
from benchmarks.machine import describe
from human_anomaly.demo.paths import WEIGHTS
from human_anomaly.models.device import choose_device
from human_anomaly.models.scoring.each import OneByOne
from human_anomaly.models.scoring.scorer import VideoScorer
from human_anomaly.models.serving.app import Service, create_app
from human_anomaly.models.serving.line import Limits, Line
from human_anomaly.models.serving.reports import Reports
from human_anomaly.rewards import Reward
from human_anomaly.rewards import human_anatomy as make_reward
from human_anomaly.utils import quiet_libraries


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--size", default="demo", choices=("demo", "s", "xl"), help="weights (demo)")
    p.add_argument("--clips", type=int, default=8, help="clips for the throughput (8)")
    p.add_argument("--frames", type=int, default=16, help="frames of a clip (16)")
    p.add_argument("--repeat", type=int, default=3, help="measurements, in turn (3)")
    p.add_argument("--clients", type=int, default=4, help="clients that share the clips (4)")
    p.add_argument("--fast", action="store_true")
    p.add_argument("--device", default="auto")
    p.add_argument("--weights", type=Path, default=ROOT / "build" / "bench", help="random weights")
    return p.parse_args()


def load(args: argparse.Namespace) -> VideoScorer:
    folder = WEIGHTS if args.size == "demo" else args.weights
    files = {part: folder / f"{part}.pth" for part in ("human", "face", "hand")}
    options = {"device": args.device, "fast": args.fast}
    scorer = VideoScorer.from_files(*detector_files(args), files, config_of(args), **options)
    if args.size != "demo":
        fixed = FixedPeople([2])
        scorer.detector.predictor = FixedPredictor(scorer.detector.predictor, fixed)
    return scorer


def make_clips(args: argparse.Namespace) -> list[torch.Tensor]:
    """Return clips (T, 3, 480, 480), float: the demo's two people, each clip a bit different."""
    reader = cv2.VideoCapture(str(ROOT / "demo/videos/hand_fused.mp4"))
    frames = np.stack([reader.read()[1] for _ in range(args.frames)])[:, ::-1, ::-1, ::-1]
    frames = np.stack([cv2.resize(f, (480, 480)) for f in frames[:, ::-1, ::-1]])
    clips = [np.roll(frames, number, 2) for number in range(args.clips)]
    return [torch.from_numpy(c.copy()).permute(0, 3, 1, 2) / 255 for c in clips]


def serve(scorer: VideoScorer, folder: Path) -> tuple[uvicorn.Server, str]:
    """Serve the scorer in a thread of this process; return the server and its URL."""
    limits = Limits(2**28, 10_000, 2**24, 64, 600, 3600)
    line = Line(scorer, limits, Reports(folder / "reports", 3600, 2**30))
    app = create_app(Service(line, folder, None, {"demo": True}))
    config = uvicorn.Config(app, port=0, http="h11", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    return server, f"http://127.0.0.1:{port}"


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def shared(reward: Reward, clips: list, clients: int) -> None:
    """Let clients, threads of this process, score their shares of the clips."""
    shares = [clips[number::clients] for number in range(clients)]
    threads = [threading.Thread(target=reward, args=(share,)) for share in shares if share]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    args = parse_args()
    quiet_libraries()
    args.device = choose_device(args.device)
    write_weights(args.weights, args.size)
    scorer, clips = load(args), make_clips(args)
    here = Reward(OneByOne(scorer), "soft", 0.0)
    with tempfile.TemporaryDirectory() as folder:
        server, url = serve(scorer, Path(folder))
        remote = make_reward(url=url)
        same = here(clips[:1]) == remote(clips[:1])  # and warms up
        found: dict[str, list[float]] = {}
        for _ in range(args.repeat):
            for name, call in {
                "latency, in-process": lambda: here(clips[:1]),
                "latency, service": lambda: remote(clips[:1]),
                "all clips, in-process": lambda: here(clips),
                "all clips, service": lambda: shared(remote, clips, args.clients),
            }.items():
                found.setdefault(name, []).append(seconds(call))
        server.should_exit = True
    people = {"demo": "the demo's people"}.get(args.size, "2 fixed people a frame")
    mode = "fast" if args.fast else "exact"
    print(f"{describe(args.device)}; {args.size} weights, {mode}, {people}")
    print(f"{args.clips} clips of {args.frames} x 480 x 480; same values: {same}")
    print(f"{'':<24}{'median s':>10}{'least s':>10}{'clips/s':>10}")
    for name, times in found.items():
        count = 1 if name.startswith("latency") else args.clips
        median = statistics.median(times)
        print(f"{name:<24}{median:10.3f}{min(times):10.3f}{count / median:10.3f}")
    ratio = [statistics.median(found[f"all clips, {where}"]) for where in ("in-process", "service")]
    print(f"throughput of the service: {ratio[0] / ratio[1]:.3f} of in-process")


if __name__ == "__main__":
    main()

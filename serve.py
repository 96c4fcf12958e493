"""A service that scores videos over HTTP, with a page onto which a video can be dropped.

    python serve.py --release --port 8000        # then open http://127.0.0.1:8000
    curl -F file=@a.mp4 http://127.0.0.1:8000/score

POST /score takes videos as a form's files, a .npy file of frames, or Flow-Factory's JSON.
?frames=1 adds the frames' rows, ?layout=TCHW says where the channels are. GET /health says what is
loaded. `rewards.human_anatomy(url=..)` is the client.
"""

import fcntl
import ipaddress
import logging
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from human_anomaly.configs.defaults import get_config
from human_anomaly.configs.flags import add_weight_flags, at_least, given_files
from human_anomaly.utils import UsageError, command_parser, quiet_libraries, run_main, setup_logging

logger = logging.getLogger("serve")

PREFIX = "human-anomaly-serve-"
HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),  # who knows a report page's address may read it
    (
        "Content-Security-Policy",
        "default-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
    ),
]


def parse_args(argv: Sequence[str] | None = None):
    p = command_parser(__doc__)
    add = p.add_argument
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen at; needs --token if other machines can reach it (127.0.0.1)",
    )
    add("--port", type=at_least(0), default=8000, help="port; 0 takes a free one (8000)")
    add(
        "--token",
        default=os.environ.get("HUMAN_ANOMALY_TOKEN", ""),
        help="what clients must send as 'Authorization: Bearer TOKEN' ($HUMAN_ANOMALY_TOKEN)",
    )
    add_weight_flags(add)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    add("--cores", type=at_least(1), metavar="N", help="CPU cores to use (all)")
    add("--batch-size", type=at_least(1), metavar="N", help="frames per batch")
    add("--fast", action="store_true", help="faster, less exact: scores change a little")
    whole = at_least(1)
    add("--max-mb", type=whole, default=256, help="most megabytes of a request (256)")
    add("--max-frames", type=whole, default=10_000, help="most frames of a video (10000)")
    add("--max-pixels", type=whole, default=2**24, help="most pixels of a frame (16777216)")
    add("--max-waiting", type=whole, default=64, help="most requests at a time; more get 503 (64)")
    add("--body-seconds", type=whole, default=120, help="seconds for a request to arrive (120)")
    add("--max-seconds", type=whole, default=3600, help="seconds to score a request (3600)")
    add("--report-hours", type=whole, default=24, help="hours to keep report pages (24)")
    add("--report-mb", type=whole, default=2000, help="most megabytes of all report pages (2000)")
    add("--folder", type=Path, default=tempfile.gettempdir(), help="folder of temporary files")
    return p.parse_args(argv)


def listen(host: str, port: int, token: str) -> socket.socket:
    """Return a socket at the address; raises UsageError if it is taken or needs a token."""
    try:
        here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = False
    if not here and not token:
        raise UsageError(f"--host {host}: other machines may reach it, so --token is needed")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UsageError(f"--port {port}: cannot listen at {host}: {error.strerror}") from error


@contextmanager
def own_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder, deleted at the end, and delete what killed services left in `parent`."""
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{PREFIX}*"):
        with suppress(OSError), open(left / ".lock", "rb") as lock:  # not ours, or still used
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
    new = tempfile.TemporaryDirectory(prefix=PREFIX, dir=parent)
    with new as folder, open(Path(folder) / ".lock", "wb") as lock:
        with suppress(OSError):  # no locks here: then nothing is deleted above
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield Path(folder)


def load(args):
    """Return the scorer, and what /health says about it."""
    from human_anomaly.models.scoring.scorer import VideoScorer
    from human_anomaly.models.weights import choose_weights, demo_warnings

    weights = choose_weights(**given_files(args))
    scorer = VideoScorer.from_files(
        weights.detector_config,
        weights.detector_weights,
        weights.models,
        get_config(weights.cfg),
        device=args.device,
        batch_size=args.batch_size,
        fast=args.fast,
        cores=args.cores,
    )
    files = {"detector": weights.detector_weights, **weights.models}
    about = {"device": str(scorer.detector.device), "dtype": scorer.dtype}
    about["weights"] = {name: Path(file).name for name, file in files.items()}
    return scorer, about | {"demo": bool(demo_warnings(scorer.weight_files, [None]))}


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        import python_multipart  # noqa: F401
        import uvicorn

        from human_anomaly.models.serving.app import Service, create_app
    except ImportError as error:
        packages = "fastapi uvicorn python-multipart"
        raise UsageError(f"{error.name} is missing: pip install {packages}") from error
    from human_anomaly.models.serving.line import Limits, Line
    from human_anomaly.models.serving.reports import Reports

    setup_logging()
    quiet_libraries()
    limits = Limits(
        body=args.max_mb * 2**20,
        frames=args.max_frames,
        pixels=args.max_pixels,
        waiting=args.max_waiting,
        body_seconds=args.body_seconds,
        seconds=args.max_seconds,
    )
    with listen(args.host, args.port, args.token) as listening, own_folder(args.folder) as folder:
        scorer, about = load(args)
        reports = Reports(folder / "reports", args.report_hours * 3600, args.report_mb * 2**20)
        line = Line(scorer, limits, reports)
        app = create_app(Service(line, folder, args.token or None, about))
        quiet = {"log_config": None, "log_level": "warning", "access_log": False}
        config = uvicorn.Config(app, http="h11", headers=HEADERS, **quiet)
        server = uvicorn.Server(config)

        def stop(*_) -> None:  # waiting requests are refused, running ones finished
            line.closing = server.should_exit = True

        for signal_number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signal_number, stop)
        server.capture_signals = nullcontext  # it would end the process by the signal
        logger.info(f"ready: http://{args.host}:{listening.getsockname()[1]}")
        server.run(sockets=[listening])
    return 0


if __name__ == "__main__":
    run_main(main)

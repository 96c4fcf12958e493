"""Attack what reads files of others, and print how it held: a row per kind of file.

    python tests/robustness/attack.py videos 300
    python tests/robustness/attack.py checkpoints 160

Each try is made in a process of its own kind, which may crash or hang, from its number alone. It
survives by working or by an error of one line; anything else, and a damage that nobody noticed, is
lost.
"""

import argparse
import contextlib
import io
import json
import os
import random
import sys
import tempfile
import zipfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cv2
import numpy as np
import torch
from clips import damage, damaged_clip, write_clip

from human_anomaly.configs.defaults import ConfigError, get_config
from human_anomaly.data.runs.jobs import JobFolder
from human_anomaly.data.runs.resume_log import ResumeLog
from human_anomaly.data.sources import Source, find_sources
from human_anomaly.data.video import FrameReader, VideoError, count_frames
from human_anomaly.models.classifier import load_classifier, load_pretrained
from human_anomaly.models.yolo_world.build import load_detector
from human_anomaly.utils import UsageError, read_jsonl, write_jsonl

ROOT = Path(__file__).resolve().parents[2]
ONE_LINE = (UsageError, ConfigError, VideoError, cv2.error)
SECONDS = 120


class Lost(Exception):
    """The code went on with damaged data, or did what a file told it to."""


def videos(folder: Path, rng: random.Random) -> None:
    path = damaged_clip(folder, rng)
    (source,) = find_sources([path]).sources
    count_frames(source)
    for number, frame in enumerate(FrameReader(source)):
        assert frame.image.ndim == 3
        if number > 10_000:
            raise Lost("frames without end")


class _Attack:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


class _Huge:
    def __reduce__(self):
        return np._core.multiarray._reconstruct, (np.ndarray, (2**42,), "d")


def _odd_tensor(tensor: torch.Tensor, rng: random.Random):
    odd = [
        torch.full_like(tensor, torch.nan),
        torch.where(torch.arange(tensor.numel()).view_as(tensor) == 0, torch.inf, tensor),
        tensor.int(),
        tensor.bool(),
        tensor.to("meta"),
        tensor.to_sparse(),
        tensor[..., :0],
        tensor.flatten()[:1].expand(2**40),
        tensor.to(torch.complex64),
        None,
        [tensor],
        "text",
    ]
    return rng.choice(odd)


def _odd_content(path: Path, folder: Path, rng: random.Random) -> None:
    """Write the checkpoint at `path` again, with something odd in it."""
    content = torch.load(path, weights_only=True)
    key = "state_dict" if "state_dict" in content else "model"
    state = content[key]
    name = rng.choice([k for k, v in state.items() if v.ndim and v.is_floating_point()])
    match rng.randrange(6):
        case 0 | 1 | 2:
            state[name] = _odd_tensor(state[name], rng)
        case 3:
            state[rng.choice((7, (1, 2), b"x"))] = state.pop(name)
        case 4:
            content[rng.choice(("epoch", "x", key))] = rng.choice(
                (_Attack(folder / "executed"), _Huge())
            )
        case 5:
            content = rng.choice((state[name], [content], {}, {key: []}, {key: {}}, {key: 5}))
    torch.save(content, path, _use_new_zipfile_serialization=rng.random() < 0.8)


def _pack(path: Path) -> None:
    with zipfile.ZipFile(path) as old:
        records = [(info.filename, old.read(info)) for info in old.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in records:
            packed.writestr(name, data)


def _load(kind: str, path: Path) -> dict:
    config = get_config(ROOT / "configs/demo/demo.yaml")
    if kind == "detector":
        return load_detector(ROOT / "configs/demo/yolo_world_demo.py", path, ["human"])[0]
    if kind == "pretrained":
        model = load_classifier(ROOT / "demo/weights/hand.pth", config, "cpu")
        load_pretrained(model, path)
        return model
    return load_classifier(path, config, "cpu")


def checkpoints(folder: Path, rng: random.Random) -> None:
    os.environ["XDG_CACHE_HOME"] = str(folder)
    kind = rng.choice(("detector", "human", "face", "hand", "pretrained"))
    good = ROOT / f"demo/weights/{'hand' if kind == 'pretrained' else kind}.pth"
    path = folder / "a.pth"
    path.write_bytes(good.read_bytes())
    if kind == "pretrained":
        content = torch.load(path, weights_only=True)
        state = {k: v for k, v in content["model"].items() if not k.startswith(("head", "fc_norm"))}
        torch.save({"model": {f"encoder.{k}": v for k, v in state.items()}}, path)
        good = folder / "good.pth"
        good.write_bytes(path.read_bytes())
    choice = rng.randrange(10)
    if choice < 5:
        path.write_bytes(damage(path.read_bytes(), rng))
    elif choice < 9:
        _odd_content(path, folder, rng)
    else:
        _pack(path)
    try:
        loaded = _load(kind, path).state_dict()
    finally:
        if (folder / "executed").exists():
            raise Lost("code in the file was run")
    whole = _load(kind, good).state_dict()
    if any(not torch.equal(loaded[k], v) for k, v in whole.items()):
        raise Lost("damaged weights were loaded without a word")


ODD_CHARACTERS = [
    *("\u2028", "\u202e", "\x1b[2J", "\n", "\t", "'", '"', "<script>", "&", "%00", "%s", "\udcff"),
    *("\udc80", "{}", "*", "[a]", "?", " ", "é", "e\u0301", "漢", "🙂", "-", "."),
]


def names(folder: Path, rng: random.Random) -> None:
    name = "".join(rng.choices([*ODD_CHARACTERS, "a", "b"], k=rng.randrange(1, 20)))
    path = folder / f"{name}.mp4"
    write_clip(folder / "clip.mp4", 2).rename(path)
    found = find_sources([path if rng.random() < 0.5 else folder])
    sources, failed = found.sources, found.failed
    for shown, _ in failed + found.skipped:
        shown.encode()
    jobs = JobFolder(folder / "out", {})
    for source in sources:
        frames = [frame.index for frame in FrameReader(source)]
        with jobs.open():
            write_jsonl(jobs.folder / f"{source.stem}.frames.jsonl", [[source.stem, frames]])
            jobs.finish(source, {"video_path": str(source.path)}, [f"{source.stem}.frames.jsonl"])
        if (
            jobs.row(source) is None
            or len(read_jsonl(jobs.folder / f"{source.stem}.frames.jsonl")) != 1
        ):
            raise Lost(f"the results of {name!r} are not found again")
    if len(sources) + len(failed) != 1 and not path.name.startswith("."):
        raise Lost(f"{name!r} is neither read nor failed")


ODD_JSON = [b"", b"{}", b"[]", b"5", b"null", b'"x"', b"\xff", b"[" * 3000, b'{"row": 5}', b"\0"]


def states(folder: Path, rng: random.Random) -> None:
    """Damage a file that a run left; what the next run finds is the truth, or nothing."""
    (folder / "a.mp4").write_bytes(b"video")
    source, jobs = Source(folder / "a.mp4", "a"), JobFolder(folder / "out", {"a": 1})
    row = {"video_path": "a.mp4", "video_results": 0.5}
    with jobs.open():
        (jobs.folder / "a.frames.jsonl").write_text("[1]\n[2]\n")
        jobs.finish(source, row, ["a.frames.jsonl"])
    with ResumeLog(jobs.state / "part.b.jsonl", {"x": 1}) as resume_log:
        for number in range(5):
            resume_log.add({"rows": number})
    whole = [path for path in jobs.folder.rglob("*") if path.is_file() and path.stat().st_size]
    path = rng.choice(sorted(whole))
    before = path.read_bytes()
    after = rng.choice(ODD_JSON) if rng.random() < 0.3 else damage(before, rng)
    path.write_bytes(after)
    again = JobFolder(folder / "out", {"a": 1})
    found = again.row(source)
    if found not in (None, row) or again.items().get("a", {}).get("row", row) != row:
        raise Lost(f"{path.name}: another row was believed")
    if found and path.name == "a.frames.jsonl" and after != before:
        raise Lost("damaged results were believed")
    with ResumeLog(again.state / "part.b.jsonl", {"x": 1}) as resume_log:
        kept = [batch["rows"] for batch in resume_log.kept()]
    if kept != list(range(len(kept))):
        raise Lost("damaged batches were believed")
    again.refuse_conflict([source], add=False, overwrite=False)


KINDS = {"videos": videos, "checkpoints": checkpoints, "names": names, "states": states}


def attempt(kind: str, number: int) -> str:
    """Make one try, from its number alone; return what came of it."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        try:
            KINDS[kind](Path(folder), random.Random(f"{kind} {number}"))
        except ONE_LINE as error:
            return (
                "refused" if isinstance(error, cv2.error) or "\n" not in str(error) else repr(error)
            )
        except Exception as error:
            return f"LOST {type(error).__name__}: {error}"
    return "accepted"


def _process() -> ProcessPoolExecutor:
    # A forked process would wait for threads of torch that a fork does not copy.
    return ProcessPoolExecutor(1, get_context("spawn"))


def attack(kind: str, count: int) -> tuple[Counter, dict[int, str]]:
    """Make `count` tries; return how many ended how, and what was lost by number."""
    outcomes, lost = Counter(), {}
    pool = _process()
    for number in range(count):
        try:
            outcome = pool.submit(attempt, kind, number).result(SECONDS)
        except (BrokenProcessPool, TimeoutError) as error:
            outcome = f"LOST {type(error).__name__}"
            pool.shutdown(wait=False, cancel_futures=True)
            pool = _process()
        outcomes["lost" if outcome not in ("refused", "accepted") else outcome] += 1
        if outcome not in ("refused", "accepted"):
            lost[number] = outcome
    pool.shutdown()
    return outcomes, lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("count", type=int)
    args = parser.parse_args()
    outcomes, lost = attack(args.kind, args.count)
    for number, why in lost.items():
        print(f"{args.kind} {number}: {why}")
    print(json.dumps({"kind": args.kind, "tried": args.count, **outcomes}))


if __name__ == "__main__":
    main()

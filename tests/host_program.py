"""A program that uses the scorer: it notes what is its own before, after load and after scoring."""

import logging
import multiprocessing
import os
import pickle
import random
import sys
import warnings
from pathlib import Path

import numpy as np
import torch

VIDEO = Path(__file__).resolve().parents[1] / "demo/videos/hand_fused.mp4"


def set_up() -> logging.Handler:
    warnings.simplefilter("error")  # any warning ends the program
    handler = logging.StreamHandler(sys.stdout)
    logging.basicConfig(level=logging.ERROR, handlers=[handler])
    torch.set_num_threads(4)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(1), random.seed(2), np.random.seed(3)
    return handler


def own() -> dict:
    """Return what belongs to the program."""
    return {
        "random": (random.getstate(), torch.get_rng_state().tolist()),
        "numpy": [str(part) for part in np.random.get_state()],
        "threads": torch.get_num_threads(),
        "path": sys.path[:],
        "environment": dict(os.environ),
        "logging": (logging.root.handlers[:], logging.root.level, logging.root.disabled),
        "filters": warnings.filters[:],
        "showwarning": warnings.showwarning,
        "gradients": torch.is_grad_enabled(),
        "type": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "folder": os.getcwd(),
        "matmul": torch.get_float32_matmul_precision(),
        "cudnn": torch.backends.cudnn.allow_tf32,
        "autocast": torch.is_autocast_enabled("cpu"),
    }


def score(path: Path) -> dict:
    """Score a clip in a worker that was spawned."""
    from human_anomaly.hubconf import human_anatomy

    return human_anatomy("demo", "cpu").score_frames(clip(path)).to_dict()


def clip(path: Path) -> np.ndarray:
    from human_anomaly.data.video import FrameReader, Source

    frames = iter(FrameReader(Source(path, path.stem)))
    return np.stack([next(frames).image[..., ::-1] for _ in range(2)])


def main() -> None:
    set_up()
    before = own()

    def check(when: str) -> None:
        now = own()
        for name, value in before.items():
            assert now[name] == value, f"{when}: {name} was {value}, is {now[name]}"

    from human_anomaly.hubconf import human_anatomy

    scorer = human_anatomy("demo", "cpu", cores=2)
    check("after load")
    frames = clip(VIDEO)
    result = scorer.score_frames(frames)
    check("after scoring")
    video = human_anatomy("demo", "cpu", cores=2, stride=20).score(VIDEO)
    assert video.summary["people"] > 0
    check("after scoring a video")
    with torch.autocast("cpu", torch.bfloat16):
        before["autocast"] = True
        inside = scorer.score_frames(frames)
        check("inside autocast")
    assert inside.to_dict() == result.to_dict()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(score, [VIDEO]) == [result.to_dict()]
    with multiprocessing.get_context("fork").Pool(1) as pool:
        for call in (scorer.score_frames, scorer.score):
            try:
                pool.apply_async(call, (frames,)).get(60)
            except TypeError as error:  # the bound method is pickled
                assert "create it in the worker" in str(error), error
            else:
                raise AssertionError("a scorer was pickled")
    child = os.fork()
    if child == 0:
        try:
            scorer.score_frames(frames)
        except RuntimeError as error:
            os._exit(0 if "create it in the worker" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    copy = pickle.loads(pickle.dumps(result))
    assert copy == result and len(repr(result)) < 200
    print("as before")


if __name__ == "__main__":
    main()

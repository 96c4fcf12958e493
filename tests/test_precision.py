"""A good guest: the host program's flags stay, and do not change what we compute."""

import contextlib
import threading

import numpy as np
import pytest
import torch

from benchmarks.clips import first_frames
from human_anomaly.configs.defaults import PARTS, get_config
from human_anomaly.demo.paths import CONFIG, DETECTOR_CONFIG, VIDEOS, WEIGHTS
from human_anomaly.models import device
from human_anomaly.models.device import own_precision
from human_anomaly.models.scoring.scorer import VideoScorer
from human_anomaly.models.scoring.worker import explainer

B = torch.backends


def flags() -> list:
    """Return what a host program may have set."""
    older = []
    for read in (
        torch.get_float32_matmul_precision,
        lambda: B.cudnn.allow_tf32,
        lambda: B.cuda.matmul.allow_tf32,
    ):
        try:
            older.append(read())
        except RuntimeError:  # only the newer flags were set
            older.append(None)
    newer = (B.cuda.matmul, B.cudnn.conv, B.cudnn.rnn, B.mkldnn.matmul, B.mkldnn.conv)
    newer = [part.fp32_precision for part in newer]
    autocast = torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")
    return [*older, *newer, autocast, torch.get_default_dtype(), torch.get_num_threads()]


@pytest.fixture(autouse=True)
def restored():
    kept, threads = device._flags(), torch.get_num_threads()
    yield
    device._set_flags(kept)
    torch.set_num_threads(threads)


def older_flags() -> None:
    torch.set_float32_matmul_precision("medium")
    B.cudnn.allow_tf32 = True


def newer_flags() -> None:
    B.cuda.matmul.fp32_precision = "tf32"
    B.cudnn.conv.fp32_precision = "tf32"
    B.mkldnn.matmul.fp32_precision = "bf16"
    B.mkldnn.conv.fp32_precision = "bf16"


@pytest.mark.parametrize("set_host", [lambda: None, older_flags, newer_flags])
def test_the_flags_are_ours_inside_and_the_host_s_outside(set_host):
    set_host()
    before = flags()
    with torch.autocast("cpu", torch.bfloat16), own_precision("cpu"):
        inside = flags()
        assert torch.ones(2, 2) @ torch.ones(2, 2) is not None
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    assert inside[:3] == ["highest", False, False] and inside[3:8] == ["ieee"] * 5
    assert flags() == before


def test_the_strictest_thread_decides_and_the_last_one_restores():
    older_flags()
    before, inside, leave = flags(), threading.Event(), threading.Event()

    def exact() -> None:
        with own_precision("cpu"):
            inside.set()
            leave.wait()

    thread = threading.Thread(target=exact)
    with own_precision("cuda", torch.bfloat16):  # fast: the detector's head rounds to TF32
        assert B.cudnn.allow_tf32 and B.cudnn.conv.fp32_precision == "tf32"
        assert torch.get_float32_matmul_precision() == "highest"
        thread.start()
        inside.wait()
        assert not B.cudnn.allow_tf32 and B.cudnn.conv.fp32_precision == "ieee"
    assert not B.cudnn.allow_tf32
    leave.set()
    thread.join()
    assert flags() == before
    with contextlib.suppress(ZeroDivisionError), own_precision("cpu"):
        raise ZeroDivisionError
    assert flags() == before


def test_scores_are_the_same_whatever_the_host_allows():
    """Loading, scoring and heatmaps, under the host's TF32, bfloat16 products and autocast."""
    config = get_config(CONFIG)
    models = {part: WEIGHTS / f"{part}.pth" for part in PARTS}
    clip = np.stack([image[:, :, ::-1] for image in first_frames(VIDEOS / "hand_fused.mp4", 2)])
    found = []
    for set_host, autocast in ((lambda: None, False), (older_flags, True), (newer_flags, True)):
        set_host()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            before = flags()
            files = DETECTOR_CONFIG, WEIGHTS / "detector.pth"
            scorer = VideoScorer.from_files(*files, models, config, device="cpu")
            assert flags() == before
            rows = scorer.score_frames(clip).frames
            heat = explainer(scorer)("hand", [clip[0, 200:300, 300:400]])[0]
            crop = scorer.judge("hand", [clip[0, 200:300, 300:400]])
            direct = scorer.detector.detect([clip[0, :, :, ::-1]])[0].people[0].bbox
            assert flags() == before
        found.append((rows, heat.tolist(), crop, direct))
    assert found[0][0][0]["people"]
    assert found[1] == found[0] and found[2] == found[0]

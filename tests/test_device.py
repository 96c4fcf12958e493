"""The number type of fast mode, measured, not believed; a GPU's batches and its memory."""

import json
import logging

import cv2
import numpy as np
import pytest
import torch

from human_anomaly import inference
from human_anomaly.data.video import VideoError
from human_anomaly.demo.paths import DETECTOR_CONFIG, WEIGHTS
from human_anomaly.models import device
from human_anomaly.models.detector import PartDetector
from human_anomaly.models.device import enough_memory
from human_anomaly.models.yolo_world.predictor import Detections, Predictor
from human_anomaly.utils import UsageError

CPU = torch.device("cpu")
FLOAT32, BFLOAT16, FLOAT16, INT8 = torch.float32, torch.bfloat16, torch.float16, torch.int8


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({FLOAT32: 1.0, BFLOAT16: 1.9}, FLOAT32),  # has instructions, and is slower
        ({FLOAT32: 1.0, BFLOAT16: 0.9, FLOAT16: 1.5}, FLOAT32),  # conversions eat that up
        ({FLOAT32: 1.0, BFLOAT16: 0.12}, BFLOAT16),
        ({FLOAT32: 1.0, BFLOAT16: 0.9, FLOAT16: 0.4}, FLOAT16),  # a GPU without bfloat16
        ({FLOAT32: 1.0}, FLOAT32),
        ({FLOAT32: 1.0, INT8: 0.3, BFLOAT16: 4.0}, INT8),  # VNNI, and bfloat16 is slow
        ({FLOAT32: 1.0, INT8: 0.13, BFLOAT16: 0.15}, BFLOAT16),  # not faster by enough
    ],
)
def test_a_type_must_save_enough(seconds, expected):
    assert device.choose_type(seconds) == expected


def test_an_emulated_type_is_not_timed_in_full(monkeypatch):
    timed = []

    def time_layers(layers, shapes, clock, **_):
        dtype, work = layers[0].weight.dtype, int(np.prod(shapes[0]))
        timed.append((dtype, work))
        return work * (1.0 if dtype == FLOAT32 else 500.0)

    monkeypatch.setattr(device, "_time", time_layers)
    assert BFLOAT16 not in device.measure_types(CPU)
    work = {dtype: sum(w for kind, w in timed if kind == dtype) for dtype, _ in timed}
    assert work[BFLOAT16] < 0.05 * work[FLOAT32]


def test_int8_is_timed_only_where_it_is_exact(monkeypatch):
    monkeypatch.setattr(device, "is_exact", lambda: False)
    assert INT8 not in device.measure_types(CPU)


def test_training_has_a_floating_type(monkeypatch):
    seconds = {FLOAT32: 1.0, INT8: 0.2, BFLOAT16: 4.0}
    monkeypatch.setattr(device, "measure_types", lambda _: dict(seconds))
    assert device.fast_dtype(CPU) == INT8 and device.fast_dtype(CPU, int8=False) == FLOAT32


def test_the_layers_are_timed_on_one_core(monkeypatch):
    threads = []
    measure = device.measure_types
    monkeypatch.setattr(
        device, "measure_types", lambda d: threads.append(torch.get_num_threads()) or measure(d)
    )
    assert device.fast_dtype(CPU) in (FLOAT32, BFLOAT16, INT8) and threads == [1]
    assert all(0 < seconds < 5 for seconds in measure(CPU).values())


@pytest.mark.parametrize(("bf16_ms", "expected"), [(2.0, "bfloat16"), (19.0, "float32")])
def test_the_choice_is_logged_and_recorded(bf16_ms, expected, tmp_path, monkeypatch, caplog):
    """--fast on a machine with and on one without fast bfloat16; exact mode measures nothing."""
    seconds = {FLOAT32: 0.01, BFLOAT16: bf16_ms / 1000}
    monkeypatch.setattr(device, "measure_types", lambda _: seconds)
    (tmp_path / "frames").mkdir()
    cv2.imwrite(str(tmp_path / "frames/0.png"), np.full((72, 128, 3), 90, np.uint8))
    flags = ["--device", "cpu", "--video", str(tmp_path / "frames")]
    monkeypatch.setattr(inference, "setup_logging", lambda: None)
    caplog.set_level(logging.INFO)
    assert inference.main([*flags, "--fast", "--output", str(tmp_path / "fast")]) == 0
    scores = json.loads((tmp_path / "fast/scores.json").read_text())
    assert scores["settings"]["fast"] is True and scores["settings"]["dtype"] == expected
    line = f"--fast computes in {expected}; measured in ms on cpu: float32 10.0, bfloat16 {bf16_ms}"
    assert line in caplog.text
    monkeypatch.setattr(device, "measure_types", None)  # would fail
    assert inference.main([*flags, "--output", str(tmp_path / "exact")]) == 0
    scores = json.loads((tmp_path / "exact/scores.json").read_text())
    assert scores["settings"]["dtype"] == "float32"


@pytest.mark.parametrize(
    ("kind", "fast", "expected"),
    [("cpu", False, 2), ("cpu", True, 2), ("mps", True, 8), ("cuda", False, 8), ("cuda", True, 32)],
)
def test_frames_of_a_batch(kind, fast, expected):
    assert device.frames_per_batch(kind, fast) == expected


@pytest.fixture
def short_of_memory(monkeypatch):
    """The detector runs out of memory with more than one frame, and finds nobody in one."""

    def find(_self, images, *_arguments):
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.5 GiB")
        return [Detections(np.empty((0, 4)), np.empty(0), np.empty(0))] * len(images)

    monkeypatch.setattr(Predictor, "__call__", find)


@pytest.mark.usefixtures("short_of_memory")
def test_a_gpu_without_memory_fails_the_video_and_not_the_run(tmp_path, capsys):
    for name, frames in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        for i in range(frames):
            cv2.imwrite(str(tmp_path / name / f"{i}.png"), np.full((72, 128, 3), 90, np.uint8))
    flags = ["--device", "cpu", "--video", str(tmp_path / "one"), str(tmp_path / "two")]
    assert inference.main([*flags, "--output", str(tmp_path / "out")]) == 1
    scores = json.loads((tmp_path / "out/scores.json").read_text())
    assert [row["frames"] for row in scores["videos"]] == [1]
    (failed,) = scores["failed"]
    assert failed["error"] == "the GPU has too little memory: give a smaller --batch-size"
    assert f"failed: {tmp_path / 'two'}: {failed['error']}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "is_of_the_video"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_which_errors_are_a_lack_of_memory(error, is_of_the_video):
    with pytest.raises(VideoError if is_of_the_video else RuntimeError) as raised, enough_memory():
        raise error
    assert isinstance(raised.value, VideoError) == is_of_the_video


def test_a_gpu_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device.choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UsageError, match="--device: expected cuda:0 to cuda:1, got cuda:7"):
        device.choose_device("cuda:7")


def test_the_probe_waits_for_the_gpu_that_it_measures(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    device._clock(torch.device("cuda", 1))()
    assert waited == [torch.device("cuda", 1)]


def test_the_probe_times_float32_and_not_tf32(monkeypatch):
    """Otherwise float32 looks faster there than exact mode computes it."""
    seen = []
    monkeypatch.setattr(
        device,
        "measure_types",
        lambda _: seen.append(torch.backends.cudnn.allow_tf32) or {FLOAT32: 1},
    )
    before = torch.backends.cudnn.allow_tf32
    device.fast_dtype(CPU)
    assert seen == [False] and torch.backends.cudnn.allow_tf32 == before


@pytest.mark.usefixtures("short_of_memory")
def test_cropping_fails_only_the_video_too():
    detector = PartDetector(DETECTOR_CONFIG, WEIGHTS / "detector.pth")
    with pytest.raises(VideoError, match="give a smaller --batch-size"):
        detector.detect([np.full((72, 128, 3), 90, np.uint8)] * 2)

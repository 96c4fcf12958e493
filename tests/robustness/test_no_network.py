"""Scoring, cropping and training open no connection: with sockets blocked they end the same."""

import subprocess
import sys

import pytest
from conftest import ROOT

BLOCK = """
import socket, sys
def blocked(self, address, *rest):
    if self.family != getattr(socket, "AF_UNIX", None):
        raise SystemExit(f"a connection to {address!r}")
class Blocked(socket.socket):
    connect = connect_ex = sendto = blocked
socket.socket = Blocked
def no_lookup(host, *rest, **more):
    raise SystemExit(f"a look-up of {host!r}")
socket.getaddrinfo = socket.gethostbyname = socket.create_connection = no_lookup
sys.path.insert(0, ".")
import importlib
from human_anomaly.utils import run_main
script = importlib.import_module(sys.argv[1])
run_main(lambda: script.main(sys.argv[2:]))
"""
DETECTOR = ["--detector-config", "configs/demo/yolo_world_demo.py"]
DETECTOR += ["--detector-weights", "demo/weights/detector.pth"]


def run(*words) -> str:
    command = [sys.executable, "-c", BLOCK, *map(str, words)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


def test_the_block_blocks():
    words = [sys.executable, "-c", BLOCK.split("import importlib")[0]]
    words[-1] += "socket.socket().connect(('127.0.0.1', 9))"
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert "a connection to" in ended.stderr


@pytest.mark.slow
def test_scoring_cropping_and_training_open_no_connection(tmp_path):
    video = "demo/videos/hand_fused.mp4"
    stride = ["--frame-stride", "40"]
    run("inference", "--video", video, "--output", tmp_path / "scores", *stride)
    run("preprocess", "--input", video, "--output", tmp_path / "crops", *DETECTOR, *stride)
    crops = sorted(path.name for path in (tmp_path / "crops/hand").iterdir())
    rows = "".join(f'["{name}", {i % 2}, 1]\n' for i, name in enumerate(crops))
    (tmp_path / "crops/hand_set.jsonl").write_text(rows)
    data = [
        word
        for flag in ("--train-path", "--val-path")
        for word in (flag, tmp_path / "crops/hand_set.jsonl")
    ]
    options = ["--opts", "TRAIN.EPOCHS", "1", "TRAIN.WARMUP_EPOCHS", "0", "DATA.NUM_WORKERS", "0"]
    flags = ["--cfg", "configs/demo/demo.yaml", "--batch-size", "2", "--output", tmp_path / "run"]
    run("main_finetune", *flags, *data, *options)

#!/bin/sh
# Measure everything that concerns a GPU, in at most 10 minutes and without network.
#
#   tests/benchmarks/gpu.sh [--output build/bench/gpu.json]    size XL and ViT-B on the GPU
#   tests/benchmarks/gpu.sh --cpu                              the same script at nano size on a CPU
#
# A machine with torch and torchvision needs beside this clone the wheels of mmengine, mmcv-lite,
# mmdet, mmyolo, timm, yacs, av, open_clip_torch, opencv-python-headless, filelock, pytest and what
# they require (`pip download -r requirements.txt pytest` elsewhere). No compiled mmcv:
# third_party/mmcv_ext.py serves. PYTHON names the interpreter.
set -eu
cd "$(dirname "$0")/../.."
python=.venv/bin/python
[ -x "$python" ] || python=python3
exec "${PYTHON:-$python}" -m tests.benchmarks.bench_gpu "$@"

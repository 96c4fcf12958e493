#!/bin/sh
# Measure everything that concerns a GPU, in 8 minutes and without network.
#
#   benchmarks/gpu.sh [--seconds 480] [--output build/bench/gpu.json]   XL and ViT-B on the GPU
#   benchmarks/gpu.sh --cpu                              the same script at nano size on a CPU
#
# Called again, it goes on where it was cut. A machine with torch and torchvision needs beside this
# clone the wheels that gpu_wheels.sh downloads; they are installed first if they are here and
# mmyolo is not. No compiled mmcv: third_party/mmcv_ext.py serves. PYTHON names the interpreter.
set -eu
cd "$(dirname "$0")/.."
python=.venv/bin/python
[ -x "$python" ] || python=python3
python=${PYTHON:-$python}
wheels=build/gpu_wheels
if [ -d "$wheels" ] && ! "$python" -c "import mmyolo" 2> /dev/null; then
  "$python" -m pip install --quiet --no-index --no-deps --find-links "$wheels" "$wheels"/*.whl
fi
exec "$python" -m benchmarks.bench_gpu "$@"

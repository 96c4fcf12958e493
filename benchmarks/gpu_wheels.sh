#!/bin/sh
# Download the wheels that gpu.sh needs on a machine without network, into build/gpu_wheels: for
# Python 3.12 on x86-64 Linux, beside torch 2.11, torchvision and what scientific images have
# (numpy, scipy, scikit-learn, matplotlib, OpenCV, Pillow, PyYAML, tqdm, filelock, Jinja2, pygments ..).
#
#   benchmarks/gpu_wheels.sh [FOLDER]        here, with network
#   pip install --no-index --no-deps --find-links build/gpu_wheels build/gpu_wheels/*.whl     there
#
# PYTHON names the interpreter whose pip is used. The last line is the size of all.
set -eu
cd "$(dirname "$0")/.."
python=.venv/bin/python
[ -x "$python" ] || python=python3
folder=${1:-build/gpu_wheels}
mkdir -p "$folder"
"${PYTHON:-$python}" -m pip download --quiet --no-deps --dest "$folder" \
  --only-binary :all: --python-version 3.12 --implementation cp --abi cp312 --abi none --abi abi3 \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
  --platform manylinux2014_x86_64 --platform any --constraint requirements.lock \
  mmdet==3.3.0 mmcv-lite==2.0.1 mmyolo==0.6.0 mmengine==0.10.7 setuptools==80.10.2 \
  addict av ftfy iniconfig natsort open_clip_torch markdown-it-py mdurl platformdirs pluggy prettytable pycocotools \
  pytest rich shapely six termcolor terminaltables timm wcwidth yacs yapf
du -cb "$folder"/*.whl | tail -1

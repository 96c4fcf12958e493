# Every target builds .venv by itself when it is missing or older than the files that define it.
PY := .venv/bin/python
PYTHON ?= python3

.DEFAULT_GOAL := help
.PHONY: help test check lint demo demo-train weights reproduce

help:
	@echo "make demo        score the four embedded videos and say where to look"
	@echo "make demo-train  train the demo's weights again, from nothing (at most 60 minutes)"
	@echo "make weights     fetch the released weights (2.5 GB) and check them"
	@echo "make reproduce   run what was published and print both numbers side by side"
	@echo "make test        lint and tests (at most 20 minutes from a clean clone on 2 cores)"
	@echo "make check       slower evidence (at most 60 minutes)"

demo: .venv
	$(PY) -m demo.show

demo-train: .venv
	$(PY) -m demo.train

weights: .venv
	.venv/bin/pip install -q 'gdown>=5.2,<7'
	$(PY) -m models.weights all

reproduce: .venv
	$(PY) -m models.benchmark.reproduce

.venv: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -q --upgrade pip
	.venv/bin/pip install -q -r requirements.txt 'pytest>=8,<10' 'ruff>=0.9,<1' \
		'selenium>=4.20,<5'
	@touch .venv

lint: .venv
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

test: .venv lint
	$(PY) -m pytest

check: .venv
	$(PY) -m pytest -m slow

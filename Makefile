# Every target builds .venv by itself when it is missing or older than the files that define it.
PY := .venv/bin/python
PYTHON ?= python3

.DEFAULT_GOAL := help
.PHONY: help test check lint demo demo-train

help:
	@echo "make demo        score the four embedded videos and say where to look"
	@echo "make demo-train  train the demo's weights again, from nothing (at most 60 minutes)"
	@echo "make test        lint and tests (at most 20 minutes from a clean clone on 2 cores)"
	@echo "make check       slower evidence (at most 60 minutes)"

demo: .venv
	$(PY) -m models.demo.show

demo-train: .venv
	$(PY) -m models.demo.train

.venv: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -q --upgrade pip
	.venv/bin/pip install -q -r requirements.txt 'pytest>=8,<10' 'ruff>=0.9,<1'
	@touch .venv

lint: .venv
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

test: .venv lint
	$(PY) -m pytest

check: .venv
	$(PY) -m pytest -m slow

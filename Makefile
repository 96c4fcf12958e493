# Every target builds .venv by itself when it is missing or older than the files that define it.
PY := .venv/bin/python
# Written when all is installed: a killed installation leaves a .venv, too.
ENV := .venv/complete
# The first of these that is Python 3.11 or 3.12; `make PYTHON=/path/to/python` names another.
IS_KNOWN := -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null
PYTHON ?= $(firstword $(foreach p,python3 python3.12 python3.11,$(shell $p $(IS_KNOWN) && echo $p)))

.DEFAULT_GOAL := help
.PHONY: .venv help test check lint demo demo-train weights weights-training reproduce

help:
	@echo "make demo        score the four embedded videos and say where to look"
	@echo "make demo-train  train the demo's weights again, from nothing (more than an hour)"
	@echo "make weights     find or fetch the released weights for scoring and check them"
	@echo "make weights-training  the same, with SimMIM's to train from"
	@echo "make reproduce   run what was published and print both numbers side by side"
	@echo "make test        lint and tests (at most 20 minutes from a clean clone on 2 cores)"
	@echo "make check       slower evidence (at most 60 minutes)"

demo: $(ENV)
	$(PY) -m demo.show

demo-train: $(ENV)
	$(PY) -m demo.train

weights weights-training: $(ENV)
	.venv/bin/pip install -q '.[weights]'
	$(PY) -m models.weights $(if $(filter weights,$@),scoring,all)

reproduce: $(ENV)
	$(PY) -m models.benchmark.reproduce

.venv: $(ENV)

$(ENV): requirements.txt pyproject.toml
	@$(or $(PYTHON),false) $(IS_KNOWN) || { echo "error: Python 3.11 or 3.12 is needed," \
		"$(or $(PYTHON),python3) is $$($(or $(PYTHON),python3) -V 2>&1): install one, or name" \
		"it by make PYTHON=/path/to/python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -q --upgrade pip
	.venv/bin/pip install -q -r requirements.txt 'pytest>=8,<10' 'ruff>=0.9,<1' \
		'selenium>=4.20,<5' 'ray[data]>=2.60,<2.61' 'hypothesis>=6.100,<7'
	@touch $(ENV)

lint: $(ENV)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

test: $(ENV) lint
	$(PY) -m pytest

check: $(ENV)
	$(PY) -m pytest -m slow

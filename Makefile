# Every target builds .venv by itself when it is missing or older than the files that define it.
PY := .venv/bin/python
# Written when all is installed: a killed installation leaves a .venv, too.
ENV := .venv/complete
# The same for what only tests need.
TESTS := .venv/complete-tests
# The first of these that is Python 3.11 to 3.14; `make PYTHON=/path/to/python` names another.
IS_KNOWN := -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null
NAMES := python3 python3.13 python3.12 python3.11 python3.14
PYTHON ?= $(firstword $(foreach p,$(NAMES),$(shell $p $(IS_KNOWN) && echo $p)))
# Prints the packages of an extra in pyproject.toml, without the project itself: `pip install .[..]`
# would put a copy of the code into .venv.
EXTRA := $(PY) -c 'import sys, tomllib; project = tomllib.load(open("pyproject.toml", "rb")); \
	print(*project["project"]["optional-dependencies"][sys.argv[1]], sep="\n")'
INSTALL := .venv/bin/pip install -q -r /dev/stdin

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
	$(EXTRA) weights | $(INSTALL)
	$(PY) -m tools.fetch_weights $(if $(filter weights,$@),scoring,all)

reproduce: $(ENV)
	$(PY) -m tools.reproduce

.venv: $(ENV)

$(ENV): requirements.txt
	@$(or $(PYTHON),false) $(IS_KNOWN) || { echo "error: Python 3.11 to 3.14 is needed," \
		"$(or $(PYTHON),python3) is $$($(or $(PYTHON),python3) -V 2>&1): install one, or name" \
		"it by make PYTHON=/path/to/python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -q --upgrade pip
	.venv/bin/pip install -q -r requirements.txt
	@touch $(ENV)

$(TESTS): $(ENV) pyproject.toml
	$(EXTRA) dev | $(INSTALL)
	@touch $(TESTS)

lint: $(TESTS)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

# A file of tests stays in one process, because its tests share what is slow to make. The processes
# have a core each, so that threads of one do not wait for those of another.
test: $(TESTS) lint
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile

check: $(TESTS)
	$(PY) -m pytest -m slow

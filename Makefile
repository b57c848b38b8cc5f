# `make quickstart` and `make test` each do the whole set-up: they need Python 3.11 to 3.13, its venv module, and make.
# Settings: PY=python3.12 picks the interpreter, WORKERS=4 the test processes. PIP_FIND_LINKS is honoured, and
# UV_TORCH_BACKEND=cpu takes the CPU build of torch where the default would be CUDA.
PY ?= python3
WORKERS ?= 2
BIN := .venv/bin
UV := uv==0.13.9
# uv does not read PIP_FIND_LINKS and stops at a folder that is missing, so hand it over, existing folders only.
LINKS := $(foreach d,$(PIP_FIND_LINKS),$(if $(wildcard $(d)),--find-links $(d)))
INSTALL = $(BIN)/uv pip install -q --python $(BIN)/python $(LINKS) -c constraints.txt -e
STATED := pyproject.toml constraints.txt

# Tests start Python hundreds of times: where bytecode is not kept, each start compiles torch and transformers again.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup quickstart check test test-slow test-gpu docs bench bench-gpu clean

help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r target words; do \
		printf '  make %-11s %s\n' "$$target" "$$words"; done

setup: .venv/ready ## make .venv with all that tests and checks need

quickstart: .venv/ready-quickstart ## run the main job on real embedded data, into ./quickstart
	$(BIN)/assay quickstart quickstart

check: .venv/ready ## the static half of the tests: lint, format, types, import contracts, docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_docs.py

test: check ## every check, and every test but the slow and the GPU ones
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow and not gpu"

test-slow: .venv/ready ## the tests that take minutes: kills at random moments, large inputs
	$(BIN)/python -m pytest -m "slow and not gpu" --timeout 1800

test-gpu: .venv/ready ## the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu --timeout 1800

docs: .venv/ready-docs ## build the documentation into ./site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# NOVELS=folder NOVELS_PL=folder, of .txt files in English and in Polish; without them two claims about books are left out.
bench: .venv/ready-bench ## run every CPU benchmark; each adds its lines to benchmarks/results.jsonl
	set -e; for script in benchmarks/[a-z]*.py benchmarks/serve/cpu.py; do \
		books=; \
		case $$script in benchmarks/recipes.py|benchmarks/train_vs_trainer.py) [ -d recipes/data ] || continue;; \
		*split_sentences.py) [ -n "$(NOVELS)" ] || continue; books='--books $(NOVELS)';; \
		*prepare_books.py) [ -n "$(NOVELS)" -a -n "$(NOVELS_PL)" ] || continue; \
			books='--english $(NOVELS) --polish $(NOVELS_PL)';; esac; \
		$(BIN)/python "$$script" $$books --record; done

# TEXT=novels.parquet gives the end-to-end benchmark real text; without it that claim is left out.
bench-gpu: .venv/ready-bench ## run every benchmark that needs a CUDA GPU, and record them likewise
	set -e; for script in benchmarks/gpu/[a-z]*.py; do \
		case $$script in *scaling.py) [ "$$(nvidia-smi -L | wc -l)" -ge 2 ] || continue;; \
		*time_to_accuracy.py) [ -d recipes/data ] || continue;; esac; \
		text=; [ -z "$(TEXT)" ] || [ "$$script" != benchmarks/gpu/end_to_end.py ] || text='--text-corpus $(TEXT)'; \
		$(BIN)/python "$$script" $$text --record; done

clean: ## remove caches and outputs; .venv stays
	rm -rf build dist site quickstart .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

# One environment; a stamp for each set of extras in it, so that adding one set leaves the others whole.
.venv/ready: $(STATED) | $(BIN)/uv
	$(INSTALL) '.[dev,lightning,quickstart,serve,train]'
	touch $@ .venv/ready-quickstart

.venv/ready-quickstart: $(STATED) | $(BIN)/uv
	$(INSTALL) '.[quickstart,serve,train]'
	touch $@

.venv/ready-docs: $(STATED) | $(BIN)/uv
	$(INSTALL) '.[docs]'
	touch $@

.venv/ready-bench: $(STATED) | $(BIN)/uv
	$(INSTALL) '.[bench,dev,quickstart,serve,train]'
	touch $@

# SkyPilot and transformers want different versions of click.
.venv-skypilot: | $(BIN)/uv
	$(BIN)/uv venv -q --python $(BIN)/python $@
	$(BIN)/uv pip install -q --python $@/bin/python $(LINKS) 'skypilot==0.14.1'

$(BIN)/uv:
	@command -v $(PY) >/dev/null || { echo "no $(PY) here; Assay needs Python 3.11 to 3.13: make PY=/path/to/python" >&2; exit 1; }
	@$(PY) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v < (3, 14) else \
		"Python %d.%d.%d; Assay needs 3.11 to 3.13: make PY=/path/to/python" % v[:3])'
	@$(PY) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PY) has no venv module; on Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	$(PY) -m venv .venv
	$(BIN)/python -m pip install -q '$(UV)'

# Each target makes its own environment when there is none; PYTHON names the interpreter to make it with.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test check docs bench cuda peers serving soak fuzz clean

demo: $(VENV)/.demo
	$(BIN)/plimsoll demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

# into site/; every warning is an error
docs: $(VENV)/.dev
	$(BIN)/python -m mkdocs build --strict

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/tune_suite.py benchmarks/specs/banking77.toml

# RUN names the folder of a finished run; each peer gets an environment of its own under .peers
peers: $(VENV)/.dev
	$(BIN)/python benchmarks/peers/run.py $(RUN) $(if $(SPEC),--spec $(SPEC))

# RUN names the folder of a finished run; 20,000 bad requests, about a quarter of an hour
fuzz: $(VENV)/.dev
	$(BIN)/python benchmarks/fuzz_serve.py $(RUN)

# RUN names the folder of a finished run or artifact; what serving adds, and what it holds under load
serving: $(VENV)/.dev
	$(BIN)/python benchmarks/serve.py $(RUN)

# an hour at half of what it holds: memory, latency and failures minute by minute
soak: $(VENV)/.dev
	$(BIN)/python benchmarks/serve.py $(RUN) --soak $(or $(MINUTES),60)

# where there is an NVIDIA GPU: everything that runs on one, each step with its result or its traceback
cuda: $(VENV)/.dev
	$(BIN)/python benchmarks/cuda_check.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The demo needs fewer packages than the tests, so a first look is ready sooner.
$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	test -e $(VENV)/.dev || $(BIN)/pip install --quiet --constraint constraints.txt --editable '.[onnxruntime,openvino,demo]'
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	bash tests/browser.sh $(BIN)/playwright
	touch $@

clean:
	rm -rf $(VENV) runs site

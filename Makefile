PY ?= python3
VENV := .venv
BIN := $(VENV)/bin
# For the PyTorch tests; `make test TORCH=` leaves it out, and the tests say so.
TORCH ?= torch==2.13.0

.PHONY: install demo example test test-kubernetes check unit fuzz bench-serving clean

$(VENV)/.ready: pyproject.toml
	$(PY) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[demo]'
	touch $@

$(VENV)/.dev: $(VENV)/.ready
	$(if $(strip $(TORCH)),$(BIN)/pip install --quiet $(TORCH))
	$(BIN)/pip install --quiet --editable '.[dev,conformance]'
	sh tests/setup.sh
	touch $@

install: $(VENV)/.ready

demo: $(VENV)/.ready
	$(BIN)/leptonai demo

# One of sentiment, support, recommendation, faults, risk: from training to a canary that is judged live.
NAME ?= sentiment

example: $(VENV)/.dev
	$(BIN)/python examples/run.py $(NAME)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Two files at a time: half of what a test does is waiting for processes. `make unit JOBS=0` runs one after another.
JOBS ?= 2

unit: $(VENV)/.dev
	$(BIN)/pytest -n $(JOBS) --dist loadfile --durations 25

# New examples for every property, where `unit` takes the same ones each time.
fuzz: $(VENV)/.dev
	$(BIN)/pytest -m hypothesis --hypothesis-profile explore --timeout 0

test: check unit

# On the cluster that KUBECONFIG names, or that LEPTONAI_TEST_CLUSTER starts (tests/cluster.sh).
test-kubernetes: $(VENV)/.dev
	cluster="$$(sh tests/cluster.sh)" && eval "$$cluster" && $(BIN)/pytest tests/platforms/kubernetes

# The peers live in environments of their own; one that cannot be installed is left out, loudly.
.bench/%/.ready: benchmarks/peers/requirements-%.txt
	$(PY) -m venv .bench/$*
	.bench/$*/bin/pip install --quiet --requirement $< && touch $@ || echo "LEFT OUT: $* cannot be installed" >&2

# What needs no peer, each with its own bars and exit code; autoscaling.py needs --data DIR besides.
BENCH_SERVING := gateway_cost.py protocol_binary.py batching.py batching_shapes.py fallback.py wake.py many_services.py \
	availability.py rollout.py

bench-serving: $(VENV)/.dev $(foreach peer,ray mlserver litserve bentoml,.bench/$(peer)/.ready)
	-$(BIN)/python benchmarks/serving.py --peers .bench
	@for one in $(BENCH_SERVING); do \
		echo "== $$one"; $(BIN)/python benchmarks/$$one || echo "MISSED OR NOT RUN: $$one" >&2; \
	done

clean:
	rm -rf $(VENV) .bench
